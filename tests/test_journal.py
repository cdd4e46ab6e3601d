"""What was put is there after kills, torn lines, a full disk and other writers; what was damaged is passed over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccai.errors import UserError
from ccai.journal import Journal, _decode, _encode

ROOT = Path(__file__).parents[1]
VALUE = {"text": "Zeile eins\nline 2\u2028\x85 🙂 \x00", "finish_reason": "stop", "completion_tokens": 7}
THREE: dict[str, dict[str, Any]] = {"a": VALUE, "b": {"text": "ü"}, "c": {"text": "the last one"}}


def filled(folder: Path) -> Path:
    """A journal of three entries; its only segment."""
    journal = Journal(folder)
    journal.put(THREE)
    journal.close()
    [segment] = folder.iterdir()
    return segment


def contents(folder: Path) -> dict[str, Any]:
    """All that a journal opened now can give back."""
    journal = Journal(folder)
    found = {key: journal.get(key) for key in THREE}
    return {key: value for key, value in found.items() if value is not None}


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_put_is_there_at_once_and_after_reopening(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert (len(journal), "a" in journal, journal.get("a")) == (0, False, None)
    journal.put({"a": VALUE})
    journal.put({"b": {}})
    again = Journal(tmp_path)  # while the first is still open
    for opened in (journal, again):
        assert (opened.get("a"), opened.get("b"), opened.get("c"), len(opened)) == (VALUE, {}, None, 2)
        assert "a" in opened
    assert again.damaged == 0
    journal.close()
    journal.put({"c": {"text": "after closing"}})
    assert Journal(tmp_path).get("c") == journal.get("c") == {"text": "after closing"}


def test_entries_are_forced_to_disk_before_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a power loss tells, so the call itself is watched: all bytes, and the folder with the name."""
    synced: dict[int, int] = {}

    def sync(handle: int) -> None:
        status = os.fstat(handle)
        synced[status.st_ino] = status.st_size

    monkeypatch.setattr(os, "fsync", sync)
    journal = Journal(tmp_path)
    for key in "ab":
        journal.put({key: VALUE})
        [segment] = tmp_path.iterdir()
        assert synced[segment.stat().st_ino] == segment.stat().st_size > 0
    assert tmp_path.stat().st_ino in synced


def test_last_put_under_a_key_wins(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put({"a": {"text": "first"}})
    journal.put({"a": {"text": "second"}})
    assert journal.get("a") == Journal(tmp_path).get("a") == {"text": "second"}
    assert len(journal) == 1


def test_reading_alone_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.get("a")
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_line_torn_at_any_byte_costs_only_itself(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    whole = segment.read_bytes()
    last = len(whole) - len(whole.splitlines(keepends=True)[-1])
    for end in range(last, len(whole)):
        segment.write_bytes(whole[:end])
        assert contents(tmp_path) == {key: THREE[key] for key in "ab"}
        assert Journal(tmp_path).damaged == (end > last)


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_flipped_bit_costs_only_its_line(tmp_path: Path, bit: int) -> None:
    segment = filled(tmp_path)
    whole = segment.read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = [len(b"".join(lines[: number + 1])) for number in range(3)]
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= bit
        segment.write_bytes(flipped)
        hit = next(number for number, end in enumerate(ends) if place < end)
        merged = place + 1 == ends[hit]  # without its line end, the next line hangs on to this one
        lost = {"abc"[hit], *("abc"[hit + 1 : hit + 2] if merged else "")}
        assert contents(tmp_path) == {key: value for key, value in THREE.items() if key not in lost}
        assert Journal(tmp_path).damaged


def test_segment_that_shrinks_after_opening_is_not_found(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    journal = Journal(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-5])
    assert (journal.get("b"), journal.get("c")) == (THREE["b"], None)


def checked(body: bytes) -> bytes:
    """A line whose checksum is right, whatever it holds."""
    return b"%08x %s\n" % (zlib.crc32(body), body)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(checked))
@example(b"")
@example(b"\n")
@example(b"00000000\n")  # the checksum of nothing
@example(b"00000000 \n")
@example(checked(b"null"))
@example(checked(b"[1, 2]"))
@example(checked(b'{"key": "a"}'))
@example(checked(b'{"key": ["a"], "value": {}}'))
@example(checked(b'{"key": "a", "value": 3}'))
@example(checked(b'{"key": "a", "value": {"text": "\xff"}}'))
def test_no_bytes_raise(line: bytes) -> None:
    assert _decode(line) is None


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.none()),
)
def test_any_text_survives_in_one_line(key: str, value: dict[str, Any]) -> None:
    line = _encode(key, value)
    assert line.count(b"\n") == 1
    assert _decode(line) == (key, value)


