from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccai import constitution, evaluation, params, records
from ccai.errors import UserError
from ccai.records import Critique, DroppedPair, Pair, Prompt, Response, Revision
from ccai.suites import heldout
from ccai.trace import Data, of_metric, trace

ROOT = Path(__file__).parents[1]
OWN = "data/sources/own.jsonl"
TRAIN, SECOND, HELD_OUT = "a1" * 8, "a2" * 8, "b1" * 8
KEPT, DROPPED = "c1" * 8, "d1" * 8
PUBLIC = "id,prompt\nx1,May I borrow your bicycle?\nx2,How do I mend a tyre?\n"


def completion(text: str, seed: int) -> dict[str, Any]:
    return {
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "conversation": f"asked {seed}",
        "model": "model-a",
        "unverified_weights": False,
        "seed": seed,
    }


def prompt(prompt_id: str, text: str, source: str, source_id: str, hazard: str, split: str) -> Prompt:
    labels = {"hazard": hazard, "persona": "unskilled", "principle": "none", "split": split}
    return Prompt.model_validate(
        {"prompt_id": prompt_id, "text": text, "source": source, "source_id": source_id} | labels
    )


def pair(pair_id: str, revision: Revision, response: Response, **more: Any) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "prompt": [{"role": "user", "content": "What is a fair way to share a bicycle?"}],
        "chosen": [{"role": "assistant", "content": revision.text}],
        "rejected": [{"role": "assistant", "content": response.text}],
        "prompt_id": revision.prompt_id,
        "principle": revision.principle,
        "hazard": "everyday",
        "round": revision.round,
        "chosen_tokens": 5,
        "rejected_tokens": 5,
        "chosen_model": "model-a",
        "rejected_model": "model-a",
        "verdict": None,
    } | more


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that comes of three prompts: two rounds of critique and revision, pairs, evaluated answers."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/sources", "data/public", "data/constitutions"):
        Path(folder).mkdir(parents=True)
    path = Path("data/constitutions/contemplative.md")
    shutil.copy(ROOT / path, path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["prompts"]["sources"] = ["own", "public"]
    settings["eval"]["arms"] = ["base", "tuned"]
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    rows = [{"text": "Hello?", "id": "one"}, {"text": "What is a fair way to share a bicycle?", "id": "two"}]
    Path(OWN).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("data/public/public.csv").write_text(PUBLIC)
    pin = yaml.safe_load((ROOT / "data/sources/ailuminate.yaml").read_text(encoding="utf-8"))
    pin |= {
        "file": "public.csv",
        "url": "https://example.org/public.csv",
        "sha256": hashlib.sha256(PUBLIC.encode()).hexdigest(),
        "columns": {"text": "prompt", "id": "id"},
    }
    Path("data/sources/public.yaml").write_text(yaml.safe_dump(pin))

    principles = {p.slug: p.sha256 for p in constitution.load(path).principles}
    slug = next(iter(principles))

    def step(kind: Any, text: str, seed: int, round: int, parent: records.Completion) -> Any:
        fields = {"prompt_id": TRAIN, "principle": slug, "round": round, "principle_sha256": principles[slug]}
        return kind.model_validate(completion(text, seed) | fields | {"parent": parent.sha256})

    response = Response(prompt_id=TRAIN, **completion("First answer.", 11))
    critique = step(Critique, "First critique.", 21, 1, response)
    revision = step(Revision, "First revision.", 31, 1, critique)
    critique_2 = step(Critique, "Second critique.", 22, 2, revision)
    revision_2 = step(Revision, "Second revision.", 32, 2, critique_2)
    judged = {"rejected_violation": 0.75, "chosen_violation": None, "preference": "chosen", "addresses": 0.5}

    own = [prompt(TRAIN, rows[1]["text"], "own", "two", "everyday", "train")]
    records.write(Path("data/prompts/train.jsonl"), [*own, prompt(SECOND, "Hello?", "own", "one", "none", "train")])
    asked = [
        prompt(HELD_OUT, "May I borrow your bicycle?", "public", "x1", "everyday", "eval"),
        prompt("b2" * 8, "How do I mend a tyre?", "public", "x2", "vcr", "eval"),
        prompt("b3" * 8, "A prompt that is in no source any more", "public", "x3", "vcr", "eval"),
    ]
    records.write(Path("data/prompts/eval.jsonl"), asked)
    records.write(Path("data/responses.jsonl"), [response])
    records.write(Path("data/critiques.jsonl"), [critique, critique_2])
    records.write(Path("data/revisions.jsonl"), [revision, revision_2])
    kept = pair(KEPT, revision_2, response, verdict=judged)
    records.write(Path("data/pairs/train.jsonl"), [Pair.model_validate(kept)])
    records.write(Path("data/pairs/validation.jsonl"), [])
    gone = pair(DROPPED, revision, response, reason="meta_talk")
    records.write(Path("data/pairs/dropped.jsonl"), [DroppedPair.model_validate(gone)])

    arms = {}
    for arm, texts in (
        ("base", ["Sure, here is how: take it.", "I can't help with that.", "Yes. Perhaps ask first."]),
        ("tuned", ["I can't help with that.", "Always use a patch. You might ask a friend.", "I'm sorry, but no."]),
    ):
        arms[arm] = [
            heldout.by_rules(one, arm, completion(text, 40 + len(text))).model_copy(
                update={"harmful": 0.1 * len(text) / 3}
            )
            for one, text in zip(asked, texts, strict=True)
        ]
        records.write(Path(f"data/eval/heldout/{arm}.jsonl"), arms[arm])
    comparison = evaluation.Comparison(7, 100)
    measured = heldout.HeldOut(params.load()).measure(arms, comparison, judged=True)
    comparison.adjust()
    about = {"model": "model-a", "revision": "r-base", "adapter": "adapter-1", "seed": 7}
    records.write_json(Path("metrics/eval.json"), about | {"heldout": measured})
    records.write_json(Path("metrics/responses.json"), {"model": "model-a", "revision": "r-answers", "seed": 7})
    counts = {"kept": 1, "dropped": 1, "dropped_by": {"meta_talk": 1, "empty": 0}, "kept_by_principle": {slug: 1}}
    records.write_json(Path("metrics/pairs.json"), {"seed": 7} | counts | {"length_ratio": 1.0})

    def entry(name: str) -> dict[str, str]:
        return {"path": name, "md5": hashlib.md5(Path(name).read_bytes()).hexdigest()}

    lock = {
        "responses": {"deps": [{"path": "ccai/generation.py", "md5": "0"}], "outs": [entry("data/responses.jsonl")]},
        "pairs": {"deps": [entry("data/revisions.jsonl")], "outs": [entry("data/pairs/train.jsonl")]},
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))


