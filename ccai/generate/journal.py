"""Every completion ever paid for, by the hash of everything that could have changed it.

    ccai journal stats             # what is in it
    ccai journal verify            # every line's checksum; exit code 2 if one is wrong
    ccai journal prune --yes       # one segment without damaged lines and duplicates
    ccai journal export -o FILE    # as JSON lines, to read or to count

Append-only JSON lines. Each writer has a segment file of its own, so two writers never touch the same bytes
and a line torn by a kill can only be the last of a segment nobody writes to again. docs/JOURNAL.md has the format.
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


class Entry(NamedTuple):
    """What a line holds. `at` is when it was written: UTC, ISO 8601 with microseconds, so that text order is time
    order; empty in a line written before times were kept."""

    key: str
    at: str
    value: dict[str, Any]


class Damage(NamedTuple):
    """A line that fails its checksum or holds no value; `number` counts from 1.

    Torn: the last of its segment and without its end, cut off by a kill, a full disk or a copy taken in the middle of
    a write. Any other is corrupted.
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
    """Whether a value is one that this project writes: a completion, probabilities of labels, answers to the harness.
    A right checksum does not say so: a line may have been written by hand, or by another version."""
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
        sound: says whether a value is what it should be (`whole`); a line with another is a damaged line.

    What is under a key never changes. If two processes wrote different values, the one written first is found (by the
    entries' own times; within a microsecond, in the first segment by name), before and after `prune`.

    Attributes:
        damage: lines found torn or corrupted when the journal was opened; they are passed over. A line that another
            process was writing at that moment is not among them.
        duplicates: entries that were passed over because their key was written before.

    Raises:
        UserError: the folder or a segment can't be read. A folder that is not there is an empty journal.
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
        """How many damaged lines there are."""
        return len(self.damage)

    def get(self, key: str) -> dict[str, Any] | None:
        """The value stored under `key`, or None.

        Raises:
            UserError: its segment can't be read any more.
        """
        if (place := self._places.get(key)) is None:
            return None
        try:
            entry = _decode(_bytes(place))
        except FileNotFoundError:  # pruned since it was indexed: its entries are in another segment now
            self._index()
            return self.get(key)
        except OSError as error:
            raise _unreadable(place.segment, error) from None
        if entry is None or entry.key != key:  # damaged since; so that another `put` is taken
            del self._places[key]
            return None
        return entry.value

    def reject(self, key: str) -> None:
        """What is under `key` can't be what was asked for: it counts as damaged, and another `put` is taken."""
        place = self._places.pop(key)
        self.damage.append(Damage(place.segment, 1 + _count_lines(place.segment, place.offset), torn=False))

    def put(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Append entries whose keys are new and force them to disk; when this returns they survive a power loss.

        Raises:
            UserError: the disk is full or not writable. What was appended before stays usable.
        """
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        lines = {key: _encode(Entry(key, at, dict(value))) for key, value in entries.items() if key not in self}
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
        except BaseException as error:  # a stop signal too: a line that may be torn has to stay its segment's last
            with suppress(OSError):  # what did not reach the disk can't be flushed now either
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

    def entries(self) -> Iterator[Entry]:
        """The entry of every key, in the order in which they were written."""
        for key, place in sorted(self._places.items(), key=lambda item: item[1]):
            if (value := self.get(key)) is not None:
                yield Entry(key, place.at, value)

    def prune(self, before: str = "", really: bool = False) -> Pruned:
        """Rewrite all segments without a living writer into one: without damaged lines, without duplicates and without
        entries written before a time (as `Entry.at`).

        The new segment is complete and on disk before an old one is removed, so a kill at any point loses nothing.

        Args:
            really: otherwise only say what would be done.

        Raises:
            UserError: the disk is full or not writable. Nothing is lost.
        """
        with _alone(self._folder):
            return self._prune(before, really)

    def _prune(self, before: str, really: bool) -> Pruned:
        if really:
            for path in self._folder.glob(f"*{UNFINISHED}"):  # of one that was killed
                path.unlink()
        dead = {path: path.stat().st_size for path in segments(self._folder) if not has_writer(path)}
        self._index()
        places = [place for place in sorted(self._places.values()) if place.segment in dead]
        kept = [place for place in places if place.at >= before]
        size = sum(place.length for place in kept)
        pruned = Pruned(len(dead), sum(dead.values()), len(kept), size, len(places) - len(kept))
        if really and not pruned.nothing:
            if kept:
                _write_segment(self._folder, kept)
            for path, length in dead.items():
                _remove(path, length)
            _sync_folder(self._folder)
            self._index()
        return pruned

    def _begin(self) -> BinaryIO:
        """A segment of our own, locked as long as it is open: so `prune` knows that it has a writer."""
        while True:
            self._own_path = _name(self._folder)
            own = self._own_path.open("xb")
            with suppress(OSError):  # not every network file system has locks: there all segments count as in use
                fcntl.flock(own, fcntl.LOCK_EX)
            if os.fstat(own.fileno()).st_nlink:
                _sync_folder(self._folder)
                return own
            own.close()  # `prune` found it in the moment before the lock, and took it for a dead writer's

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
                    known = self._places.setdefault(entry.key, place)
                    self.duplicates += known is not place
                    if place < known:
                        self._places[entry.key] = place
                offset += len(line)


class Pruned(NamedTuple):
    """What `Journal.prune` did or would do: segments (and their bytes) that become one of `size` bytes with `kept`
    entries; `old` are entries given up because of their age."""

    segments: int
    bytes: int
    kept: int
    size: int
    old: int

    @property
    def nothing(self) -> bool:
        """Whether it is of no use."""
        return self.bytes == self.size and self.segments <= 1


def segments(folder: Path) -> Iterator[Path]:
    """The segments of a journal by name, and then those that `prune` made meanwhile; none if there is no folder.

    Raises:
        UserError: the folder can't be read.
    """
    seen: set[Path] = set()
    while True:
        try:
            fresh = {path for path in folder.iterdir() if path.suffix == ".jsonl"} - seen
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(folder, error) from None
        if not fresh:
            return
        yield from sorted(fresh)
        seen |= fresh


def has_writer(segment: Path) -> bool:
    """Whether the process that writes a segment is still there, or there is no way to tell.

    A writer's lock ends with it, however it ends. Between machines this holds where the file system's locks do.
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
    except FileNotFoundError:  # pruned since it was listed: `segments` gives its successor too
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
    """Wait until no other process prunes the folder, and keep others waiting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without locks all segments count as in use, and nothing is pruned
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_segment(folder: Path, places: Iterable[_Place]) -> None:
    """Copy lines into a segment that is there under its name once it is whole."""
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
    """Remove a segment unless it has got a writer, or grown, since it was `length` bytes long."""
    with suppress(OSError), segment.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_size == length:
            segment.unlink()


def _name(folder: Path) -> Path:
    return folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def _encode(entry: Entry) -> bytes:
    body = json.dumps(entry._asdict(), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Entry | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError):  # as of a line of zeros: the checksum of nothing is 0
        return None
    match entry:
        case {"key": str(key), "at": str(at), "value": dict(value)}:
            return Entry(key, at, value)
        case {"key": str(key), "value": dict(value)}:  # before times were kept
            return Entry(key, "", value)
    return None


def _sync_folder(folder: Path) -> None:
    """Force a new file's name to disk: its own fsync keeps its bytes only."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror}; make it readable, or point CCAI_CACHE at another folder")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror}; free some space or make the folder writable, and run again")
