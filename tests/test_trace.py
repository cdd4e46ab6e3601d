from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from helpers import again
from helpers.project import Built

from ccai.base.errors import UserError
from ccai.base.files import read
from ccai.base.records import Answer, AnyRecord, Critique, DroppedPair, Pair, Prompt, Response, Revision
from ccai.evaluate import comparison
from ccai.evaluate.suites import heldout
from ccai.report.trace import SHOWN, RunRecords, of_metric, trace

ROOT = Path(__file__).parents[1]
OWN, PUBLIC = Path("data/sources/own.jsonl"), Path("data/public/public.csv")
ROWS = (
    {"id": "bicycle", "text": "What is a fair way to share a bicycle?", "hazard": "everyday"},
    {"id": "friend", "text": "What do I say to a friend who is late?", "hazard": "none"},
    {"id": "bread", "text": "Why does bread rise in a warm kitchen?", "hazard": "everyday"},
)
TABLE = """\
id,prompt,hazard
x1,How do I mend a tyre?,none
x2,May I borrow your ladder on Sunday?,everyday
x3,How long may soup stand on the stove?,everyday
x4,How does a lock pick work?,vcr
"""
LINK = "https://example.org/public.csv"
Written = TypeVar("Written", Response, Critique, Revision, Answer)


@pytest.fixture(scope="module")
def made(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages leave of prompts from a user's file and a pinned one: two rounds of critique and revision, pairs
    that a judge read, and evaluated answers; the adapter is the toy run's."""
    folder = tmp_path_factory.mktemp("trace") / "project"
    changes = {
        "prompts": {"sources": ["own", "public"], "train": 0, "eval": 0, "eval_share": 0.5},
        "critiques": {"rounds": 2},
        "revisions": {"max_new_tokens": 8},  # some are cut there, and their pairs dropped
        "eval": {"arms": ["base", "tuned"], "suites": ["heldout"]},
    }
    project = again.inputs(built, folder, changes)
    shutil.copytree(built.project.folder / "models", folder / "models")
    (folder / OWN).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / PUBLIC).parent.mkdir()
    (folder / PUBLIC).write_text(TABLE)
    pin = yaml.safe_load((ROOT / "data/sources/ailuminate.yaml").read_text(encoding="utf-8"))
    pin |= {
        "file": "public.csv",
        "url": LINK,
        "sha256": hashlib.sha256(TABLE.encode()).hexdigest(),
        "columns": {"text": "prompt", "id": "id", "hazard": "hazard"},
    }
    (folder / "data/sources/public.yaml").write_text(yaml.safe_dump(pin))
    again.run(project, ["prompts", "responses", "critiques", "revisions", "pairs", "eval"])
    return folder


@pytest.fixture(autouse=True)
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it, to change."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")


def sides(kind: type[AnyRecord], folder: str, *names: str) -> list[AnyRecord]:
    return [record for name in names for record in read(Path(f"data/{folder}/{name}.jsonl"), kind)]


def kept() -> Pair:
    """A pair that passed the gates, of two rounds."""
    return next(pair for pair in sides(Pair, "pairs", "train", "validation") if pair.round == 2)


def dropped() -> DroppedPair:
    return sides(DroppedPair, "pairs", "dropped")[0]


def chain(pair: Pair) -> tuple[Response, list[Critique], list[Revision]]:
    """What a pair was made from, both rounds in order."""

    def of(name: str, kind: type[Written]) -> list[Written]:
        found = [one for one in read(Path(f"data/{name}.jsonl"), kind) if one.prompt_id == pair.prompt_id]
        return sorted(
            (one for one in found if isinstance(one, Response) or getattr(one, "principle", None) == pair.principle),
            key=lambda one: getattr(one, "round", 0),
        )

    [response] = of("responses", Response)
    return response, of("critiques", Critique), of("revisions", Revision)


def prompts(side: str) -> list[Prompt]:
    return sides(Prompt, "prompts", side)


def held_out(source: str) -> Prompt:
    return next(prompt for prompt in prompts("eval") if prompt.source == source)


def answer(prompt: Prompt, arm: str) -> Answer:
    return next(one for one in sides(Answer, "eval/heldout", arm) if one.prompt_id == prompt.prompt_id)


def metrics(stage: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(f"metrics/{stage}.json").read_text())
    return found


def command(name: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "110"}
    return subprocess.run(
        [sys.executable, "-m", "ccai", "trace", name], env=environment, capture_output=True, text=True
    )


def traced(name: str) -> str:
    return "\n".join(f"{part.title}\n{part.text}" for part in trace(name)) + "\n"


def in_order(text: str, parts: Iterable[str]) -> None:
    at = 0
    for part in parts:
        at = text.index(part, at) + len(part)


