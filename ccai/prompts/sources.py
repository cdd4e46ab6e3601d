"""Where prompts come from: our own set, public sets pinned by sha256, and files users bring.

    ccai sources list                                   # prompts, licences, whom to credit
    ccai sources fetch ailuminate                       # from its URL
    ccai sources fetch ailuminate --from ~/Downloads    # from a copy, recognised by its sha256
    ccai sources pin NAME --url URL --like ailuminate   # another locale: same licence, same columns
    ccai sources pin NAME --url URL --licence MIT --attribution … --citation … --column text=question

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

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from ccai.base import hashing, yaml_io
from ccai.base.errors import UserError
from ccai.base.hashing import sha256_of
from ccai.base.param_types import Column
from ccai.base.params import PromptSet
from ccai.base.records import UNSPECIFIED
from ccai.prompts.readers import READERS, UNPACKED_LIMIT, Item, decode, repair, short, suffix

SOURCES = Path("data/sources")
PUBLIC = Path("data/public")
FIELDS: tuple[Column, ...] = get_args(Column)

OWN = frozenset({"contemplative"})
"""Sets in data/sources that this project wrote. They are under `OWN_LICENCE`, and no other file there is."""

OWN_LICENCE = "CC-BY-4.0"
NOT_STATED = "not stated"

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
    """Whom to credit for a source, and its licence (`NOT_STATED` if nobody gave one); other fields may be empty."""

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


def named(entry: str, root: Path = Path()) -> Source:
    """The source that a name or a file means.

    Raises:
        UserError: no such source (lists the names there are), or a pin that lacks something.
    """
    if suffix(Path(entry)) in (".jsonl", ".csv", ".txt"):
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
        elif name in OWN:
            own = f"the CCAI project, {(SOURCES / name).as_posix()}.jsonl"
            found.append(Credit(name, OWN_LICENCE, own, "", ""))
        else:
            found.append(Credit(name, NOT_STATED, "a file of the user's", "", ""))
    return found


def load(entry: str | PromptSet, root: Path = Path()) -> list[Row]:
    """All prompts of a source, in the file's order.

    Raises:
        UserError: unknown source; a public file that is missing or not the pinned one; not UTF-8, malformed,
            empty, without a column it needs, or with an empty prompt. Names file and line, quotes no prompt.
    """
    asked = PromptSet(source=entry) if isinstance(entry, str) else entry
    source = named(asked.source, root)
    return rows_of(source, asked, content(source))


def content(source: Source) -> bytes:
    """A source's file; a public one's is the pinned one.

    Raises:
        UserError: missing, or not the pinned file.
    """
    data = read_bytes(source)
    sha256 = sha256_of(data)
    if source.pin and sha256 != source.pin.sha256:
        raise UserError(
            f"{source.path}: not the pinned file (sha256 {sha256[:12]}…, not {source.pin.sha256[:12]}…);"
            f" fetch it again: ccai sources fetch {source.name}"
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


def _pinned(name: str, path: Path, root: Path) -> Source:
    found = yaml_io.load(path, Pin)
    check_columns(str(path), found)
    file = root / PUBLIC / found.file
    if suffix(file) not in READERS:
        raise UserError(f"{path}: file: must end in {', '.join(READERS)}, or one of these and .gz; correct it")
    return Source(name, file, found)


def check_columns(where: str, pin: Pin) -> None:
    if "text" not in pin.columns:
        raise UserError(f"{where}: columns: needs text, may have {', '.join(FIELDS[1:])}; correct it")


def read_bytes(source: Source) -> bytes:
    try:
        with source.path.open("rb") as file:
            data = file.read(UNPACKED_LIMIT + 1)
    except FileNotFoundError:
        fetching = f"fetch it: ccai sources fetch {source.name}"
        remedy = fetching if source.pin else "correct its name in params.yaml"
        raise UserError(f"{source.path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{source.path}: cannot be read ({error}); make it readable") from None
    if len(data) > UNPACKED_LIMIT:
        raise UserError(f"{source.path}: more than {UNPACKED_LIMIT} bytes; split it")
    return data


def rows_of(source: Source, asked: PromptSet, data: bytes) -> list[Row]:
    items = READERS[suffix(source.path)](decode(data, source.path), source.path)
    rows = [_row(source, asked, item) for item in items]
    if not rows:
        raise UserError(f"{source.path}: holds no prompt; fill it or take it out of params.yaml")
    return rows


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
        there = ", ".join(short(column) for column in list(item.fields)[:12])
        raise UserError(
            f"{where}: no column {short(missing[0])!r}; the columns are: {there}; rename one or name it in"
            " prompts.sources ({source: …, columns: {text: …}})"
        )
    values = {name: _value(where, column, item.fields[column], name) for name, column in columns.items()}
    text = values["text"]
    if asked.first_turn or (source.pin and source.pin.first_turn):
        turn = FIRST_TURN.match(text)
        if not turn:
            raise UserError(f"{where}: {short(columns['text'])}: not a transcript that begins 'Human:'; correct it")
        text = turn[1].strip()
    if not text:
        raise UserError(f"{where}: {short(columns['text'])}: empty; write a prompt or take the line out")
    return Row(
        source=source.name,
        # Without an id of its own, not the line number: the order of lines must not matter.
        source_id=values.get("id") or hashing.digest([text])[:16],
        text=text,
        hazard=values.get("hazard") or UNSPECIFIED,
        persona=values.get("persona") or UNSPECIFIED,
        principle=values.get("principle") or UNSPECIFIED,
        place=item.place,
    )


def _value(where: str, column: str, value: object, name: Column) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and value and name == "text":
        value = value[0]  # turns, as MT-Bench has them
    if isinstance(value, int) and not isinstance(value, bool) and name != "text":
        value = str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: {short(column)}: must be text, not {type(value).__name__}; correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {short(column)}: half a surrogate pair (\\ud…); correct it") from None
    return repair(value)
