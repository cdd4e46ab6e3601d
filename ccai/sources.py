"""Where prompts come from: our own set, public sets pinned by sha256, and files users bring.

    python -m ccai.sources list
    python -m ccai.sources fetch ailuminate                       # from its URL
    python -m ccai.sources fetch ailuminate --from ~/Downloads    # from a copy, recognised by its sha256

An entry of `prompts.sources` in params.yaml is one of:

    NAME    data/sources/NAME.dvc, a public set: what to fetch, its sha256, licence and columns. The file
            itself goes to data/public/, which git ignores.
    NAME    data/sources/NAME.jsonl, a set written for this project.
    FILE    a .jsonl, .csv or .txt file of your own. JSONL and CSV need `text` (or `prompt`), may have `id`,
            `hazard`, `persona` and `principle`; other columns are ignored. A .txt has one prompt per line.
            Keep it in data/sources/: DVC watches that folder and runs the prompts stage after a change.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import requests
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ccai import records
from ccai.errors import UserError, run
from ccai.records import UNSPECIFIED

SOURCES = Path("data/sources")
FIELDS = ("text", "id", "hazard", "persona", "principle")

SIZE_LIMIT = 64 * 2**20
"""Bytes after which a download is given up; the largest set is under one MiB."""

MANGLED = str.maketrans({0x13: "–", 0x14: "—", 0x18: "‘", 0x19: "’", 0x1C: "“", 0x1D: "”"})
"""Control characters that were dashes and quotes: somebody kept the low byte of U+2013 … U+201D only."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Row(NamedTuple):
    """A prompt as its source has it, text repaired. Labels the source doesn't give are `UNSPECIFIED`."""

    source: str
    source_id: str
    text: str
    hazard: str
    persona: str
    principle: str


class Pin(BaseModel):
    """`meta` of a .dvc file. `columns`: the file's columns for our text, id, hazard, persona, principle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str
    attribution: str
    columns: dict[str, str]


class Out(BaseModel):
    """The one entry of `outs` in a .dvc file. Its md5 and size are not read: DVC itself may rewrite them."""

    path: str


class DvcFile(BaseModel):
    """What we read of a .dvc file."""

    outs: list[Out] = Field(min_length=1, max_length=1)
    meta: Pin


@dataclass(frozen=True)
class Source:
    """A set of prompts: what it is called in the records, where its file lies and, if public, its pin."""

    name: str
    path: Path
    pin: Pin | None = None


class Item(NamedTuple):
    """One prompt of a file before its columns are looked at; `where` is for error messages."""

    where: str
    fields: Mapping[str, object]


def named(entry: str, root: Path = Path()) -> Source:
    """The source an entry of `prompts.sources` means.

    Raises:
        UserError: no such source (lists the names there are), or a .dvc file that lacks something.
    """
    if Path(entry).suffix.lower() in (".jsonl", ".csv", ".txt"):
        # The label is the file's name without its folder: records must not depend on where a checkout lies.
        return Source(Path(entry).name, root / entry)
    pinned, own = root / SOURCES / f"{entry}.dvc", root / SOURCES / f"{entry}.jsonl"
    if pinned.is_file():
        return _pinned(entry, pinned)
    if own.is_file():
        return Source(entry, own)
    raise UserError(
        f"prompts.sources: {entry}: no such source; there are {', '.join(names(root)) or 'none'},"
        " or name a .jsonl, .csv or .txt file"
    )


def names(root: Path = Path()) -> list[str]:
    """Names in data/sources, own and public."""
    return sorted({p.stem for p in (root / SOURCES).glob("*") if p.suffix in (".dvc", ".jsonl")})


def load(entry: str, root: Path = Path()) -> list[Row]:
    """All prompts of a source, in the file's order.

    Raises:
        UserError: unknown source; a public file that is missing or not the pinned one; not UTF-8, malformed,
            empty, without a column it needs, or with an empty prompt. Names file and line, quotes no prompt.
    """
    source = named(entry, root)
    data = _read(source)
    sha256 = _sha256(data)
    if source.pin and sha256 != source.pin.sha256:
        raise UserError(
            f"{source.path}: not the pinned file (sha256 {sha256[:12]}…, not {source.pin.sha256[:12]}…);"
            f" fetch it again: python -m ccai.sources fetch {source.name}"
        )
    items = READERS[source.path.suffix.lower()](_decode(data, source.path), source.path)
    rows = [_row(source, item) for item in items]
    if not rows:
        raise UserError(f"{source.path}: holds no prompt; fill it or take it out of prompts.sources")
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
    data = _download(name, source.pin) if from_dir is None else _find(name, source.pin, from_dir)
    try:
        records.write_text(source.path, _decode(data, source.path))
    except OSError as error:
        raise UserError(f"{source.path}: cannot be written ({error.strerror}); make it so") from None
    return source.path


def repair(text: str) -> str:
    """Text as its author meant it.

    Mangled quotes and dashes come back (`MANGLED`), every kind of line break becomes LF, all other control
    characters but tab go, Unicode is composed (NFC), outer white space goes.
    """
    lines = "\n".join(text.translate(MANGLED).splitlines())
    return unicodedata.normalize("NFC", CONTROL.sub("", lines)).strip()


def _pinned(name: str, path: Path) -> Source:
    try:
        found = DvcFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(whole file)"
        raise UserError(f"{path}: {key}: {first['msg']}; restore the file (git checkout)") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(f"{path}: not readable as YAML; restore the file (git checkout)") from None
    unknown = set(found.meta.columns) - set(FIELDS)
    if unknown or "text" not in found.meta.columns:
        raise UserError(f"{path}: meta.columns: needs text, may have {', '.join(FIELDS[1:])}; correct it")
    out = Path(os.path.normpath(path.parent / found.outs[0].path))
    if out.suffix.lower() not in READERS:
        raise UserError(f"{path}: outs.0.path: must end in {', '.join(READERS)}; correct it")
    return Source(name, out, found.meta)


def _read(source: Source) -> bytes:
    try:
        return source.path.read_bytes()
    except FileNotFoundError:
        fetching = f"fetch it: python -m ccai.sources fetch {source.name}"
        remedy = fetching if source.pin else "correct prompts.sources"
        raise UserError(f"{source.path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read ({error.strerror}); make it readable") from None


def _decode(data: bytes, path: Path) -> str:
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
        for values in reader:
            line, last = last + 1, reader.line_num
            if not values:
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}:{line}: {len(values)} fields, but the header has {len(header)}; correct the line"
                )
            yield Item(f"{path}:{line}", dict(zip(header, values, strict=True)))
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
        if not isinstance(value, dict):
            raise UserError(f'{path}:{line}: not a JSON object; write {{"text": "…"}}')
        yield Item(f"{path}:{line}", value)


def _txt(text: str, path: Path) -> Iterator[Item]:
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if content.strip():
            yield Item(f"{path}:{line}", {"text": content})


def _headings(text: str, path: Path) -> Iterator[Item]:
    """Prompts listed under headings, as some publishers have them: `{heading: {heading: [prompt, …]}}`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None

    def walk(value: object, place: str) -> Iterator[Item]:
        if isinstance(value, str):
            yield Item(f"{path}: {place}", {"text": value, "id": place})
        elif isinstance(value, (dict, list)):
            below = value.items() if isinstance(value, dict) else enumerate(value, start=1)
            for key, inner in below:
                yield from walk(inner, f"{place}/{key}" if place else str(key))
        else:
            raise UserError(f"{path}: {place}: neither a prompt nor headings")

    return walk(value, "")