def command(name: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "110"}
    return subprocess.run([sys.executable, "-m", "ccai.trace", name], env=environment, capture_output=True, text=True)


def traced(name: str) -> str:
    return "\n".join(f"{part.title}\n{part.text}" for part in trace(name)) + "\n"


def in_order(text: str, *parts: str) -> None:
    places = [text.index(part) for part in parts]
    assert places == sorted(places), places


def test_a_pair_is_traced_to_its_row_through_both_rounds() -> None:
    done = command(KEPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Some of this text is harmful or distressing")
    in_order(
        done.stdout,
        "own, row two",
        f"{OWN}:2",
        f"prompt {TRAIN}: hazard everyday",
        "What is a fair way",
        "first answer: model-a, seed 11",
        "First answer.",
        "critique, round 1",
        "First critique.",
        "revision, round 1",
        "First revision.",
        "critique, round 2",
        "Second critique.",
        "revision, round 2",
        "seed 32",
        "Second revision.",
        f"pair {KEPT}: passed all gates, for train",
        "judge: rejected_violation 0.75",
        "judge: preference chosen",
        "constitution data/constitutions/contemplative.md",
        ": as in the file",
        "responses: model model-a, revision r-answers, seed 7",
        "files, md5 in dvc.lock",
    )
    assert command("c1").stdout == done.stdout


def test_a_dropped_pair_names_its_gate_and_stops_at_its_round() -> None:
    text = traced(DROPPED)
    assert f"pair {DROPPED}: dropped by the gate meta_talk" in text
    assert "First revision." in text and "Second" not in text
    assert "judge: not asked" in text


def test_files_against_the_lock_and_commit() -> None:
    text = traced(KEPT)
    assert re.search(r"data/responses.jsonl  [0-9a-f]{32}\n", text)
    assert "generation.py" not in text
    assert "no git commit here" in text
    assert "prompts: not in dvc.lock" in text
    path = Path("data/responses.jsonl")
    path.write_text(path.read_text().replace('"prompt_tokens": 9', '"prompt_tokens": 8'))
    Path("data/pairs/validation.jsonl").unlink()
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "params.yaml"], check=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    text = traced(KEPT)
    assert re.search(r"data/responses.jsonl  [0-9a-f]{32}  changed since\n", text)
    assert f"git {head}\n" in text
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "\n")
    assert f"git {head}; files that git tracks are changed" in traced(KEPT)


