"""Every completion ever generated, by the hash of everything that could have changed it.

Append-only JSON lines. Each writer has its own segment file, so two writers never touch the same bytes, and a line
torn by a kill can only be the last of a segment that nobody writes to again. docs/JOURNAL.md describes the format.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ccai.base.errors import UserError

UNFINISHED = ".tmp"
"""Suffix of the segment that `prune` is writing."""


class JournalEntry(NamedTuple):
    """The content of a line.

    `at` is the time of writing: UTC, ISO 8601 with microseconds, so that text order is time order; empty in a line from
    before times were kept.
    """

    key: str
    at: str
    value: dict[str, Any]


class Damage(NamedTuple):
    """A line that fails its checksum or holds no value; `number` counts from 1.

    Torn: the last line of its segment, without its end, cut off by a kill, a full disk or a copy made during a write.
    Any other is corrupted.
    """

    segment: Path
    number: int
    torn: bool


class _Place(NamedTuple):
    at: str
    segment: Path
    offset: int
    length: int


def whole(value: Mapping[str, Any]) -> bool:
    """Whether a value is one that this project writes: a completion, probabilities of labels, or harness answers.

    A correct checksum does not guarantee it: a line may have been written by hand, or by another version.
    """
    match value:
        case {"text": str(), "finish_reason": "stop" | "length"}:
            counts = (value.get("prompt_tokens"), value.get("completion_tokens"), value.get("attempt", 0))
            margin = value.get("margin")
            return all(type(count) is int and 0 <= count < 2**31 for count in counts) and (
                margin is None or (type(margin) in (int, float) and margin >= 0)
            )
        case {"probabilities": [*numbers]}:
            return all(type(number) in (int, float) and -1e-6 < number < 1 + 1e-6 for number in numbers)
        case {"answers": [*_]}:
            return True
    return False


class Journal:
    """Lookup by key in all segments of a folder; `put` appends to this process's own segment. For one thread.

    Args:
        sound: whether a value is valid (`whole`); a line with an invalid value is a damaged line.

    A key's value never changes. If two processes wrote different values, the first one counts (by the entries' own
    times; within a microsecond, by segment name), before and after `prune`.

    Attributes:
        damage: lines that were torn or corrupted when the journal was opened; they are skipped. A line that another
            process was writing at that moment does not count.
        duplicates: entries that were skipped because their key was written earlier.

    Raises:
        UserError: the folder or a segment cannot be read. A missing folder is an empty journal.
    """

    def __init__(self, folder: Path, sound: Callable[[Mapping[str, Any]], bool] = lambda value: True) -> None:
        self._folder, self._sound = folder, sound
        self._own: BinaryIO | None = None
        self._own_path = folder
        self._index()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def damaged(self) -> int:
        """Number of damaged lines."""
        return len(self.damage)

    def get(self, key: str) -> dict[str, Any] | None:
        """The value stored under `key`, or None.

        Raises:
            UserError: its segment can no longer be read.
        """
        if (place := self._places.get(key)) is None:
            return None
        try:
            entry = _decode(_bytes(place))
        except FileNotFoundError:  # pruned since it was indexed: its entries are now in another segment
            self._index()
            return self.get(key)
        except OSError as error:
            raise _unreadable(place.segment, error) from None
        if entry is None or entry.key != key:  # damaged since; lets another `put` in
            del self._places[key]
            return None
        return entry.value

    def reject(self, key: str) -> None:
        """Count the value of `key` as damaged, because it cannot be the requested one, and let another `put` in."""
        place = self._places.pop(key)
        self.damage.append(Damage(place.segment, 1 + _count_lines(place.segment, place.offset), torn=False))

    def put(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Append entries with new keys and sync them to disk; after it returns they survive a power loss.

        Raises:
            UserError: the disk is full or not writable. Earlier entries stay usable.
        """
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        lines = {key: _encode(JournalEntry(key, at, dict(value))) for key, value in entries.items() if key not in self}
        if not lines:
            return
        places: dict[str, _Place] = {}
        try:
            own = self._own = self._own or self._begin()
            for key, line in lines.items():
                places[key] = _Place(at, self._own_path, own.tell(), len(line))
                own.write(line)
            own.flush()
            os.fsync(own.fileno())
        except BaseException as error:  # also a stop signal: a line that may be torn must stay its segment's last
            with suppress(OSError):  # bytes that did not reach the disk cannot be flushed now either
                self.close()
            if isinstance(error, OSError):
                raise _unwritable(self._own_path, error) from None
            raise
        self._places |= places

    def close(self) -> None:
        """Close this process's segment; another `put` begins a new one."""
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def entries(self) -> Iterator[JournalEntry]:
        """The entry of every key, in the order of writing."""
        for key, place in sorted(self._places.items(), key=lambda item: item[1]):
            if (value := self.get(key)) is not None:
                yield JournalEntry(key, place.at, value)

    def prune(self, before: str = "", really: bool = False) -> Pruned:
        """Rewrite all segments without a living writer into one, without damaged lines, duplicates and old entries.

        The new segment is complete and on disk before an old one is removed, so a kill at any point loses nothing.

        Args:
            before: entries written before this time (as `Entry.at`) are dropped.
            really: whether to do it; False only reports what would be done.

        Raises:
            UserError: the disk is full or not writable. Nothing is lost.
        """
        with _alone(self._folder):
            return self._prune(before, really)

    def _prune(self, before: str, really: bool) -> Pruned:
        if really:
            for path in self._folder.glob(f"*{UNFINISHED}"):  # left by a killed `prune`
                path.unlink()
        dead = {path: path.stat().st_size for path in segments(self._folder) if not has_writer(path)}
        self._index()
        places = [place for place in sorted(self._places.values()) if place.segment in dead]
        recent = [place for place in places if place.at >= before]
        size = sum(place.length for place in recent)
        pruned = Pruned(len(dead), sum(dead.values()), len(recent), size, len(places) - len(recent))
        if really and not pruned.nothing:
            if recent:
                _write_segment(self._folder, recent)
            for path, length in dead.items():
                _remove(path, length)
            _sync_folder(self._folder)
            self._index()
        return pruned

    def _begin(self) -> BinaryIO:
        """A segment of our own, locked while it is open: the lock tells `prune` that it has a writer."""
        while True:
            self._own_path = _name(self._folder)
            own = self._own_path.open("xb")
            with suppress(OSError):  # some network file systems have no locks: all segments then count as in use
                fcntl.flock(own, fcntl.LOCK_EX)
            if os.fstat(own.fileno()).st_nlink:
                _sync_folder(self._folder)
                return own
            own.close()  # before it was locked, `prune` took it for a dead writer's and removed it

    def _index(self) -> None:
        self._places: dict[str, _Place] = {}
        self.damage: list[Damage] = []
        self.duplicates = 0
        for segment in segments(self._folder):
            offset = 0
            for number, line in enumerate(_lines(segment), start=1):
                entry = _decode(line)
                if entry is None or not self._sound(entry.value):
                    torn = not line.endswith(b"\n")
                    if not (torn and has_writer(segment)):
                        self.damage.append(Damage(segment, number, torn))
                else:
                    place = _Place(entry.at, segment, offset, len(line))
                    earliest = self._places.setdefault(entry.key, place)
                    self.duplicates += earliest is not place
                    if place < earliest:
                        self._places[entry.key] = place
                offset += len(line)


