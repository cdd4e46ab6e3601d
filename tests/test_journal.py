"""What was put is there after kills, torn lines, a full disk, other writers and prune; damage is passed over."""

from __future__ import annotations

import json
import os
import shutil
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

from ccai.base.errors import UserError
from ccai.generate.journal import Journal, JournalEntry, _decode, _encode, has_writer

ROOT = Path(__file__).parents[1]
VALUE = {
    "text": "Zeile eins\nline 2\u2028\x85 🙂 \x00",
    "finish_reason": "stop",
    "prompt_tokens": 0,
    "completion_tokens": 7,
}
SCORES = {"probabilities": [0.25, 0.75]}
THREE: dict[str, dict[str, Any]] = {"a": VALUE, "b": VALUE | {"text": "ü"}, "c": VALUE | {"text": "the last one"}}


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


def test_first_put_under_a_key_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put({"a": {"text": "first"}})
    journal.put({"a": {"text": "second"}, "b": VALUE})
    again = Journal(tmp_path)
    assert journal.get("a") == again.get("a") == {"text": "first"}
    assert (len(again), again.duplicates, again.get("b")) == (2, 0, VALUE)


def test_of_two_values_the_one_written_first_is_found(tmp_path: Path) -> None:
    """Two processes that both began before either had it, on a GPU that does not repeat itself."""
    journals = [Journal(tmp_path) for _ in range(8)]
    for number, journal in enumerate(journals):
        journal.put({f"own {number}": {}, "a": {"text": str(number)}})
        journal.close()
    assert Journal(tmp_path).get("a") == {"text": "0"}
    assert Journal(tmp_path).duplicates == 7
    for path in tmp_path.iterdir():  # as in a copy made in another order
        path.rename(path.with_name(f"{path.name[::-1]}.jsonl"))
    assert Journal(tmp_path).get("a") == {"text": "0"}
    Journal(tmp_path).prune(really=True)
    assert Journal(tmp_path).get("a") == {"text": "0"}
    assert Journal(tmp_path).duplicates == 0


@pytest.mark.parametrize("at", ["", "2026-11-22T12:00:00.000000+00:00"])
def test_of_two_values_of_one_moment_that_of_the_first_segment_is_found(tmp_path: Path, at: str) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_bytes(_encode(JournalEntry("a", at, {"text": name})))
    assert Journal(tmp_path).get("a") == {"text": "a"}