def put_many(folder: Path, name: str, count: int) -> None:
    journal = Journal(folder)
    for number in range(count):
        journal.put({f"{name}{number}": {"text": name * 500}, f"shared{number}": {"text": "same"}})


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    spawn = get_context("spawn")
    writers = [spawn.Process(target=put_many, args=(tmp_path, name, 200)) for name in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    journal = Journal(tmp_path)
    assert (journal.damaged, len(journal)) == (0, 600)
    assert all(journal.get(f"{name}{number}") == {"text": name * 500} for name in "xy" for number in range(200))


ENDLESS = """
import sys
from pathlib import Path
from ccai.journal import Journal
journal, name = Journal(Path(sys.argv[1])), sys.argv[2]
for number in range(1_000_000):
    journal.put({f"{name} {number} {half}": {"text": "x" * 3000} for half in (0, 1)})
    print(number, flush=True)
"""


def test_killed_writers_leave_all_that_they_said_was_kept(tmp_path: Path) -> None:
    kept = {}
    for name in range(6):
        writer = child(ENDLESS, tmp_path, name)
        assert writer.stdout
        for _ in range(5 + 7 * name):
            writer.stdout.readline()
        writer.kill()
        said = writer.communicate()[0].split()
        assert writer.returncode == -signal.SIGKILL
        kept[name] = int(said[-1]) if said else 4 + 7 * name
    journal = Journal(tmp_path)
    assert journal.damaged <= len(kept), "a kill tears one line of its own segment at most"
    for name, last in kept.items():
        for number in range(last + 1):
            assert journal.get(f"{name} {number} 0") == journal.get(f"{name} {number} 1") == {"text": "x" * 3000}


FULL = """
import resource, sys
from pathlib import Path
from ccai.errors import run
from ccai.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
journal = Journal(Path(sys.argv[1]))
def main():
    try:
        for number in range(100):
            journal.put({f"{number} {half}": {"text": "x" * 700} for half in (0, 1)})
            print(number, flush=True)
    finally:
        journal.close()
run(main)
"""


def test_full_disk_is_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    writer = child(FULL, tmp_path)
    out, err = writer.communicate()
    assert writer.returncode == 2, err
    assert err.startswith(f"error: {tmp_path}") and err.endswith("make the folder writable, and run again\n")
    assert err.count("\n") == 1
    kept = int(out.split()[-1]) + 1
    assert 20 < kept < 40
    journal = Journal(tmp_path)
    assert all(journal.get(f"{number} {half}") == {"text": "x" * 700} for number in range(kept) for half in (0, 1))
    assert journal.damaged == 1


def test_after_a_full_disk_the_same_journal_goes_on(tmp_path: Path) -> None:
    """As `python -m ccai.resume` would: space is made, and the process is still there."""
    code = """
import resource, sys
from pathlib import Path
from ccai.errors import UserError
from ccai.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.put({"before": {"text": "x" * 9000}})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
try:
    journal.put({"torn": {"text": "x" * 9000}})
except UserError:
    assert journal.get("torn") is None and "torn" not in journal
    assert journal.get("before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    journal.put({"after": {"text": "y"}})
    journal.close()
    print(sorted(key for key in ("before", "torn", "after") if journal.get(key)))
"""
    writer = child(code, tmp_path)
    out, err = writer.communicate()
    assert out == "['after', 'before']\n", err
    journal = Journal(tmp_path)
    assert (journal.get("after"), journal.get("torn"), journal.damaged) == ({"text": "y"}, None, 1)


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone")
    with pytest.raises(
        UserError, match=r"gone/\d+-[0-9a-f]+\.jsonl: No such file or directory; free some space or make"
    ):
        journal.put({"a": VALUE})
    journal.close()
