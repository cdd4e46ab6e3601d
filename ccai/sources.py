"""Where prompts come from: our own set, public sets pinned by sha256, and files users bring.

    python -m ccai.sources list                                   # prompts, licences, whom to credit
    python -m ccai.sources fetch ailuminate                       # from its URL
    python -m ccai.sources fetch ailuminate --from ~/Downloads    # from a copy, recognised by its sha256
    python -m ccai.sources pin NAME --url URL --like ailuminate   # another locale: same licence, same columns
    python -m ccai.sources pin NAME --url URL --licence MIT --attribution … --citation … --column text=question

An entry of `prompts.sources` in params.yaml is one of these, or a mapping with one of these as `source`:

    NAME    data/sources/NAME.yaml, the pin of a public set: what to fetch, its sha256, licence, whom to credit,
            columns. The file itself goes to data/public/, which git ignores.
    NAME    data/sources/NAME.jsonl, a set written for this project.
    FILE    a .jsonl, .csv or .txt file of your own, or one of these with .gz behind it. JSONL and CSV need `text`
            (or `prompt`), may have `id`, `hazard`, `persona` and `principle`; other columns are ignored. A .txt has
            one prompt per line. Keep it in data/sources/: DVC watches that folder and runs the prompts stage after a
            change.

A mapping may also say which of the file's columns are meant (`columns: {text: question, hazard: category}`), that the
text is a transcript whose first human turn is the prompt (`first_turn: true`), and how much the set weighs in a sample
(`weight: 2`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import requests
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ccai import records, yamlfile
from ccai.errors import UserError, first, run
from ccai.params import Column, PromptSet
from ccai.records import UNSPECIFIED

SOURCES = Path("data/sources")
PUBLIC = Path("data/public")
FIELDS: tuple[Column, ...] = get_args(Column)

SIZE_LIMIT = 64 * 2**20
"""Bytes after which a download is given up; the largest set pinned here is under one MiB."""

UNPACKED_LIMIT = 2**30
"""Bytes after which unpacking a .gz is given up."""

MANGLED = str.maketrans({0x13: "–", 0x14: "—", 0x18: "‘", 0x19: "’", 0x1C: "“", 0x1D: "”"})
"""Control characters that were dashes and quotes: somebody kept the low byte of U+2013 … U+201D only."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

FIRST_TURN = re.compile(r"Human:(.*?)(?=\n\nAssistant:|\n\nHuman:|\Z)", re.DOTALL)
"""The first human turn of a transcript as HH-RLHF writes them."""


class Row(NamedTuple):
    """A prompt as its source has it, text repaired. Labels the source doesn't give are `UNSPECIFIED`.

    `place` is where the file has it, the line or the headings, for messages; it is in no record.
    """

    source: str
    source_id: str
    text: str
    hazard: str
    persona: str
    principle: str
    place: str


class Credit(NamedTuple):
    """Whom to credit for a source, and on what terms it comes; empty where there is nothing to give."""

    name: str
    licence: str
    attribution: str
    citation: str
    url: str