def test_line_written_before_times_were_kept(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_bytes(checked(b'{"key": "a", "value": {"text": "old"}}'))
    journal = Journal(tmp_path)
    assert (journal.get("a"), journal.damaged) == ({"text": "old"}, 0)


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
    journal.put({"c": {"text": "paid for again"}})
    assert Journal(tmp_path).get("c") == journal.get("c") == {"text": "paid for again"}


def test_another_entry_where_one_was_is_not_given_back(tmp_path: Path) -> None:
    """Of the same length and sound by itself, as after a copy over a running journal."""
    for name, key in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        Journal(tmp_path / name).put({key: {"text": name}})
    [segment], [another] = (tmp_path / "one").iterdir(), (tmp_path / "two").iterdir()
    opened = Journal(tmp_path / "one")
    segment.write_bytes(another.read_bytes())
    assert opened.get("a") is None
    opened.put({"a": {"text": "paid for again"}})
    assert opened.get("a") == {"text": "paid for again"}


def test_segment_that_cannot_be_read_any_more(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    journal = Journal(tmp_path)
    segment.unlink()
    segment.mkdir()
    with pytest.raises(UserError, match="Is a directory; make it readable"):
        journal.get("a")


def test_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put(THREE)
    [segment] = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(b"half a li")
    assert Journal(tmp_path).damaged == 0
    journal.close()
    assert Journal(tmp_path).damaged == 1


def test_copy_taken_in_the_middle_of_a_write(tmp_path: Path) -> None:
    writer = child(ENDLESS, tmp_path / "live", "x")
    (tmp_path / "live").mkdir()
    assert writer.stdout
    copies = []
    for number in range(12):
        said = int(writer.stdout.readline())
        copies.append((said, tmp_path / str(number)))
        shutil.copytree(tmp_path / "live", copies[-1][1])
    writer.kill()
    writer.communicate()
    for said, copy in copies:
        journal = Journal(copy)
        assert journal.damaged <= 1
        assert all(f"x {number} {half}" in journal for number in range(said + 1) for half in (0, 1))


def test_empty_segment_is_no_damage(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    segment.with_name("0.jsonl").touch()
    assert contents(tmp_path) == THREE
    assert Journal(tmp_path).damaged == 0


def test_folder_or_segment_that_cannot_be_read(tmp_path: Path) -> None:
    """Not an empty journal: all would be paid for again."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: Not a directory; make it readable, or point CCAI_CACHE at another"):
        Journal(tmp_path / "file")
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(UserError, match=r"a\.jsonl: Is a directory; "):
        Journal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    filled(tmp_path)
    tmp_path.chmod(0o300)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            Journal(tmp_path)
    finally:
        tmp_path.chmod(0o700)


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
@example(checked(b'{"key": "a", "at": "", "value": []}'))
@example(checked(b'{"key": "a", "value": {"text": "\xff"}}'))
def test_no_bytes_raise(line: bytes) -> None:
    assert _decode(line) is None


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.datetimes().map(str),
    st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.none()),
)
def test_any_text_survives_in_one_line(key: str, at: str, value: dict[str, Any]) -> None:
    line = _encode(JournalEntry(key, at, value))
    assert line.count(b"\n") == 1
    assert _decode(line) == (key, at, value)


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
from ccai.generate.journal import Journal
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
from ccai.base.errors import run
from ccai.generate.journal import Journal
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
    """As `ccai resume` would: space is made, and the process is still there."""
    code = """
import resource, sys
from pathlib import Path
from ccai.base.errors import UserError
from ccai.generate.journal import Journal
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


def namespace() -> list[str]:
    """A command that runs others where mounting touches nobody else; empty where that is not allowed."""
    command = ["unshare", "--map-root-user", "--mount"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"]).returncode
    return command if allowed == 0 else []


@pytest.mark.skipif(not namespace(), reason="this machine does not let us mount a small disk")
def test_disk_that_is_really_full(tmp_path: Path) -> None:
    """What was said to be kept is there, nothing else stands in the way, and with some space it goes on."""
    code = """
import sys
from pathlib import Path
from ccai.base.errors import UserError
from ccai.generate.journal import Journal
folder, said = Path(sys.argv[1]), 0
journal = Journal(folder)
filler = folder.parent / "filler"
filler.write_bytes(bytes(20_000))
try:
    while True:
        journal.put({f"{said} {half}": {"text": "x" * 700} for half in (0, 1)})
        said += 1
except UserError as error:
    assert "No space left on device" in str(error), error
    try:
        journal.put({"no": {"text": "y" * 9000}})
    except UserError:
        pass
    try:
        journal.prune(really=True)
    except UserError as error:
        assert "No space left on device" in str(error), error
    filler.unlink()
    for journal in (journal, Journal(folder)):
        assert all(journal.get(f"{n} {half}") == {"text": "x" * 700} for n in range(said) for half in (0, 1))
        journal.put({f"after {id(journal)}": {"text": "z"}})
        journal.close()
    journal = Journal(folder)
    assert len(journal) in (2 * said + 2, 2 * said + 3) and journal.damaged <= 2, (said, len(journal), journal.damaged)
    print(said)
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=128k none "$1" && mkdir "$1/journal" && exec "$2" -c "$3" "$1/journal"'
    done = subprocess.run(
        [*namespace(), "sh", "-c", script, "sh", str(disk), sys.executable, code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# Prune


def scattered(folder: Path) -> dict[str, Any]:
    """Segments of five writers: entries, duplicates of other values, a torn and a corrupted line, an empty segment."""
    folder.mkdir(exist_ok=True)
    expected: dict[str, Any] = {}
    for number in range(4):
        (folder / "elsewhere").mkdir()
        journal = Journal(folder / "elsewhere")  # sees none of the others' keys
        mine = {f"own {number}": VALUE, "shared": VALUE | {"text": str(number)}}
        journal.put(mine)
        journal.close()
        [segment] = (folder / "elsewhere").iterdir()
        segment.rename(folder / segment.name)
        (folder / "elsewhere").rmdir()
        expected = mine | expected
    (folder / "0.jsonl").touch()
    with (folder / "1.jsonl").open("wb") as file:
        file.write(b"12345678 {corrupted}\n" + _encode(JournalEntry("last", "3", SCORES)) + b"12345678 {to")
    return expected | {"last": SCORES}


def test_prune_keeps_each_entry_once_and_nothing_else(tmp_path: Path) -> None:
    expected = scattered(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    told = Journal(tmp_path).prune()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    journal = Journal(tmp_path)
    assert (journal.damaged, journal.duplicates) == (2, 3)
    assert journal.prune(really=True) == told
    assert (told.segments, told.kept, told.old) == (6, 6, 0)
    [segment] = tmp_path.iterdir()
    assert segment.stat().st_size == told.size
    for opened in (journal, Journal(tmp_path)):
        assert {entry.key: entry.value for entry in opened.entries()} == expected
        assert (opened.damaged, opened.duplicates, len(opened)) == (0, 0, 6)
    assert journal.prune(really=True).nothing
    assert list(tmp_path.iterdir()) == [segment]


def test_prune_by_age(tmp_path: Path) -> None:
    moments = [f"2026-11-{day}T12:00:00.000000+00:00" for day in (10, 12, 14)]
    lines = [_encode(JournalEntry(at, at, VALUE)) for at in moments]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines) + checked(b'{"key": "old", "value": {}}'))
    pruned = Journal(tmp_path).prune(before=moments[1], really=True)
    assert (pruned.kept, pruned.old) == (2, 2)
    assert [entry.key for entry in Journal(tmp_path).entries()] == moments[1:]
    assert Journal(tmp_path).prune(before="2027", really=True).kept == 0
    assert list(tmp_path.iterdir()) == []


def test_segment_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    expected = scattered(tmp_path)
    writer = child(ENDLESS, tmp_path, "x")
    assert writer.stdout
    writer.stdout.readline()
    [live] = [path for path in tmp_path.iterdir() if path.name.startswith(f"{writer.pid}-")]
    assert has_writer(live)
    inode = live.stat().st_ino
    Journal(tmp_path).prune(really=True)
    assert len(list(tmp_path.iterdir())) == 2
    for _ in range(5):
        said = int(writer.stdout.readline())
    writer.kill()
    writer.communicate()
    assert live.stat().st_ino == inode
    assert not has_writer(live)
    journal = Journal(tmp_path)
    assert all(journal.get(key) == value for key, value in expected.items())
    assert all(f"x {number} 0" in journal for number in range(said + 1))
    assert journal.duplicates == 0, "nothing of it was copied either"


def test_reader_goes_on_after_prune(tmp_path: Path) -> None:
    expected = scattered(tmp_path)
    reader = Journal(tmp_path)
    Journal(tmp_path).prune(really=True)
    assert {key: reader.get(key) for key in expected} == expected


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from ccai.generate.journal import Journal
source, expected = Path(sys.argv[1]), json.loads(sys.argv[2])
operations = last = 0
def count(event, arguments):
    global operations
    if event in ("open", "os.rename", "os.remove", "fcntl.flock", "os.listdir", "os.scandir"):
        operations += 1
        if operations == last:
            os.kill(os.getpid(), signal.SIGKILL)
end = signal.SIGKILL
while end == signal.SIGKILL:
    last += 1
    folder = source.with_name(str(last))
    shutil.copytree(source, folder)
    child = os.fork()
    if child == 0:
        sys.addaudithook(count)
        Journal(folder).prune(really=True)
        os._exit(0)
    end = os.WTERMSIG(os.waitpid(child, 0)[1])
    for _ in range(2):
        journal = Journal(folder)
        assert {entry.key: entry.value for entry in journal.entries()} == expected, last
        journal.prune(really=True)
    assert len(list(folder.iterdir())) == 1, last
print(last - 1, end)
"""


def test_prune_killed_at_any_point_loses_nothing(tmp_path: Path) -> None:
    """At the first of its operations on files, at the second …, until it gets to its end; then once more, unkilled."""
    expected = scattered(tmp_path / "journal")
    out, err = child(KILLED, tmp_path / "journal", json.dumps(expected)).communicate()
    assert err == ""
    kills, end = map(int, out.split())
    assert (kills > 30, end) == (True, 0)


BEGINNING = """
import sys
from pathlib import Path
from ccai.generate.journal import Journal
journal, name = Journal(Path(sys.argv[1])), sys.argv[2]
for number in range(100):
    journal.put({f"{name} {number}": {"text": "x"}})
    journal.close()
"""


def test_writers_and_prunes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Writers that begin a new segment for every entry: `prune` meets them just made, just locked, just closed."""
    writers = [child(BEGINNING, tmp_path, name) for name in "xy"]
    pruner = child(PRUNING, tmp_path)
    while any(writer.poll() is None for writer in writers):
        Journal(tmp_path).prune(really=True)
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    pruner.terminate()
    assert pruner.communicate()[1] == ""
    journal = Journal(tmp_path)
    assert {entry.key for entry in journal.entries()} == {f"{name} {n}" for name in "xy" for n in range(100)}
    assert journal.damaged == 0


PRUNING = """
import sys
from pathlib import Path
from ccai.base.errors import run
from ccai.generate.journal import Journal
def main():
    while True:
        Journal(Path(sys.argv[1])).prune(really=True)
run(main)
"""


# The command


def command(folder: Path, *arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ccai", "journal", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"CCAI_CACHE": str(folder)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_command_on_a_sound_journal(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    journal = Journal(folder)
    journal.put({"a": VALUE | {"prompt_tokens": 1000}, "b": {"probabilities": [0.5]}})
    status, out, err = command(tmp_path, "stats")
    assert (status, err) == (0, "")
    for line in (
        "entries     2: 1 completions, 1 others",
        "tokens      7 written in answer to 1,000",
        "segments    1, 1 of them being written",
        "duplicates  0",
        "damaged     0 lines: 0 torn, 0 corrupted",
    ):
        assert line in out.splitlines()
    assert command(tmp_path, "prune", "--yes") == (0, "nothing to prune; 1 segments are being written\n", "")
    journal.close()
    assert command(tmp_path, "verify") == (0, f"{folder}: 2 lines, all as they were written\n", "")
    assert command(tmp_path, "prune") == (0, "nothing to prune\n", "")


def test_command_on_a_damaged_journal(tmp_path: Path) -> None:
    expected = scattered(tmp_path / "journal")
    status, out, err = command(tmp_path, "verify")
    assert (status, out) == (2, "")
    assert err == (
        f"error: {tmp_path}/journal/1.jsonl:1: corrupted line; 1 torn and 1 corrupted in all, they are passed over; "
        "ccai journal prune --yes takes them out\n"
    )
    status, out, _ = command(tmp_path, "prune")
    assert (status, out.splitlines()[1]) == (0, "nothing is changed yet: add --yes")
    assert command(tmp_path, "verify")[0] == 2
    assert command(tmp_path, "prune", "--yes")[1].startswith("pruned: segments 6 → 1, bytes ")
    assert command(tmp_path, "verify")[0] == 0
    assert {entry.key: entry.value for entry in Journal(tmp_path / "journal").entries()} == expected


def test_verify_names_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    segment = filled(tmp_path / "journal")
    segment.write_bytes(segment.read_bytes()[:-1])
    status, _, err = command(tmp_path, "verify")
    assert status == 2
    assert err.startswith(f"error: {segment}:3: torn line; 1 torn and 0 corrupted in all")


def test_prune_command_gives_up_old_entries_on_demand(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    filled(tmp_path / "journal")
    assert "3 entries older than 0 days given up" in command(tmp_path, "prune", "--older-than", 0, "--yes")[1]
    assert len(Journal(tmp_path / "journal")) == 0


def test_export(tmp_path: Path) -> None:
    expected = scattered(tmp_path / "journal")
    status, out, _ = command(tmp_path, "export")
    rows = [json.loads(line) for line in out.removesuffix("\n").split("\n")]
    assert status == 0
    assert {row["key"]: row["value"] for row in rows} == expected
    assert command(tmp_path, "export", "-o", tmp_path / "out.jsonl") == (0, "", "")
    assert (tmp_path / "out.jsonl").read_text() == out
    shutil.copytree(tmp_path / "journal", tmp_path / "copy")
    assert command(tmp_path / "empty", "--folder", tmp_path / "copy", "export")[1] == out


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    status, _, err = command(tmp_path, "--folder", tmp_path / "nowhere", "stats")
    assert (status, err) == (2, f"error: {tmp_path}/nowhere: no such folder; --folder names a copy of a journal\n")
