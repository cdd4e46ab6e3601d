from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import again
from helpers.project import Built

from ccai.base import files, records
from ccai.base.terminal import block
from ccai.report.samples import WHAT

ROOT = Path(__file__).parents[1]
TITLES = {
    "prompts": ["prompt"],
    "responses": ["prompt", "first answer"],
    "critiques": ["prompt", "first answer", "critique"],
    "revisions": ["prompt", "first answer", "critique", "revision"],
    "pairs": ["prompt", "first answer", "critique", "revision"],
    "dropped": ["prompt", "first answer", "critique", "revision"],
    "answers": ["prompt", "base", "base: verdicts", "tuned", "tuned: verdicts"],
}


@pytest.fixture(autouse=True)
def data(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the toy run wrote, as the current folder's data."""
    for name in ("prompts", "pairs", "eval", "responses.jsonl", "critiques.jsonl", "revisions.jsonl"):
        source, target = built.project.folder / "data" / name, tmp_path / "data" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    monkeypatch.chdir(tmp_path)


def read(name: str, kind: type[records.AnyRecord]) -> list[records.AnyRecord]:
    return files.read(Path(f"data/{name}.jsonl"), kind)


def command(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(columns)}
    line = [sys.executable, "-m", "ccai", "show", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def printed(what: str, *arguments: str) -> list[str]:
    """All records as they are printed after `N of M WHAT: `, sorted; white space is one space."""
    done = command(what, "-n", "999", *arguments)
    assert done.returncode == 0, done.stderr
    _, *blocks = re.split(r"^\d+ of \d+ \w+: ", done.stdout, flags=re.MULTILINE)
    return sorted(" ".join(block.split()) for block in blocks)


def expected(facts: str, *texts: tuple[str, str]) -> str:
    return " ".join([facts, *(f"{title} {' '.join(text.split())}" for title, text in texts)])


def of_pair(pair: records.Pair, facts: str) -> str:
    """A pair as it has to be printed, of one round."""
    [prompt] = [one for one in read("prompts/train", records.Prompt) if one.prompt_id == pair.prompt_id]
    [answer] = [one for one in read("responses", records.Response) if one.prompt_id == pair.prompt_id]
    [critique] = [
        one
        for one in read("critiques", records.Critique)
        if (one.prompt_id, one.principle) == (pair.prompt_id, pair.principle)
    ]
    return expected(
        f"hazard {pair.hazard}, principle {pair.principle}, {facts}",
        ("prompt", prompt.text),
        ("first answer", answer.text),
        ("critique", critique.text),
        ("revision", pair.chosen[-1].content),
    )


@pytest.mark.parametrize("what", WHAT)
def test_notice_first_then_each_record_under_what_it_came_from(what: str) -> None:
    done = command(what, "-n", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Some of this text is harmful or distressing")
    titles = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert [re.sub(r" \(\d+ tokens.*\)$", "", title) for title in titles] == TITLES[what]


def test_pairs_show_their_texts_in_order() -> None:
    pairs = [(side, pair) for side in ("train", "validation") for pair in read(f"pairs/{side}", records.Pair)]
    assert {side for side, _ in pairs} == {"train", "validation"}
    assert printed("pairs") == sorted(
        of_pair(pair, f"{side}, rejected {pair.rejected_tokens} tokens, chosen {pair.chosen_tokens}")
        for side, pair in pairs
    )
    some = pairs[0][1].hazard
    assert len(printed("pairs", "--hazard", some)) == sum(pair.hazard == some for _, pair in pairs)


def test_later_rounds_stand_under_the_revision_that_was_criticised(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another principle wrote it."""
    changes = {"critiques": {"rounds": 2, "principles": "random"}, "pairs": {"judge": False}}
    project = again.inputs(built, tmp_path / "rounds", changes)
    for name in ("data/prompts", "data/responses.jsonl", "metrics/responses.json"):
        target = project.folder / name
        source = built.project.folder / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    again.run(project, ["critiques", "revisions", "pairs"])
    monkeypatch.chdir(project.folder)
    critiques = {(one.prompt_id, one.round): one for one in read("critiques", records.Critique)}
    revisions = {(one.prompt_id, one.round): one for one in read("revisions", records.Revision)}
    assert any(critiques[name, 1].principle != critiques[name, 2].principle for name, _ in critiques)
    prompts = {one.prompt_id: one.text for one in read("prompts/train", records.Prompt)}
    answers = {one.prompt_id: one.text for one in read("responses", records.Response)}
    criticised = printed("critiques")
    for (name, round), critique in critiques.items():
        before = revisions[name, 1]
        asked = [("prompt", prompts[name]), ("first answer", answers[name])]
        if round == 2:
            asked.append((f"revision of round 1, by {before.principle}", before.text))
        [found] = [one for one in criticised if expected("", *asked, ("critique", critique.text)) in one]
        assert f"principle {critique.principle}, " in found
    kept = read("pairs/train", records.Pair) + read("pairs/validation", records.Pair)
    assert {pair.round for pair in kept} == {2}
    pairs = printed("pairs")
    for pair in kept:
        name, before = pair.prompt_id, revisions[pair.prompt_id, 1]
        texts = [
            ("prompt", prompts[name]),
            ("first answer", answers[name]),
            (f"revision of round 1, by {before.principle}", before.text),
            ("critique", critiques[name, 2].text),
            ("revision", pair.chosen[-1].content),
        ]
        assert any(one.endswith(expected("", *texts)) for one in pairs)


def test_dropped_says_why_and_answers_say_verdicts() -> None:
    dropped = read("pairs/dropped", records.DroppedPair)
    assert printed("dropped") == sorted(of_pair(pair, f"dropped: {pair.reason}") for pair in dropped)
    prompts = {one.prompt_id: one for one in read("prompts/eval", records.Prompt)}
    arms = [read(f"eval/heldout/{arm}", records.Answer) for arm in ("base", "tuned")]
    wanted = []
    for answers in zip(*arms, strict=True):
        prompt = prompts[answers[0].prompt_id]
        texts = [("prompt", prompt.text)]
        for one in answers:
            assert one.harmful is not None
            cut = ", cut there" if one.finish_reason == "length" else ""
            scores = ", ".join(f"{name} {score:.2g}" for name, score in one.scores.items())
            texts.append((f"{one.arm} ({one.completion_tokens} tokens{cut})", one.text))
            texts.append((f"{one.arm}: verdicts", f"{one.refusal}, harmful {one.harmful:.2g} {scores}"))
        facts = f"hazard {prompt.hazard}, principle {prompt.principle}, persona {prompt.persona}"
        wanted.append(expected(facts, *texts))
    assert printed("answers") == sorted(wanted)


def test_filters() -> None:
    hazards = [one.hazard for one in read("prompts/train", records.Prompt)]
    assert len(set(hazards)) > 1
    for hazard in set(hazards):
        assert len(printed("responses", "--hazard", hazard)) == hazards.count(hazard)
    written = [one.principle for one in read("critiques", records.Critique)]
    assert len(printed("critiques", "--principle", written[0])) == written.count(written[0]) < len(written)
    done = command("critiques", "--principle", "patience")
    assert done.returncode == 2
    there = ", ".join(sorted(set(written)))
    assert done.stderr == f"error: --principle patience: no such critiques; there are {there}\n"


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
    responses = read("responses", records.Response)
    gone = next(one for one in responses if one.prompt_id != read("critiques", records.Critique)[0].prompt_id)
    files.write(Path("data/responses.jsonl"), [one for one in responses if one != gone])
    done = command("critiques")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"critiques of {gone.prompt_id}, which an earlier stage no longer has; run dvc repro" in done.stderr
    Path("data/responses.jsonl").unlink()
    assert "data/responses.jsonl: no such file; run the stage" in command("pairs").stderr


def test_needs_no_torch() -> None:
    code = "import ccai.cli.show, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert not {"torch", "transformers", "dvc", "numpy"} & set(json.loads(done.stdout))