class Pin(BaseModel):
    """data/sources/NAME.yaml. `columns` and `first_turn` are those of `PromptSet`; no other column is read.

    Attributes:
        file: the set's name in data/public.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w-]+(\.[\w-]+)+$")
    url: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str
    attribution: str
    citation: str
    columns: dict[Column, str]
    first_turn: bool = False


@dataclass(frozen=True)
class Source:
    """A set of prompts: what it is called in the records, where its file lies and, if public, its pin."""

    name: str
    path: Path
    pin: Pin | None = None


class Item(NamedTuple):
    """One prompt of a file before its columns are looked at; `place` is where in the file."""

    place: str
    fields: Mapping[str, object]


def named(entry: str, root: Path = Path()) -> Source:
    """The source that a name or a file means.

    Raises:
        UserError: no such source (lists the names there are), or a pin that lacks something.
    """
    if _suffix(Path(entry)) in (".jsonl", ".csv", ".txt"):
        return Source(label(entry), root / entry)
    if entry not in names(root):
        raise UserError(
            f"{entry}: no such source; there are {', '.join(names(root)) or 'none'},"
            " or name a .jsonl, .csv or .txt file"
        )
    pinned = root / SOURCES / f"{entry}.yaml"
    return _pinned(entry, pinned, root) if pinned.is_file() else Source(entry, root / SOURCES / f"{entry}.jsonl")


def label(entry: str) -> str:
    """What an entry is called in the records: a file by its name without its folder, wherever a checkout lies."""
    return Path(entry).name


def names(root: Path = Path()) -> list[str]:
    """Names in data/sources, own and public."""
    return sorted({p.stem for p in (root / SOURCES).glob("*") if p.suffix in (".yaml", ".jsonl")})


def credits(labels: Iterable[str], root: Path = Path()) -> list[Credit]:
    """Whom to credit for the sources that records name (`Prompt.source`), each once, by name.

    Raises:
        UserError: a name that is neither in data/sources nor a file's.
    """
    found = []
    for name in sorted(set(labels)):
        source = named(name, root)
        if source.pin:
            pin = source.pin
            found.append(Credit(name, pin.licence, pin.attribution, pin.citation, pin.url))
        elif name in names(root):
            own = f"this project, {(SOURCES / name).as_posix()}.jsonl"
            found.append(Credit(name, "none chosen yet", own, "", ""))
        else:
            found.append(Credit(name, "not stated", "a file of the user's", "", ""))
    return found


def load(entry: str | PromptSet, root: Path = Path()) -> list[Row]:
    """All prompts of a source, in the file's order.

    Raises:
        UserError: unknown source; a public file that is missing or not the pinned one; not UTF-8, malformed,
            empty, without a column it needs, or with an empty prompt. Names file and line, quotes no prompt.
    """
    asked = PromptSet(source=entry) if isinstance(entry, str) else entry
    source = named(asked.source, root)
    return _rows(source, asked, content(source))


def content(source: Source) -> bytes:
    """A source's file; a public one's is the pinned one.

    Raises:
        UserError: missing, or not the pinned file.
    """
    data = _read(source)
    sha256 = _sha256(data)
    if source.pin and sha256 != source.pin.sha256:
        raise UserError(
            f"{source.path}: not the pinned file (sha256 {sha256[:12]}…, not {source.pin.sha256[:12]}…);"
            f" fetch it again: python -m ccai.sources fetch {source.name}"
        )
    return data


def load_all(entries: Iterable[PromptSet], root: Path = Path()) -> list[Row]:
    """All prompts of several sources.

    Raises:
        UserError: as `load`; two sources with one name, whose prompts and weights could not be told apart.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    for entry in entries:
        name = label(entry.source)
        if name in seen:
            raise UserError(f"params.yaml: prompts: {name} is named twice; take one out or rename its file")
        seen.add(name)
        rows += load(entry, root)
    return rows


def fetch(name: str, from_dir: Path | None = None, root: Path = Path()) -> Path:
    """Put a public source's file into place, from its URL or from a copy anywhere under a folder.

    The content is checked before anything is written: what is in place stays until the right file comes.

    Raises:
        UserError: not a public source, no connection, no copy in the folder, wrong content, or not writable.
    """
    source = named(name, root)
    if source.pin is None:
        raise UserError(f"{name}: nothing to fetch; {source.path} is a file of this project or your own")
    if source.path.is_file() and _sha256(_read(source)) == source.pin.sha256:
        return source.path
    pin = source.pin
    if from_dir is not None:
        data = _find(name, pin, from_dir)
    else:
        instead = f"get a copy and run: python -m ccai.sources fetch {name} --from FOLDER"
        data = _download(pin.url, instead)
        if _sha256(data) != pin.sha256:
            raise UserError(f"{name}: {pin.url} is not the pinned file (sha256 {_sha256(data)[:12]}…); {instead}")
    records.write_bytes(source.path, data)
    return source.path