def test_a_pair_is_traced_to_its_row_through_both_rounds() -> None:
    pair = kept()
    response, critiques, revisions = chain(pair)
    prompt = next(one for one in prompts("train") if one.prompt_id == pair.prompt_id)
    source = OWN if prompt.source == "own" else PUBLIC
    place = next(at for at, line in enumerate(source.read_text().splitlines(), 1) if prompt.text in line)
    side = "train" if pair in sides(Pair, "pairs", "train") else "validation"
    assert pair.verdict is not None
    rounds = [
        part
        for critique, revision in zip(critiques, revisions, strict=True)
        for part in (
            f"critique, round {critique.round}, by {pair.principle}: {critique.model}, seed {critique.seed}",
            critique.text,
            f"revision, round {revision.round}, by {pair.principle}: {revision.model}, seed {revision.seed}",
            revision.text,
        )
    ]
    assert len(rounds) == 8
    about = metrics("responses")
    in_order(
        traced(pair.pair_id),
        [
            f"{prompt.source}, row {prompt.source_id}",
            f"{source}:{place}",
            f"prompt {prompt.prompt_id}: hazard {prompt.hazard}",
            prompt.text,
            f"first answer: {response.model}, seed {response.seed}",
            response.text,
            *rounds,
            f"pair {pair.pair_id}: passed all gates, for {side}",
            f"judge: rejected_violation {pair.verdict.rejected_violation}",
            f"judge: preference {pair.verdict.preference}",
            "constitution data/constitutions/contemplative.md",
            ": as in the file",
            f"responses: model {about['model']}, revision {about['revision']}",
            f"seed {about['seed']}",
            "files, md5 in dvc.lock",
        ],
    )
    done = command(pair.pair_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Some of this text is harmful or distressing")
    assert command(pair.pair_id[:12]).stdout == done.stdout


def test_a_dropped_pair_names_its_gate() -> None:
    pair = dropped()
    assert f"pair {pair.pair_id}: dropped by the gate {pair.reason}" in traced(pair.pair_id)


def test_without_a_judge_a_pair_says_that_none_was_asked(unjudged: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unjudged.project.folder)
    assert "judge: not asked" in traced(kept_once().pair_id)


def kept_once() -> Pair:
    return sides(Pair, "pairs", "train")[0]


def test_files_against_the_lock_and_commit(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = built.project.copy(tmp_path / "finished")
    monkeypatch.chdir(project.folder)
    name = kept_once().pair_id
    text = traced(name)
    outs = project.outs()
    for path in ("data/responses.jsonl", "data/critiques.jsonl", "data/revisions.jsonl"):
        assert f"{path}  {outs[path]}\n" in text
    assert "generation.py" not in text
    assert f"git {project.git('rev-parse', 'HEAD').strip()}\n" in text
    change(Path("data/responses.jsonl"), '"prompt_tokens": ', '"prompt_tokens": 1')
    Path("data/pairs/validation.jsonl").unlink()
    assert f"data/responses.jsonl  {outs['data/responses.jsonl']}  changed since\n" in traced(name)
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "\n")
    assert "; files that git tracks are changed" in traced(name)
    Path("dvc.lock").unlink()
    shutil.rmtree(".git")
    assert "no git commit here" in traced(name)
    assert "prompts: not in dvc.lock" in traced(name)


def change(path: Path, old: str, new: str) -> None:
    """Replace a text; the file may be a link into DVC's cache."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_constitution_that_changed_since_is_told() -> None:
    path, name = Path("data/constitutions/contemplative.md"), kept().pair_id
    text = path.read_text(encoding="utf-8")
    heading = next(line for line in text.splitlines() if line.startswith(f"## {kept().principle}: "))
    path.write_text(text.replace(heading, heading + " anew"), encoding="utf-8")
    assert "another wording in the file now" in " ".join(traced(name).split())
    path.write_text(text.replace(heading, "## other: Other"), encoding="utf-8")
    assert "no longer in the file" in " ".join(traced(name).split())


def test_a_prompt_shows_all_that_came_of_it() -> None:
    pair = kept()
    response, critiques, revisions = chain(pair)
    text = traced(pair.prompt_id)
    in_order(text, [response.text, critiques[0].text, revisions[0].text])
    in_order(text, [critiques[1].text, revisions[1].text, f"pair {pair.pair_id}: passed all gates"])
    gone = dropped()
    assert f"pair {gone.pair_id}: dropped by the gate {gone.reason}" in traced(gone.prompt_id)
    for stage in ("pairs", "eval"):
        shutil.rmtree(f"data/{stage}")
    Path("data/revisions.jsonl").unlink()
    text = traced(pair.prompt_id)  # as after the stage critiques
    assert critiques[1].text in text and "revision" not in text.split("models and seeds")[0]


def test_an_answer_has_its_pin_verdicts_and_adapter() -> None:
    prompt = held_out("public")
    base, tuned = (answer(prompt, arm) for arm in ("base", "tuned"))
    assert base.text != tuned.text
    assert tuned.harmful is not None
    text = traced(f"{prompt.prompt_id}/tuned")
    in_order(
        text,
        [
            f"public, row {prompt.source_id}",
            f"{PUBLIC}:",
            LINK,
            f"sha256 {hashlib.sha256(TABLE.encode()).hexdigest()}, CC-BY-4.0",
            f"answer, tuned: {tuned.model}, seed {tuned.seed}",
            tuned.text,
            f"rules: {tuned.refusal}, declining {tuned.scores['declining']:.2g}",
            f"judge: harmful {tuned.harmful:.2g}",
            f"adapter {metrics('eval')['adapter']}",
        ],
    )
    assert base.text in traced(f"{prompt.prompt_id}/base")
    both = traced(prompt.prompt_id)
    assert base.text in both and tuned.text in both
    own = held_out("own")
    change(OWN, own.text, "A prompt that stands there instead")
    assert "no such row now" in traced(f"{own.prompt_id}/base")
    PUBLIC.unlink()
    text = traced(f"{prompt.prompt_id}/tuned")
    assert "no such file; fetch it" in text and LINK in text


def test_every_figure_of_eval_is_the_mean_of_the_answers_named() -> None:
    found = json.loads(Path("metrics/eval.json").read_text())
    data, measures = RunRecords(), list(comparison.measures(found["heldout"]))
    assert len(measures) == len(heldout.MEASURES)
    for names, measured in measures:
        key = ".".join(("heldout", *names))
        title = of_metric(data, f"metrics/eval.json:{key}")[1].title
        raw = measured.get("raw", {arm: measured[arm]["mean"] for arm in ("base", "tuned") if measured["n"]})
        expected = "  ".join(f"{arm} {raw[arm]:.5g}" for arm in ("base", "tuned")) if measured["n"] else "none"
        of = "verdicts as they are now, before their correction" if names[0] == "judge" else "answers as they are now"
        assert ("raw" in measured) == (names[0] == "judge")
        assert title == f"{measured['n']} prompts; means of the {of}: {expected}", key
    prompt = held_out("own")
    text = traced("metrics/eval.json:heldout.length.tokens.tuned.mean")
    tokens = [answer(prompt, arm).completion_tokens for arm in ("base", "tuned")]
    assert "{}  base {}  tuned {}  everyday".format(prompt.prompt_id, *tokens) in text
    about = ", ".join(f"{name} {found[name]}" for name in ("model", "revision", "adapter"))
    assert about in text and f"seed {found['seed']}" in text


def test_counts_of_pairs_name_the_pairs() -> None:
    found = json.loads(Path("metrics/pairs.json").read_text())
    pair, gone = kept(), dropped()
    assert 0 in found["dropped_by"].values()
    for gate, count in found["dropped_by"].items():
        assert f"{count} pairs as they are now" in traced(f"metrics/pairs.json:dropped_by.{gate}")
    for label, value in (("principle", pair.principle), ("hazard", pair.hazard)):
        text = traced(f"metrics/pairs.json:kept_by_{label}.{value}")
        assert f"{found[f'kept_by_{label}'][value]} pairs as they are now" in text
        assert pair.pair_id in text and gone.pair_id not in text
    text = traced(f"metrics/pairs.json:dropped_by.{gone.reason}")
    assert gone.pair_id in text and pair.pair_id not in text
    assert "pairs as they are now" not in traced("metrics/pairs.json:length_ratio")
    assert str(metrics("responses")["revision"]) in traced("metrics/responses.json")


def test_what_is_unknown_or_ambiguous_is_one_line() -> None:
    data = RunRecords()
    begun = defaultdict(list)
    for name in sorted([*data.prompts, *(one.pair.pair_id for one in data.pairs)]):
        begun[name[0]].append(name)
    start, ids = max(begun.items(), key=lambda item: len(item[1]))
    assert len(ids) > 1
    held, trained = held_out("own").prompt_id, kept().prompt_id
    families = metrics("eval")["heldout"]
    assert isinstance(families, dict)
    for name, message in (
        ("zz", "zz: no pair and no prompt has an id that begins with this"),
        ("", "no pair and no prompt"),
        (start, f"{start}: {len(ids)} ids begin with this: {', '.join(ids[:SHOWN])}"),
        (f"{kept().pair_id}/base", f"{kept().pair_id}: is a pair; an answer is named by its prompt and arm"),
        (f"{held}/other", "no such arm; there are base, tuned"),
        (f"{trained}/base", "only held-out prompts are evaluated"),
        ("metrics/none.json:a", "metrics/none.json: no such file"),
        (
            "metrics/eval.json:heldout.safety.x",
            f"metrics/eval.json:heldout.safety.x: no key x; there are: {', '.join(families['safety'])}",
        ),
        ("metrics/pairs.json:kept.x", "no key x; there are: none, it is a figure"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            trace(name)


def test_a_pair_whose_parents_are_gone_is_one_line() -> None:
    pair = kept()
    change(Path("data/critiques.jsonl"), json.dumps(chain(pair)[1][0].text), '"Another critique."')
    done = command(pair.pair_id)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{pair.pair_id}: what this pair was made from is no longer in data" in done.stderr


def test_nothing_there_yet_is_one_line() -> None:
    shutil.rmtree("data/prompts")
    shutil.rmtree("data/pairs")
    with pytest.raises(UserError, match="data: no prompts and no pairs yet; run dvc repro"):
        trace("a1")
