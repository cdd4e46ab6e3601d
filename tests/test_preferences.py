"""Ready-made pairs: transcripts and messages are read alike, and what is wrong with a row has a name."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ccai.base import files
from ccai.base.errors import UserError
from ccai.pairs import ready_made, user_files
from ccai.pairs.build import Candidate
from ccai.prompts import readers

ASK = "\n\nHuman: My tap drips.\n\nAssistant: Since when?\n\nHuman: Since Monday, at night."
GOOD, BAD = (
    "\n\nAssistant: Then the washer is worn; a new one costs little.",
    "\n\nAssistant: Move to another house then.",
)


def rows(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> list[Candidate]:
    return list(ready_made.candidates(str(path), **options))


def test_transcripts_messages_and_plain_texts_are_the_same_pair(tmp_path: Path) -> None:
    before = [
        {"role": "user", "content": "My tap drips."},
        {"role": "assistant", "content": "Since when?"},
        {"role": "user", "content": "Since Monday, at night."},
    ]
    good, bad = ({"role": "assistant", "content": text.partition(": ")[2]} for text in (GOOD, BAD))
    path = rows(
        tmp_path / "mine.jsonl",
        {"chosen": ASK + GOOD, "rejected": ASK + BAD, "score": 3},
        {"chosen": [*before, good], "rejected": [*before, bad]},
        {"prompt": before, "chosen": [good], "rejected": [bad]},
        {"prompt": ASK, "chosen": good["content"], "rejected": bad["content"]},
    )
    found = read(path, system="Be brief.")
    assert len({candidate.pair.model_dump_json() for candidate in found}) == 1
    pair = found[0].pair
    assert [(turn.role, turn.content) for turn in pair.prompt] == [
        ("system", "Be brief."),
        ("user", "My tap drips."),
        ("assistant", "Since when?"),
        ("user", "Since Monday, at night."),
    ]
    assert pair.chosen[0].content == "Then the washer is worn; a new one costs little."
    assert (found[0].source, found[0].fault, pair.round) == ("mine.jsonl", None, 0)
    with gzip.open(tmp_path / "mine.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(path.read_text())
    assert [c.pair for c in read(tmp_path / "mine.jsonl.gz", system="Be brief.")] == [c.pair for c in found]


def test_bad_rows_of_hh_are_rejected_by_name(tmp_path: Path) -> None:
    """The two shapes that HH-RLHF is known for, as a user sees them from the command line."""
    path = rows(
        tmp_path / "hh.jsonl",
        {"chosen": ASK + GOOD, "rejected": ASK + BAD},
        {"chosen": ASK + GOOD, "rejected": f"{ASK}\n\nAssistant: Hm.\n\nAssistant: Move out."},
        {"chosen": f"{ASK}\n\nAssistant:", "rejected": ASK + BAD},
        {"chosen": ASK + GOOD, "rejected": f"{ASK}\n\nAssistant: "},
        {"chosen": f"\n\nHuman: Hello there!{GOOD}", "rejected": f"\n\nHuman: Hello there!{BAD}"},
    )
    command = [sys.executable, "-m", "ccai", "preferences", str(path), "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:6] == [
        f"{path}:2: different_prompts",
        f"{path}:3: empty",
        f"{path}:4: empty",
        f"{path}: 2 of 5 pairs pass the gates",
        "       1  different_prompts   the two transcripts of a ready-made pair differ before the last answer",
        "       2  empty               the answer or the revision has no letter or digit",
    ]
    assert "tap" not in done.stdout


def test_prompts_near_to_evaluation_are_known(tmp_path: Path) -> None:
    asked = "How do I stop the tap in my kitchen from dripping all night?"
    path = rows(
        tmp_path / "a.jsonl",
        {"prompt": asked.replace("all night", "at night"), "chosen": "Yes.", "rejected": "No."},
        {"prompt": f"\n\nHuman: {asked}\n\nAssistant: When?\n\nHuman: Today.", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "How do I bake bread?", "chosen": "Yes.", "rejected": "No."},
    )
    near = user_files.near(ready_made.prompts(str(path)), [asked], 0.7)
    assert [one.fault for one in read(path, near=near)] == ["evaluation_prompt", "evaluation_prompt", None]
    assert {one.fault for one in read(path)} == {None}


def test_pinned_source_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = gzip.compress((json.dumps({"chosen": ASK + GOOD, "rejected": ASK + BAD}) + "\n").encode(), mtime=0)
    pin = (ROOT / "data/sources/hh-rlhf.yaml").read_text(encoding="utf-8")
    (tmp_path / "data/sources").mkdir(parents=True)
    (tmp_path / "data/public").mkdir()
    text = re.sub("sha256: .*", f"sha256: {hashlib.sha256(data).hexdigest()}", pin)
    (tmp_path / "data/sources/hh-rlhf.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"no such file; fetch it: ccai sources fetch hh-rlhf"):
        list(ready_made.candidates("hh-rlhf"))
    (tmp_path / "data/public/hh-rlhf.jsonl.gz").write_bytes(data)
    [one] = ready_made.candidates("hh-rlhf")
    assert one.source == "hh-rlhf"
    (tmp_path / "data/public/hh-rlhf.jsonl.gz").write_bytes(data + b" ")
    with pytest.raises(UserError, match="not the pinned file"):
        list(ready_made.candidates("hh-rlhf"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a line of JSON in UTF-8"),
        ("[" * 100_000, "not a line of JSON in UTF-8"),
        ("[]", "not a JSON object"),
        ('{"chosen": "a"}', "rejected: no such column; there are chosen"),
        ('{"chosen": "a", "rejected": 5}', "rejected: neither a text nor a list of messages"),
        ('{"chosen": "a", "rejected": [{"role": "bot", "content": "b"}]}', "rejected: not messages with role and"),
        ('{"chosen": "a", "rejected": "\\ud800"}', "not a line of JSON in UTF-8"),
        ('{"chosen": "a", "rejected": "b", "hazard": 3}', "hazard: must be text"),
    ],
)
def test_lines_that_are_no_pair(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "q", "chosen": "a", "rejected": "b"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:3: {message}")


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.jsonl")
    whole = gzip.compress(b"abc" * 999, mtime=0)
    for broken in (whole[:-9], whole[:12] + b"\xff" + whole[13:], b"abc"):
        (tmp_path / "a.jsonl.gz").write_bytes(broken)
        with pytest.raises(UserError, match=r"a\.jsonl\.gz:1: cannot be read"):
            read(tmp_path / "a.jsonl.gz")
    with pytest.raises(UserError, match="no such source"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "content", [b"\n" * 1000, b" " * 1000, b"{" + b"1" * 1000], ids=["blank lines", "a line", "JSON"]
)
def test_what_unpacks_without_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(readers, "UNPACKED_LIMIT", 2**22)
    monkeypatch.setattr(files, "LONGEST_LINE", 2**21)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(content * 5000))
    with pytest.raises(UserError, match=r"bomb\.jsonl\.gz"):
        list(user_files.rows(str(path)))