READERS: dict[str, Callable[[str, Path], Iterator[Item]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".txt": _txt,
    ".json": _headings,
}


def _row(source: Source, item: Item) -> Row:
    if source.pin:
        columns = source.pin.columns
        missing = [column for column in columns.values() if column not in item.fields]
    else:
        columns = {name: name for name in FIELDS if name in item.fields}
        if "text" not in columns and "prompt" in item.fields:
            columns["text"] = "prompt"
        missing = [] if "text" in columns else ["text"]
    if missing:
        # Shortened: where the header line is missing, the "columns" are a prompt.
        there = ", ".join(column[:24] for column in list(item.fields)[:12])
        raise UserError(f"{item.where}: no column {missing[0]!r}; the columns are: {there}; rename one")
    values = {name: _value(item, column) for name, column in columns.items()}
    text = values["text"]
    if not text:
        raise UserError(f"{item.where}: {columns['text']}: empty; write a prompt or take the line out")
    return Row(
        source=source.name,
        # Without an id of its own, not the line number: the order of lines must not matter.
        source_id=values.get("id") or records.digest([text])[:16],
        text=text,
        hazard=values.get("hazard") or UNSPECIFIED,
        persona=values.get("persona") or UNSPECIFIED,
        principle=values.get("principle") or UNSPECIFIED,
    )


def _value(item: Item, column: str) -> str:
    value = item.fields[column]
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and column != "text":
        value = str(value)
    if not isinstance(value, str):
        raise UserError(f"{item.where}: {column}: must be text, not {type(value).__name__}; correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{item.where}: {column}: half a surrogate pair (\\ud…); correct it") from None
    return repair(value)


def _download(name: str, pin: Pin) -> bytes:
    instead = f"get a copy and run: python -m ccai.sources fetch {name} --from FOLDER"
    busy = (429, 500, 502, 503, 504)
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=busy, raise_on_status=False)
    data = b""
    try:
        with requests.Session() as session:
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            with session.get(pin.url, stream=True, timeout=(10, 60)) as response:
                response.raise_for_status()
                for chunk in response.iter_content(2**16):
                    data += chunk
                    if len(data) > SIZE_LIMIT:
                        break
    except requests.RequestException as error:
        status = f"HTTP {error.response.status_code}" if error.response is not None else "no connection"
        raise UserError(f"{name}: cannot download {pin.url} ({status}); {instead}") from None
    if _sha256(data) != pin.sha256:
        raise UserError(f"{name}: {pin.url} is not the pinned file (sha256 {_sha256(data)[:12]}…); {instead}")
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
    commands.add_parser("list", help="names, prompts, licences")
    getter = commands.add_parser("fetch", help="put a public source into data/public")
    getter.add_argument("name", metavar="NAME")
    getter.add_argument("--from", dest="folder", type=Path, help="take it from a copy under this folder")
    options = parser.parse_args()
    if options.command == "fetch":
        path = fetch(options.name, options.folder)
        print(f"{path}: {len(load(options.name))} prompts, as pinned")
        return
    print(f"{'name':<16}{'prompts':<13}{'licence':<13}from")
    for name in names():
        source = named(name)
        pin = source.pin
        licence, origin = (pin.licence, pin.attribution) if pin else ("own", str(source.path))
        print(f"{name:<16}{_state(name):<13}{licence:<13}{origin}")


if __name__ == "__main__":
    run(main)