class Pruned(NamedTuple):
    """The result of `Journal.prune`, done or planned.

    `segments` segments of `bytes` bytes become one of `size` bytes with `kept` entries; `old` entries are dropped
    because of their age.
    """

    segments: int
    bytes: int
    kept: int
    size: int
    old: int

    @property
    def nothing(self) -> bool:
        """Whether pruning would change nothing."""
        return self.bytes == self.size and self.segments <= 1


def segments(folder: Path) -> Iterator[Path]:
    """The segments of a journal by name, then those that `prune` has created meanwhile; none without the folder.

    Raises:
        UserError: the folder cannot be read.
    """
    paths: set[Path] = set()
    while True:
        try:
            fresh = {path for path in folder.iterdir() if path.suffix == ".jsonl"} - paths
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(folder, error) from None
        if not fresh:
            return
        yield from sorted(fresh)
        paths |= fresh


def has_writer(segment: Path) -> bool:
    """Whether the process that writes a segment is alive, or it cannot be known.

    A writer's lock ends with it, however it ends. Between machines this depends on the file system's locks.
    """
    try:
        with segment.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _lines(segment: Path) -> Iterator[bytes]:
    try:
        with segment.open("rb") as file:
            yield from file
    except FileNotFoundError:  # pruned since it was listed: `segments` also yields its successor
        return
    except OSError as error:
        raise _unreadable(segment, error) from None


def _count_lines(segment: Path, end: int) -> int:
    with suppress(OSError), segment.open("rb") as file:
        return file.read(end).count(b"\n")
    return 0


def _bytes(place: _Place) -> bytes:
    with place.segment.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.length)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process prunes the folder, and make others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without locks all segments count as in use, so nothing is pruned
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_segment(folder: Path, places: Iterable[_Place]) -> None:
    """Copy lines into a segment that gets its name only when it is complete."""
    path = _name(folder)
    temporary = path.with_suffix(UNFINISHED)
    try:
        with temporary.open("xb") as file:
            for place in places:
                file.write(_bytes(place))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(folder)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(temporary, error) from None
        raise


def _remove(segment: Path, length: int) -> None:
    """Remove a segment unless it has a writer, or has grown beyond `length` bytes."""
    with suppress(OSError), segment.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_size == length:
            segment.unlink()


def _name(folder: Path) -> Path:
    return folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def _encode(entry: JournalEntry) -> bytes:
    body = json.dumps(entry._asdict(), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> JournalEntry | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError):  # such as a line of zeros: the checksum of nothing is 0
        return None
    match entry:
        case {"key": str(key), "at": str(at), "value": dict(value)}:
            return JournalEntry(key, at, value)
        case {"key": str(key), "value": dict(value)}:  # from before times were kept
            return JournalEntry(key, "", value)
    return None


def _sync_folder(folder: Path) -> None:
    """Sync a new file's name to disk; the file's own fsync covers only its bytes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror}; make it readable, or point CCAI_CACHE at another folder")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror}; free some space or make the folder writable, and run again")
