"""Files of the pipeline: JSON lines read record by record and checked, and everything written atomically."""

from __future__ import annotations

import codecs
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, Generic, NoReturn

from pydantic import ValidationError

from ccai.base.errors import UserError, first
from ccai.base.records import AnyRecord, Record

LONGEST_LINE = 16 * 2**20
"""Longest line in bytes. A longer one means that the file is not JSON lines, and would fill the memory."""


def read(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All records of a JSONL file that must not be empty.

    Raises:
        UserError: the file is missing or empty, a line is not a record of this kind, or two records have the same key;
            names file, line and field.
    """
    records = list(each(path, kind))
    if not records:
        raise _empty(path)
    return records


def each(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a JSONL file one by one. Raises as `read` does, except that the file may be empty."""
    for record, _, _ in _placed(path, kind):
        yield record


class Index(Generic[AnyRecord]):
    """Records of a JSONL file by their key. Only each record's position is kept in memory (some 200 bytes).

    Raises:
        UserError: on creation, as `read` does, for every line.
    """

    def __init__(self, path: Path, kind: type[AnyRecord]) -> None:
        self._path, self._kind = path, kind
        [field] = kind.KEY
        self._places: dict[str, tuple[int, int]] = {}
        place = 0
        for record, number, length in _placed(path, kind):
            self._places[getattr(record, field)] = (number, place)
            place += length
        if not self._places:
            raise _empty(path)
        self._file = path.open("rb")
        self._read = functools.lru_cache(maxsize=256)(self._read_anew)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> AnyRecord:
        return self._read(key)

    def _read_anew(self, key: str) -> AnyRecord:
        number, place = self._places[key]
        self._file.seek(place)
        return parsed(self._file.readline(), self._kind, f"{self._path}:{number}")


def _empty(path: Path) -> UserError:
    return UserError(f"{path}: empty; restore the file (dvc checkout) or re-run its stage")


def _placed(path: Path, kind: type[AnyRecord]) -> Iterator[tuple[AnyRecord, int, int]]:
    """Each record with its line number and its length in bytes."""
    identities: set[int] = set()  # hashes need a tenth of the keys' memory
    try:
        with path.open("rb") as file:
            for number, line in enumerate(lines(file, path), start=1):
                record = parsed(line, kind, f"{path}:{number}")
                if kind.KEY:
                    values = [getattr(record, field) for field in kind.KEY]
                    before, identity = len(identities), hash(tuple(values))
                    identities.add(identity)
                    if len(identities) == before:
                        named = ", ".join(f"{field} {value}" for field, value in zip(kind.KEY, values, strict=True))
                        raise UserError(
                            f"{path}:{number}: a second record of {named}; restore the file (dvc checkout) or re-run "
                            "its stage"
                        )
                yield record, number, len(line)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}: cannot be read ({error}); restore it (dvc checkout)") from None


def lines(file: BufferedIOBase, where: Path) -> Iterator[bytes]:
    """A file's lines with their line ends.

    Raises:
        UserError: a line is longer than `LONGEST_LINE`.
        OSError: the file cannot be read.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(f"{where}:{number}: more than {LONGEST_LINE} bytes without a line end; correct the file")
        yield line


def parsed(line: bytes, kind: type[AnyRecord], where: str) -> AnyRecord:
    """Parse one line into a record.

    Raises:
        UserError: not UTF-8, not JSON, a key twice in one object, or not a record of this kind; names the field.
    """
    try:
        text = line.decode()
        record = kind.model_validate_json(text, strict=True)
        json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read ({error}); restore the file (dvc checkout)") from None
    except (ValidationError, ValueError) as error:
        wrong = first(error, "line") if isinstance(error, ValidationError) else error
        raise UserError(f"{where}: {wrong}; restore the file (dvc checkout) or re-run its stage") from None
    return record


def loads(text: bytes | str, *, finite: bool = True) -> Any:
    """Parse JSON by the standard, more strictly than Python's `json` does.

    Args:
        finite: whether NaN and the infinities are errors.

    Raises:
        ValueError: not JSON in UTF-8; a key twice in one object, half a surrogate pair, a number that is too long,
            nesting that is too deep.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number if finite else None, parse_int=_integer
        )
        if finite or "\\ud" in text.lower():  # check that it can be written again
            json.dumps(value, ensure_ascii=False, allow_nan=not finite).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (\\ud…)") from None
    return value


def an_object(line: bytes, where: str, *, finite: bool = False) -> dict[str, Any]:
    """A JSON object from a line of a user's file.

    Raises:
        UserError: the line is not a JSON object (see `loads`).
    """
    try:
        value = loads(line.removeprefix(codecs.BOM_UTF8), finite=finite)
    except ValueError as error:
        raise UserError(f"{where}: not a line of JSON in UTF-8 ({error}); correct it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object; write one on each line")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a repeated key; Python would drop the first value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice[:80]!a}: twice in one object")
    return values


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    """An integer that also fits into a float."""
    if len(digits) > 300:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically."""
    with writing(path) as file:
        file.writelines(map(line, records))


def line(record: Record) -> bytes:
    """A record as one line of a JSONL file."""
    return (json.dumps(record.model_dump(), ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, keys in the given order, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: missing, or not a JSON object.
    """
    try:
        value = loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); re-run the stage that writes it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; re-run the stage that writes it")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, atomically."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, renamed to it at the end after fsync: readers see the old file or the new one.

    Raises:
        UserError: the file cannot be written, for example because the disk is full; the old file stays as it was.
    """
    try:
        with _beside(path) as file:
            yield file
    except BrokenPipeError:  # the reader of the command's output has closed it
        raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or make its folder writable, "
            "and run again"
        ) from None


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