def pin(name: str, terms: Mapping[str, object], file: Path | None = None, root: Path = Path()) -> list[Row]:
    """Pin a public set as it is today: its file into data/public, its pin into data/sources.

    Args:
        terms: the fields of `Pin`, but for `file` and `sha256`.
        file: a copy of what lies at the URL; without it, it is downloaded.

    Returns:
        The prompts that were read from it. Nothing is written if there are none.

    Raises:
        UserError: the name is taken or no name; a field is missing; no connection; a file that can't be read.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise UserError(f"{name}: no name for a source; use a-z, 0-9 and hyphens")
    if name in names(root):
        raise UserError(
            f"{name}: there is such a source already; take its file out of {SOURCES} or choose another name"
        )
    url = str(terms["url"])
    path = root / PUBLIC / f"{name}{''.join(Path(url).suffixes[-2 if url.endswith('.gz') else -1 :])}"
    if _suffix(path) not in READERS:
        raise UserError(f"{url}: must end in {', '.join(READERS)}, or one of these and .gz; choose another file")
    instead = f"get a copy and run the command with --from {Path(url).name}"
    data = _download(url, instead) if file is None else _read(Source(name, file))
    try:
        meta = Pin.model_validate({"file": path.name, **terms, "sha256": _sha256(data)})
    except ValidationError as error:
        raise UserError(f"{name}: {first(error)}; correct it") from None
    _check_columns(name, meta)
    rows = _rows(Source(name, path, meta), PromptSet(source=name), data)
    text = yaml.safe_dump(meta.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True, width=1000)
    records.write_bytes(path, data)
    records.write_bytes(root / SOURCES / f"{name}.yaml", text.encode())
    return rows


def repair(text: str) -> str:
    """Text as its author meant it.

    Mangled quotes and dashes come back (`MANGLED`), every kind of line break becomes LF, all other control
    characters but tab go, Unicode is composed (NFC), outer white space goes.
    """
    lines = "\n".join(text.translate(MANGLED).splitlines())
    return unicodedata.normalize("NFC", CONTROL.sub("", lines)).strip()


def _pinned(name: str, path: Path, root: Path) -> Source:
    found = yamlfile.load(path, Pin)
    _check_columns(str(path), found)
    file = root / PUBLIC / found.file
    if _suffix(file) not in READERS:
        raise UserError(f"{path}: file: must end in {', '.join(READERS)}, or one of these and .gz; correct it")
    return Source(name, file, found)


def _check_columns(where: str, pin: Pin) -> None:
    if "text" not in pin.columns:
        raise UserError(f"{where}: columns: needs text, may have {', '.join(FIELDS[1:])}; correct it")


def _suffix(path: Path) -> str:
    """What kind of file it is, packed or not: `.csv` of prompts.csv and of prompts.csv.gz."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


def _read(source: Source) -> bytes:
    try:
        return source.path.read_bytes()
    except FileNotFoundError:
        fetching = f"fetch it: python -m ccai.sources fetch {source.name}"
        remedy = fetching if source.pin else "correct its name in params.yaml"
        raise UserError(f"{source.path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{source.path}: cannot be read ({error}); make it readable") from None


def _rows(source: Source, asked: PromptSet, data: bytes) -> list[Row]:
    items = READERS[_suffix(source.path)](_decode(data, source.path), source.path)
    rows = [_row(source, asked, item) for item in items]
    if not rows:
        raise UserError(f"{source.path}: holds no prompt; fill it or take it out of params.yaml")
    return rows


