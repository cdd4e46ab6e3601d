from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ccai import records
from ccai.show import WHAT, block

ROOT = Path(__file__).parents[1]
WROTE: dict[str, Any] = {
    "finish_reason": "stop",
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "unverified_weights": False,
    "conversation": "c",
    "model": "m",
    "seed": 1,
}
PAIR: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "Question 0?"}],
    "rejected": [{"role": "assistant", "content": "Answer 0."}],
    "chosen": [{"role": "assistant", "content": "Revision 0."}],
    "principle": "mindfulness",
    "round": 1,
    "chosen_tokens": 11,
    "rejected_tokens": 12,
    "chosen_model": "m",
    "rejected_model": "m",
}
TITLES = {
    "prompts": ["prompt"],
    "responses": ["prompt", "first answer"],
    "critiques": ["prompt", "first answer", "critique"],
    "revisions": ["prompt", "first answer", "critique", "revision"],
    "pairs": ["prompt", "first answer", "critique", "revision"],
    "dropped": ["prompt", "first answer", "critique", "revision"],
    "answers": ["prompt", "base (5 tokens)", "base: verdicts", "tuned (5 tokens)", "tuned: verdicts"],
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three prompts on each side and everything that came of them, as the current folder's data."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, kind: type[records.Record], *lines: Mapping[str, Any]) -> None:
        records.write(Path("data") / name, [kind.model_validate(line) for line in lines])

    def prompt(number: int, split: str) -> dict[str, Any]:
        labels = {"source": "s", "source_id": str(number), "persona": "unskilled", "principle": "emptiness"}
        hazard = ("vcr", "hte", "none")[number % 3]
        return {
            "prompt_id": f"p{number}",
            "text": f"Question {number}?",
            "hazard": hazard,
            "split": split,
        } | labels

    def of(number: int, **more: Any) -> dict[str, Any]:
        return {"prompt_id": f"p{number}", **more}

    step = {"principle": "mindfulness", "round": 1, "principle_sha256": "x", "parent": "y"}
    train, held_out = range(3), range(3, 6)
    write("prompts/train.jsonl", records.Prompt, *[prompt(n, "train") for n in train])
    write("prompts/eval.jsonl", records.Prompt, *[prompt(n, "eval") for n in held_out])
    write("responses.jsonl", records.Response, *[of(n, text=f"Answer {n}.", **WROTE) for n in train])
    write("critiques.jsonl", records.Critique, *[of(n, text=f"Critique {n}.", **step, **WROTE) for n in train])
    write("revisions.jsonl", records.Revision, *[of(n, text=f"Revision {n}.", **step, **WROTE) for n in train])
    pairs = [of(n, pair_id=str(n), hazard=prompt(n, "train")["hazard"], **PAIR) for n in train]
    write("pairs/train.jsonl", records.Pair, pairs[0])
    write("pairs/validation.jsonl", records.Pair, pairs[1])
    write("pairs/dropped.jsonl", records.DroppedPair, pairs[2] | {"reason": "unchanged"})
    for arm in ("base", "tuned"):
        verdict = {
            "arm": arm,
            "hazard": "vcr",
            "refusal": "full_refusal",
            "scores": {"care": 0.25},
            "harmful": None,
        }
        answers = [of(n, text=f"{arm} says {n}.", **verdict, **WROTE) for n in held_out]
        write(f"eval/heldout/{arm}.jsonl", records.Answer, *answers)


def command(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(columns)}
    line = [sys.executable, "-m", "ccai.show", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("what", WHAT)
def test_notice_first_then_each_record_under_what_it_came_from(what: str) -> None:
    done = command(what, "-n", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Some of this text is harmful or distressing")
    titles = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert titles == TITLES[what]


def test_pair_shows_texts_in_order() -> None:
    text = command("pairs", "--hazard", "vcr").stdout
    assert "Answer 1." not in text
    places = [text.index(part) for part in ("Question 0?", "Answer 0.", "Critique 0.", "Revision 0.")]
    assert places == sorted(places)
    assert "train, rejected 12 tokens, chosen 11" in " ".join(text.split())


def test_later_rounds_stand_under_the_revision_that_was_criticised() -> None:
    """Also where another principle wrote it."""
    step = {"prompt_id": "p0", "principle_sha256": "x", **WROTE}
    first = records.Revision(text="Revised once.", principle="emptiness", round=1, parent="y", **step)
    again = {"principle": "mindfulness", "round": 2, **step}
    critique = records.Critique(text="Critique again.", parent=first.sha256, **again)
    records.write(Path("data/critiques.jsonl"), [critique])
    records.write(Path("data/revisions.jsonl"), [records.Revision(text="Revised twice.", parent="z", **again), first])
    pair = {"prompt_id": "p0", "pair_id": "0", "hazard": "vcr", **PAIR, "round": 2}
    records.write(Path("data/pairs/train.jsonl"), [records.Pair.model_validate(pair)])
    records.write(Path("data/pairs/validation.jsonl"), [records.Pair.model_validate(pair | {"pair_id": "1"})])
    expected = ["Question 0?", "Answer 0.", "revision of round 1, by emptiness", "Revised once.", "Critique again."]
    for what, last in (("pairs", "Revision 0."), ("critiques", "Critique again.")):
        text = command(what).stdout
        places = [text.index(part) for part in (*expected, last)]
        assert places == sorted(places), text


def test_dropped_says_why_and_answers_say_verdicts() -> None:
    assert "dropped: unchanged" in command("dropped").stdout
    answers = command("answers").stdout
    assert "full_refusal" in answers
    assert "care 0.25" in answers


def test_filters() -> None:
    assert command("responses", "--hazard", "hte").stdout.count("first answer") == 1
    assert command("critiques", "--principle", "mindfulness").stdout.count("first answer") == 3
    done = command("critiques", "--principle", "patience")
    assert done.returncode == 2
    assert done.stderr == "error: --principle patience: no such critiques; there are mindfulness\n"


def test_same_seed_same_sample_another_seed_another() -> None:
    outputs = [command("prompts", "-n", "3", "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0].count("  prompt\n") == 3


def test_lines_fit_the_terminal() -> None:
    assert max(map(len, command("answers", columns=40).stdout.splitlines()[3:])) <= 80  # headings are not wrapped
    wrapped = block("title", "word " * 50 + "\n\nsecond paragraph", 40).splitlines()
    assert max(map(len, wrapped)) <= 40
    assert wrapped[-2:] == ["", "    second paragraph"]


def test_text_cannot_steer_the_terminal() -> None:
    assert block("t", "a\x1b[2Jb\x07c", 80) == "  t\n    a[2Jbc"


def test_missing_file_and_orphans_are_one_line() -> None:
    Path("data/responses.jsonl").write_text(Path("data/responses.jsonl").read_text().split("\n")[0] + "\n")
    done = command("critiques")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "critiques of p1, which an earlier stage no longer has; run dvc repro" in done.stderr
    Path("data/responses.jsonl").unlink()
    assert "data/responses.jsonl: no such file; run the stage" in command("pairs").stderr


def test_needs_no_torch() -> None:
    code = "import ccai.show, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert not {"torch", "transformers", "dvc", "numpy"} & set(json.loads(done.stdout))
