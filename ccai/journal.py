"""Every completion ever paid for, by the hash of everything that could have changed it.

Append-only JSON lines. Each writer has a segment file of its own, so two writers never touch the same bytes
and a line torn by a kill can only be the last of a segment nobody writes to again.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ccai.errors import UserError


class _Place(NamedTuple):
    segment: Path
    offset: int
    length: int


class Journal:
    """Lookup by key in all segments of a folder; `put` appends to this process's own segment.

    Attributes:
        damaged: lines found torn or corrupted when the journal was opened; they are passed over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._own: BinaryIO | None = None
        self._own_path = folder
        self.damaged = 0
        for segment in sorted(folder.glob("*.jsonl")):
            self._index(segment)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> dict[str, Any] | None:
        """The value stored under `key`, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        with place.segment.open("rb") as file:
            file.seek(place.offset)
            entry = _decode(file.read(place.length))
        return None if entry is None else entry[1]

    def put(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Append entries and force them to disk; when this returns they survive a power loss.

        Raises:
            UserError: the disk is full or not writable. What was appended before stays usable.
        """
        places: dict[str, _Place] = {}
        try:
            if self._own is None:
                self._own_path = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
                self._own = self._own_path.open("ab")
                _sync_folder(self._folder)
            for key, value in entries.items():
                line = _encode(key, value)
                places[key] = _Place(self._own_path, self._own.tell(), len(line))
                self._own.write(line)
            self._own.flush()
            os.fsync(self._own.fileno())
        except OSError as error:
            with suppress(OSError):  # what did not reach the disk can't be flushed now either
                self.close()
            raise UserError(
                f"{self._own_path}: {error.strerror}; free some space or make the folder writable, and run again"
            ) from None
        self._places |= places

    def close(self) -> None:
        """Close this process's segment; another `put` begins a new one."""
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def _index(self, segment: Path) -> None:
        offset = 0
        with segment.open("rb") as file:
            for line in file:
                entry = _decode(line)
                if entry is None:
                    self.damaged += 1
                else:
                    self._places[entry[0]] = _Place(segment, offset, len(line))
                offset += len(line)


def _encode(key: str, value: Mapping[str, Any]) -> bytes:
    body = json.dumps({"key": key, "value": value}, ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> tuple[str, dict[str, Any]] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = json.loads(body)
    except ValueError:  # as of a line of zeros: the checksum of nothing is 0
        return None
    match entry:
        case {"key": str(key), "value": dict(value)}:
            return key, value
    return None


def _sync_folder(folder: Path) -> None:
    """Force a new file's name to disk: its own fsync keeps its bytes only."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