def _decode(data: bytes, path: Path) -> str:
    if path.suffix.lower() == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(UNPACKED_LIMIT + 1)
        except (OSError, EOFError, zlib.error):
            raise UserError(f"{path}: not a whole .gz file; get it again") from None
        if len(data) > UNPACKED_LIMIT:
            raise UserError(f"{path}: unpacks to more than {UNPACKED_LIMIT} bytes; split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _csv(text: str, path: Path) -> Iterator[Item]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    last = 0  # line on which the previous record ended: a record may span lines
    try:
        header = next(reader, [])
        last = reader.line_num
        twice = [column for column, count in Counter(header).items() if column and count > 1]
        if twice:
            raise UserError(f"{path}:1: two columns are called {_short(twice[0])!r}; rename one")
        for values in reader:
            line, last = last + 1, reader.line_num
            if not values:
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}:{line}: {len(values)} fields, but the header has {len(header)}; correct the line"
                )
            yield Item(str(line), dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}:{last + 1}: not valid CSV ({error}); correct the line") from None


def _jsonl(text: str, path: Path) -> Iterator[Item]:
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long"
            raise UserError(f"{path}:{line}: not valid JSON ({reason}); correct the line") from None
        except RecursionError:
            raise UserError(f"{path}:{line}: nested too deep; correct the line") from None
        if not isinstance(value, dict):
            raise UserError(f'{path}:{line}: not a JSON object; write {{"text": "…"}}')
        yield Item(str(line), value)


def _txt(text: str, path: Path) -> Iterator[Item]:
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if content.strip():
            yield Item(str(line), {"text": content})


