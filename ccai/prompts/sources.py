"""Sources of prompts: the project's own set, public sets pinned by sha256, and users' files.

An entry of `prompts.sources` in params.yaml is one of these, or a mapping with one of these as `source`:

    NAME    data/sources/NAME.yaml, the pin of a public set: URL, sha256, licence, credits, columns. The file itself
            goes to data/public/, which git ignores.
    NAME    data/sources/NAME.jsonl, a set written for this project.
    FILE    a .jsonl, .csv or .txt file of your own, or one of these with .gz appended. JSONL and CSV need `text`
            (or `prompt`) and may have `id`, `hazard`, `persona` and `principle`; other columns are ignored. A .txt
            has one prompt per line. Keep it in data/sources/: DVC watches that folder and re-runs the prompts stage
            after a change.

A mapping may also name the file's columns (`columns: {text: question, hazard: category}`), declare the text a
transcript whose first human turn is the prompt (`first_turn: true`), and weight the set in a sample (`weight: 2`).
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
from ccai.prompts.readers import READERS, UNPACKED_LIMIT, FilePrompt, decode, repair, short, suffix

SOURCES = Path("data/sources")
PUBLIC = Path("data/public")
FIELDS: tuple[Column, ...] = get_args(Column)

OWN = frozenset({"contemplative"})
"""Sets in data/sources that this project wrote. They are under `OWN_LICENCE`, and no other file there is."""

OWN_LICENCE = "CC-BY-4.0"
NOT_STATED = "not stated"

FIRST_TURN = re.compile(r"Human:(.*?)(?=\n\nAssistant:|\n\nHuman:|\Z)", re.DOTALL)
"""The first human turn of a transcript in HH-RLHF's format."""


class SourcePrompt(NamedTuple):
    """A prompt of a source, its text repaired. Labels that the source does not give are `UNSPECIFIED`.

    `place` is the line or the headings in the file, for messages; no record contains it.
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
    """data/sources/NAME.yaml. `columns` and `first_turn` are as in `PromptSet`; no other column is read.

    Attributes:
        file: the set's file name in data/public.
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
    """A set of prompts: its name in the records, its file and, if public, its pin."""

    name: str
    path: Path
    pin: Pin | None = None


def named(entry: str, root: Path = Path()) -> Source:
    """The source of that name, or of a file.

    Raises:
        UserError: no such source (lists the names that exist), or an incomplete pin.
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
    """An entry's name in the records: a file's name without its folder, so that it is the same in every checkout."""
    return Path(entry).name


def names(root: Path = Path()) -> list[str]:
    """Names in data/sources, own and public."""
    return sorted({p.stem for p in (root / SOURCES).glob("*") if p.suffix in (".yaml", ".jsonl")})


def credits(labels: Iterable[str], root: Path = Path()) -> list[Credit]:
    """Credits for the sources that records name (`Prompt.source`), each once, by name.

    Raises:
        UserError: a name that is neither in data/sources nor a file's.
    """
    entries = []
    for name in sorted(set(labels)):
        source = named(name, root)
        if source.pin:
            pin = source.pin
            entries.append(Credit(name, pin.licence, pin.attribution, pin.citation, pin.url))
        elif name in OWN:
            own = f"the CCAI project, {(SOURCES / name).as_posix()}.jsonl"
            entries.append(Credit(name, OWN_LICENCE, own, "", ""))
        else:
            entries.append(Credit(name, NOT_STATED, "a file of the user's", "", ""))
    return entries


def load(entry: str | PromptSet, root: Path = Path()) -> list[SourcePrompt]:
    """All prompts of a source, in the file's order.

    Raises:
        UserError: unknown source; a public file that is missing or not the pinned one; not UTF-8, malformed, empty,
            without a required column, or with an empty prompt. Names file and line, quotes no prompt.
    """
    options = PromptSet(source=entry) if isinstance(entry, str) else entry
    source = named(options.source, root)
    return rows_of(source, options, content(source))


def content(source: Source) -> bytes:
    """A source's file; of a public set the pinned one.

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


def load_all(entries: Iterable[PromptSet], root: Path = Path()) -> list[SourcePrompt]:
    """All prompts of several sources.

    Raises:
        UserError: as `load`; two sources of one name, whose prompts and weights could not be distinguished.
    """
    rows: list[SourcePrompt] = []
    labels: set[str] = set()
    for entry in entries:
        name = label(entry.source)
        if name in labels:
            raise UserError(f"params.yaml: prompts: {name} is named twice; take one out or rename its file")
        labels.add(name)
        rows += load(entry, root)
    return rows


def _pinned(name: str, path: Path, root: Path) -> Source:
    pin = yaml_io.load(path, Pin)
    check_columns(str(path), pin)
    file = root / PUBLIC / pin.file
    if suffix(file) not in READERS:
        raise UserError(f"{path}: file: must end in {', '.join(READERS)}, or one of these and .gz; correct it")
    return Source(name, file, pin)


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


def rows_of(source: Source, options: PromptSet, data: bytes) -> list[SourcePrompt]:
    items = READERS[suffix(source.path)](decode(data, source.path), source.path)
    rows = [_row(source, options, item) for item in items]
    if not rows:
        raise UserError(f"{source.path}: holds no prompt; fill it or take it out of params.yaml")
    return rows


def _row(source: Source, options: PromptSet, item: FilePrompt) -> SourcePrompt:
    where = f"{source.path}:{item.place}"
    if source.pin:
        columns = dict(source.pin.columns)
    else:
        columns = {name: name for name in FIELDS if name in item.fields}
        columns.setdefault("text", "prompt" if "prompt" in item.fields else "text")
    columns |= options.columns
    missing = [column for column in columns.values() if column not in item.fields]
    if missing:
        # Shortened: in a file without a header line the "columns" are a prompt.
        existing = ", ".join(short(column) for column in list(item.fields)[:12])
        raise UserError(
            f"{where}: no column {short(missing[0])!r}; the columns are: {existing}; rename one or name it in"
            " prompts.sources ({source: …, columns: {text: …}})"
        )
    values = {name: _value(where, column, item.fields[column], name) for name, column in columns.items()}
    text = values["text"]
    if options.first_turn or (source.pin and source.pin.first_turn):
        turn = FIRST_TURN.match(text)
        if not turn:
            raise UserError(f"{where}: {short(columns['text'])}: not a transcript that begins 'Human:'; correct it")
        text = turn[1].strip()
    if not text:
        raise UserError(f"{where}: {short(columns['text'])}: empty; write a prompt or take the line out")
    return SourcePrompt(
        source=source.name,
        # A hash where there is no id, never the line number: the order of lines must not matter.
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
        value = value[0]  # a list of turns, as in MT-Bench
    if isinstance(value, int) and not isinstance(value, bool) and name != "text":
        value = str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: {short(column)}: must be text, not {type(value).__name__}; correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {short(column)}: half a surrogate pair (\\ud…); correct it") from None
    return repair(value)