def test_a_constitution_that_changed_since_is_told() -> None:
    path = Path("data/constitutions/contemplative.md")
    text = path.read_text(encoding="utf-8")
    heading = next(line for line in text.splitlines() if line.startswith("## "))
    path.write_text(text.replace(heading, heading + " anew"), encoding="utf-8")
    assert "another wording in the file now" in " ".join(traced(KEPT).split())
    path.write_text(text.replace(heading, "## other: Other"), encoding="utf-8")
    assert "no longer in the file" in " ".join(traced(KEPT).split())


def test_a_prompt_shows_all_that_came_of_it() -> None:
    text = traced(TRAIN)
    in_order(text, "First answer.", "First revision.", "dropped by the gate meta_talk", "Second critique.", "for train")
    assert "Hello?" in traced("a2")
    for stage in ("pairs", "eval"):
        shutil.rmtree(f"data/{stage}")
    Path("data/revisions.jsonl").unlink()
    text = traced(TRAIN)  # as after the stage critiques
    assert "Second critique." in text and "revision" not in text.split("models and seeds")[0]


def test_an_answer_has_its_pin_verdicts_and_adapter() -> None:
    text = traced("b1/tuned")
    in_order(
        text,
        "public, row x1",
        "data/public/public.csv:",
        "https://example.org/public.csv",
        f"sha256 {hashlib.sha256(PUBLIC.encode()).hexdigest()}, CC-BY-4.0",
        "answer, tuned: model-a, seed 63",
        "I can't help with that.",
        "rules: full_refusal, declining 1",
        "judge: harmful 0.77",
        "adapter adapter-1",
    )
    assert "here is how" in traced("b1/base")
    assert "here is how" in traced("b1") and "I can't help" in traced("b1")
    assert "no such row now" in traced("b3/base")
    Path("data/public/public.csv").unlink()
    text = traced("b1/tuned")
    assert "no such file; fetch it" in text and "https://example.org/public.csv" in text


def test_every_figure_of_eval_is_the_mean_of_the_answers_named() -> None:
    found = json.loads(Path("metrics/eval.json").read_text())
    data, measures = Data(), list(evaluation.measures(found["heldout"]))
    assert len(measures) == len(heldout.MEASURES)
    for names, measured in measures:
        key = ".".join(("heldout", *names))
        title = of_metric(data, f"metrics/eval.json:{key}")[1].title
        expected = "  ".join(f"{arm} {measured[arm]['mean']:.5g}" for arm in ("base", "tuned"))
        assert title == f"{measured['n']} prompts; means of the answers as they are now: {expected}", key
    text = traced("metrics/eval.json:heldout.refusal.harmless_refused.tuned.mean")
    assert f"{HELD_OUT}  base 0  tuned 1  everyday" in text
    assert "model model-a, revision r-base, adapter adapter-1, seed 7" in text


def test_counts_of_pairs_name_the_pairs() -> None:
    text = traced("metrics/pairs.json:dropped_by.meta_talk")
    assert "1 pairs as they are now" in text and DROPPED in text and KEPT not in text
    assert "0 pairs as they are now" in traced("metrics/pairs.json:dropped_by.empty")
    assert KEPT in traced("metrics/pairs.json:kept_by_principle")
    assert "pairs as they are now" not in traced("metrics/pairs.json:length_ratio")
    assert "r-answers" in traced("metrics/responses.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zz", "zz: no pair and no prompt has an id that begins so"),
        ("", "no pair and no prompt"),
        ("a", f"a: 2 ids begin so: {TRAIN}, {SECOND}; give more of it"),
        ("c1/base", "c1: is a pair; an answer is named by its prompt and arm"),
        ("b1/other", "no such arm; there are base, tuned"),
        ("a1/base", "only held-out prompts are evaluated"),
        ("metrics/none.json:a", "metrics/none.json: no such file"),
        ("metrics/eval.json:heldout.safety.x", "metrics/eval.json:heldout.safety.x: no key x; there are: declining"),
        ("metrics/pairs.json:kept.x", "no key x; there are: none, it is a figure"),
    ],
)
def test_what_is_unknown_or_ambiguous_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        trace(name)


def test_a_pair_whose_parents_are_gone_is_one_line() -> None:
    path = Path("data/critiques.jsonl")
    path.write_text(path.read_text().replace("First critique.", "Another critique."))
    done = command(KEPT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{KEPT}: what this pair was made from is no longer in data" in done.stderr


def test_nothing_there_yet_is_one_line() -> None:
    shutil.rmtree("data/prompts")
    shutil.rmtree("data/pairs")
    with pytest.raises(UserError, match="data: no prompts and no pairs yet; run dvc repro"):
        trace("a1")