def _headings(text: str, path: Path) -> Iterator[Item]:
    """Prompts listed under headings, as some publishers have them: `{heading: {heading: [prompt, …]}}`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None

    def walk(value: object, place: str) -> Iterator[Item]:
        if isinstance(value, str):
            yield Item(place, {"text": value, "id": place})
        elif isinstance(value, (dict, list)):
            below = value.items() if isinstance(value, dict) else enumerate(value, start=1)
            for key, inner in below:
                yield from walk(inner, f"{place}/{key}" if place else str(key))
        else:
            raise UserError(f"{path}:{place}: neither a prompt nor headings")

    return walk(value, "")


READERS: dict[str, Callable[[str, Path], Iterator[Item]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".txt": _txt,
    ".json": _headings,
}


def _row(source: Source, asked: PromptSet, item: Item) -> Row:
    where = f"{source.path}:{item.place}"
    if source.pin:
        columns = dict(source.pin.columns)
    else:
        columns = {name: name for name in FIELDS if name in item.fields}
        columns.setdefault("text", "prompt" if "prompt" in item.fields else "text")
    columns |= asked.columns
    missing = [column for column in columns.values() if column not in item.fields]
    if missing:
        # Shortened: where the header line is missing, the "columns" are a prompt.
        there = ", ".join(_short(column) for column in list(item.fields)[:12])
        raise UserError(
            f"{where}: no column {_short(missing[0])!r}; the columns are: {there}; rename one or name it in"
            " prompts.sources ({source: …, columns: {text: …}})"
        )
    values = {name: _value(where, column, item.fields[column], name) for name, column in columns.items()}
    text = values["text"]
    if asked.first_turn or (source.pin and source.pin.first_turn):
        turn = FIRST_TURN.match(text)
        if not turn:
            raise UserError(f"{where}: {_short(columns['text'])}: not a transcript that begins 'Human:'; correct it")
        text = turn[1].strip()
    if not text:
        raise UserError(f"{where}: {_short(columns['text'])}: empty; write a prompt or take the line out")
    return Row(
        source=source.name,
        # Without an id of its own, not the line number: the order of lines must not matter.
        source_id=values.get("id") or records.digest([text])[:16],
        text=text,
        hazard=values.get("hazard") or UNSPECIFIED,
        persona=values.get("persona") or UNSPECIFIED,
        principle=values.get("principle") or UNSPECIFIED,
        place=item.place,
    )


def _short(column: str) -> str:
    return " ".join(column[:24].split())


def _value(where: str, column: str, value: object, name: Column) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and value and name == "text":
        value = value[0]  # turns, as MT-Bench has them
    if isinstance(value, int) and not isinstance(value, bool) and name != "text":
        value = str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: {_short(column)}: must be text, not {type(value).__name__}; correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {_short(column)}: half a surrogate pair (\\ud…); correct it") from None
    return repair(value)


def _download(url: str, instead: str) -> bytes:
    busy = (429, 500, 502, 503, 504)
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=busy, raise_on_status=False)
    data = b""
    try:
        with requests.Session() as session:
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            with session.get(url, stream=True, timeout=(10, 60)) as response:
                response.raise_for_status()
                for chunk in response.iter_content(2**16):
                    data += chunk
                    if len(data) > SIZE_LIMIT:
                        break
    except requests.RequestException as error:
        status = f"HTTP {error.response.status_code}" if error.response is not None else "no connection"
        raise UserError(f"cannot download {url} ({status}); {instead}") from None
    return data


def _find(name: str, pin: Pin, folder: Path) -> bytes:
    wanted = pin.url.rsplit("/", 1)[-1]
    found = folder.rglob(f"*{Path(wanted).suffix}") if folder.is_dir() else iter([folder])
    # The publisher's file name first: no need then to read a whole Downloads folder.
    for path in sorted(found, key=lambda p: (p.name != wanted, str(p))):
        if path.is_file():
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if _sha256(data) == pin.sha256:
                return data
    raise UserError(f"{folder}: holds no copy of {name} (sha256 {pin.sha256[:12]}…); get {pin.url}")


def _state(name: str) -> str:
    try:
        return f"{len(load(name)):>6}"
    except UserError:
        return "changed" if named(name).path.exists() else "not fetched"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.sources", description="Sources of prompts.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, prompts, licences, whom to credit")
    getter = commands.add_parser("fetch", help="put a public source into data/public")
    getter.add_argument("name", metavar="NAME")
    getter.add_argument("--from", dest="folder", type=Path, help="take it from a copy under this folder")
    pinner = commands.add_parser("pin", help="add a public source as it is today")
    pinner.add_argument("name", metavar="NAME")
    pinner.add_argument("--url", required=True, help="where the file is; name a commit, not a branch")
    pinner.add_argument("--from", dest="file", type=Path, help="a copy of the file; else it is downloaded")
    pinner.add_argument("--like", metavar="NAME", help="a pinned source whose terms and columns these are, too")
    for term in ("licence", "attribution", "citation"):
        pinner.add_argument(f"--{term}")
    pinner.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="e.g. text=question")
    pinner.add_argument("--first-turn", action="store_true", help="the text is a transcript: take its first human turn")
    options = parser.parse_args()
    if options.command == "fetch":
        path = fetch(options.name, options.folder)
        print(f"{path}: {len(load(options.name))} prompts, as pinned")
    elif options.command == "pin":
        rows = pin(options.name, _terms(options), options.file)
        print(f"{SOURCES / options.name}.yaml: {len(rows)} prompts, pinned")
    else:
        _list()


def _terms(options: argparse.Namespace) -> dict[str, object]:
    """The terms of a new pin, from the command line and the source it is like."""
    terms: dict[str, object] = {}
    if options.like:
        like = named(options.like).pin
        if like is None:
            raise UserError(f"--like {options.like}: not a pinned source; name one that is")
        terms = like.model_dump(exclude={"file"})
    given = {key: getattr(options, key) for key in ("licence", "attribution", "citation") if getattr(options, key)}
    if options.column:
        given["columns"] = dict(column.partition("=")[::2] for column in options.column)
    if options.first_turn:
        given["first_turn"] = True
    return {**terms, **given, "url": options.url}


def _list() -> None:
    print(f"{'name':<16}{'prompts':<13}{'licence':<17}from")
    for credit in credits(names()):
        print(f"{credit.name:<16}{_state(credit.name):<13}{credit.licence:<17}{credit.attribution}")
        for line in (credit.citation and f"cite: {credit.citation}", credit.url):
            if line:
                print(f"{'':<16}{line}")


if __name__ == "__main__":
    run(main)
