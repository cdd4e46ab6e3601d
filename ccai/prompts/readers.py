"""Readers of prompt files: CSV, JSONL, plain text, and JSON with headings, packed or not."""

from __future__ import annotations

import csv
import gzip
import io
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ccai.base import files
from ccai.base.errors import UserError

UNPACKED_LIMIT = 2**30
"""Bytes at which reading a file or unpacking a .gz is given up."""

MANGLED = str.maketrans({0x13: "–", 0x14: "—", 0x18: "‘", 0x19: "’", 0x1C: "“", 0x1D: "”"})
"""Control characters that were dashes and quotes, of which only the low byte of U+2013 … U+201D is left."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class FilePrompt(NamedTuple):
    """One prompt of a file with all its fields; `place` is its place in the file."""

    place: str
    fields: Mapping[str, object]


def repair(text: str) -> str:
    """Text without common damage.

    Mangled quotes and dashes are restored (`MANGLED`), every kind of line break becomes LF, all other control
    characters except tab are removed, Unicode is composed (NFC), and outer white space is stripped.
    """
    lines = "\n".join(text.translate(MANGLED).splitlines())
    return unicodedata.normalize("NFC", CONTROL.sub("", lines)).strip()


def suffix(path: Path) -> str:
    """The kind of a file, packed or not: `.csv` for prompts.csv and for prompts.csv.gz."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


def decode(data: bytes, path: Path) -> str:
    if path.suffix.lower() == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(UNPACKED_LIMIT + 1)
        except (OSError, EOFError, zlib.error):
            raise UserError(f"{path}: not a complete .gz file; get it again") from None
        if len(data) > UNPACKED_LIMIT:
            raise UserError(f"{path}: unpacks to more than {UNPACKED_LIMIT} bytes; split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _csv(text: str, path: Path) -> Iterator[FilePrompt]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    csv.field_size_limit(UNPACKED_LIMIT)  # Python's own limit is 131,072; the file is in memory already
    last = 0  # line on which the previous record ended: a record may span lines
    try:
        header = next(reader, [])
        last = reader.line_num
        twice = [column for column, count in Counter(header).items() if column and count > 1]
        if twice:
            raise UserError(f"{path}:1: two columns are called {short(twice[0])!r}; rename one")
        for values in reader:
            line, last = last + 1, reader.line_num
            if not values:
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}:{line}: {len(values)} fields, but the header has {len(header)}; correct the line"
                )
            yield FilePrompt(str(line), dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}:{last + 1}: not valid CSV ({error}); correct the line") from None


def _jsonl(text: str, path: Path) -> Iterator[FilePrompt]:
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if content.strip():
            yield FilePrompt(str(line), files.an_object(content.encode(), f"{path}:{line}"))


def _txt(text: str, path: Path) -> Iterator[FilePrompt]:
    for line, content in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if content.strip():
            yield FilePrompt(str(line), {"text": content})


def _headings(text: str, path: Path) -> Iterator[FilePrompt]:
    """Prompts listed under headings, as some publishers do: `{heading: {heading: [prompt, …]}}`."""
    try:
        value = files.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); correct it") from None

    def walk(value: object, place: str) -> Iterator[FilePrompt]:
        if isinstance(value, str):
            yield FilePrompt(place, {"text": value, "id": place})
        elif isinstance(value, (dict, list)):
            below = value.items() if isinstance(value, dict) else enumerate(value, start=1)
            for key, inner in below:
                yield from walk(inner, f"{place}/{key}" if place else str(key))
        else:
            raise UserError(f"{path}:{place}: neither a prompt nor headings")

    return walk(value, "")


READERS: dict[str, Callable[[str, Path], Iterator[FilePrompt]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".txt": _txt,
    ".json": _headings,
}


def short(column: str) -> str:
    return " ".join(column[:24].split())
