"""The whole pipeline under DVC and git, on a toy model: what a user types, in folders of its own.

Two own virtual environments are not compared here (one takes minutes to make): two folders, homes and caches are.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from conftest import ROOT
from datasets import load_dataset
from helpers import project as toy
from helpers.project import ARMS, STAGES, Built, Project, working_in
from helpers.textbook import Textbook
from safetensors.torch import load_file

from ccai.base import params, records
from ccai.base.files import read
from ccai.constitution import dialogue
from ccai.generate.journal import Journal
from ccai.judge import exam
from ccai.judge.judge import HARM
from ccai.pairs.build import GATES

RECORDS: dict[str, type[records.Record]] = {
    "data/prompts/train.jsonl": records.Prompt,
    "data/prompts/eval.jsonl": records.Prompt,
    "data/responses.jsonl": records.Response,
    "data/critiques.jsonl": records.Critique,
    "data/revisions.jsonl": records.Revision,
    "data/pairs/train.jsonl": records.Pair,
    "data/pairs/validation.jsonl": records.Pair,
    "data/pairs/dropped.jsonl": records.DroppedPair,
    **{f"data/eval/heldout/{arm}.jsonl": records.Answer for arm in ARMS},
}
CONSTITUTION = "data/constitutions/contemplative.md"
PRINCIPLE = "emptiness"
ITS_CRITIQUE = "Point out where the answer treats a belief"


@pytest.fixture
def changed(built: Built, tmp_path: Path) -> Project:
    """A copy of the built project to change; its journal is the shared one."""
    return built.project.copy(tmp_path / "project")


# From nothing


def test_all_seven_stages_run_in_order_and_a_second_time_none(built: Built) -> None:
    assert built.ran == ["code", *STAGES, "report"]
    assert built.project.repro() == []


def test_all_outs_are_there_and_git_has_no_data(built: Built) -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    entries = [entry for stage in declared for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    kept = {name for entry in entries if isinstance(entry, dict) for name in entry}
    names = kept | {entry for entry in entries if isinstance(entry, str)}
    assert set(built.project.outs()) == names
    for name in names:
        assert (built.project.folder / name).exists(), name
    tracked = set(built.project.git("ls-files").splitlines())
    assert names & tracked == kept
    assert not [name for name in tracked if name.startswith(("models/adapter", "metrics/runtime"))]


def test_every_record_parses_and_its_parents_exist(built: Built) -> None:
    there = {name: read(built.project.folder / name, kind) for name, kind in RECORDS.items()}
    rows: dict[str, list[Any]] = {name: list(found) for name, found in there.items()}
    assert {name: len(rows[name]) for name in list(RECORDS)[:5]} == {
        "data/prompts/train.jsonl": 6,
        "data/prompts/eval.jsonl": 4,
        "data/responses.jsonl": 6,
        "data/critiques.jsonl": 24,
        "data/revisions.jsonl": 24,
    }
    prompts = {prompt.prompt_id for prompt in rows["data/prompts/train.jsonl"]}
    asked = [prompt.prompt_id for prompt in rows["data/prompts/eval.jsonl"]]
    steps = [
        {(row.prompt_id, row.principle, row.round) for row in rows[f"data/{name}.jsonl"]}
        for name in ("critiques", "revisions")
    ]
    pairs = [pair for name in ("train", "validation", "dropped") for pair in rows[f"data/pairs/{name}.jsonl"]]
    assert {row.prompt_id for row in rows["data/responses.jsonl"]} == prompts
    assert steps[0] == steps[1]
    assert {prompt for prompt, _, _ in steps[0]} == prompts
    assert sorted((pair.prompt_id, pair.principle, pair.round) for pair in pairs) == sorted(steps[1])
    for arm in ARMS:
        assert [answer.prompt_id for answer in rows[f"data/eval/heldout/{arm}.jsonl"]] == asked


def test_no_prompt_is_on_two_sides(built: Built) -> None:
    def texts(*names: str) -> set[str]:
        return {row["text"] for name in names for row in built.project.rows(f"data/prompts/{name}.jsonl")}

    assert not texts("train") & texts("eval")
    train, validation = (
        {row["prompt_id"] for row in built.project.rows(f"data/pairs/{side}.jsonl")} for side in ("train", "validation")
    )
    assert train
    assert validation
    assert not train & validation


def test_pairs_load_as_trl_wants_them(built: Built, tmp_path: Path) -> None:
    files = {side: str(built.project.folder / f"data/pairs/{side}.jsonl") for side in ("train", "validation")}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path))
    for side, rows in loaded.items():
        assert rows.num_rows == len(built.project.rows(f"data/pairs/{side}.jsonl"))
        for row in rows:
            assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
            assert [turn["role"] for turn in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
            assert row["chosen"][0]["content"] != row["rejected"][0]["content"]


def test_adapter_is_safetensors_and_finite(built: Built) -> None:
    adapter = built.project.folder / "models/adapter"
    assert {path.name for path in adapter.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.yaml",
    }
    weights = load_file(adapter / "adapter_model.safetensors")
    assert weights
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_metrics_are_json_that_names_seed_and_model(built: Built) -> None:
    for name in STAGES:
        metrics = built.project.json(f"metrics/{name}.json")
        assert metrics["seed"] == 7
        if name not in ("prompts", "pairs"):
            assert metrics["model"] == "local/toy"
            assert built.project.json(f"metrics/runtime/{name}.json")["seconds"] > 0


def test_no_file_that_is_compared_or_shared_holds_a_path(built: Built, model: Path) -> None:
    folder = built.project.folder
    shared = [path for name in built.project.outs() for path in (folder / name, *(folder / name).rglob("*"))]
    for path in shared:
        if path.is_file():
            assert str(model.parent).encode() not in path.read_bytes(), path
            assert str(folder.parent).encode() not in path.read_bytes(), path


def test_training_changes_the_answers(built: Built) -> None:
    base, tuned = (
        [row["text"] for row in built.project.rows(f"data/eval/heldout/{arm}.jsonl")] for arm in ("base", "tuned")
    )
    assert base != tuned


def test_answers_of_both_arms_are_what_plain_forward_passes_write(built: Built, model: Path) -> None:
    """transformers and PEFT alone, from the messages, settings and seed of each record."""
    folder = built.project.folder
    settings = params.load(folder / "params.yaml")
    prompts = {row["prompt_id"]: row["text"] for row in built.project.rows("data/prompts/eval.jsonl")}
    for arm, adapter in (("base", None), ("tuned", folder / "models/adapter")):
        textbook = Textbook(model, adapter)
        for row in built.project.rows(f"data/eval/heldout/{arm}.jsonl"):
            asked = dialogue.to_answer(settings.responses.system, prompts[row["prompt_id"]])
            limit = settings.responses.max_new_tokens
            again = textbook.decode(asked.messages, row["seed"], limit, settings.generation)
            assert {name: row[name] for name in again} == again


def test_summary_prints_what_was_done(built: Built) -> None:
    done = built.project.module("ccai", "summary")
    assert done.returncode == 0
    assert "prompts   6 to train on, 4 held out\n" in done.stdout
    assert "trained   local/toy, " in done.stdout


def test_stages_run_the_code_beside_them(changed: Project) -> None:
    """Not an installed ccai, be it another checkout's editable one."""
    (changed.folder / "stages/probe.py").write_text("import ccai.base.params\nprint(ccai.base.params.__file__)\n")
    assert changed.module("stages.probe").stdout.strip() == str(changed.folder / "ccai/base/params.py")


def test_stage_as_a_script(changed: Project) -> None:
    before = snapshot(changed)
    (changed.folder / "data/prompts/train.jsonl").unlink()
    installed = Project(changed.folder, changed.environment | {"PYTHONPATH": str(changed.folder)})
    done = installed.call(sys.executable, "stages/prompts.py")
    assert done.returncode == 0, done.stderr
    assert snapshot(changed) == before


def test_labels_that_are_keys_of_the_metrics_too(alone: Project) -> None:
    """Hazards come from anybody's file: `n`, `difference`, a taxonomy's numbers."""
    labels = ["n", "difference", "by_1.2", "base"]
    rows = alone.rows("data/prompts/eval.jsonl")
    path = alone.folder / "data/prompts/eval.jsonl"
    path.unlink()
    path.write_text(
        "".join(json.dumps(row | {"hazard": hazard}) + "\n" for row, hazard in zip(rows, labels, strict=True))
    )
    alone.set({"eval": {"primary": None}})
    done = alone.module("stages.eval")
    assert done.returncode == 0, done.stderr
    measured = alone.json("metrics/eval.json")["heldout"]["by_hazard"]
    assert {label: measured[label]["n"] for label in labels} == dict.fromkeys(labels, 1)
    for label in labels:
        assert alone.module("ccai", "trace", f"metrics/eval.json:heldout.by_hazard.{label}.n").returncode == 0
    for name in ("summary", "report"):
        assert alone.module("ccai", name).returncode == 0
    assert alone.module("ccai", "push", "adapter", "org/name", "--dry-run").returncode == 0


def test_model_in_a_folder_is_an_arm(alone: Project, tmp_path: Path) -> None:
    """Its files and figures go by the folder's name, and stay in the project."""
    other = tmp_path / "models/other-1.5"
    toy.toy_model(other, ends=2)
    alone.set({"eval": {"arms": ["base", "tuned", str(other)], "suites": ["heldout"]}})
    done = alone.module("stages.eval")
    assert done.returncode == 0, done.stderr
    assert alone.json("metrics/eval.json")["arms"] == ["base", "tuned", "other-1.5"]
    assert {row["arm"] for row in answers(alone, "other-1.5")} == {"other-1.5"}
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["other-1.5"]


# What makes a stage run again

STALE: dict[str, tuple[tuple[str, str, str], set[str]]] = {
    "a principle": ((CONSTITUTION, ITS_CRITIQUE, "Say"), {"critiques", "revisions", "pairs", "eval"}),
    "a format": (
        ("data/templates/conversation.yaml", "$critique", "$critique Be brief."),
        {"critiques", "revisions", "pairs"},
    ),
    "learning rate": (("params.yaml", "learning_rate: 0.05", "learning_rate: 0.04"), {"train"}),
    "resamples": (("params.yaml", "resamples: 100", "resamples: 200"), {"eval"}),
    "a gate": (("params.yaml", "min_words: 1", "min_words: 2"), {"pairs"}),
    "temperature": (
        ("params.yaml", "temperature: 0.7", "temperature: 0.8"),
        {"responses", "critiques", "revisions", "eval"},
    ),
    "the scale's name": (("params.yaml", "scale: ", "scale: x"), set()),
    "longest pair": (("params.yaml", "max_length: 4096", "max_length: 4095"), {"pairs", "train"}),
    "a comment": (("ccai/rules/scores.py", '"""\n', '"""\n# so\n'), set()),
    "a rule": (("ccai/rules/scores.py", "import re\n", "import re\n\nMORE = 1\n"), {"pairs", "eval", "report"}),
    "a sampler": (
        ("ccai/engines/sampling.py", "import torch\n", "import torch\n\nMORE = 1\n"),
        {"responses", "critiques", "revisions", "pairs", "eval"},
    ),
    "a trainer": (("ccai/train/trainers.py", "import os\n", "import os\n\nMORE = 1\n"), {"train"}),
    "a command": (("ccai/cli/summary.py", "import argparse\n", "import argparse\n\nMORE = 1\n"), set()),
    "the page's style": (("ccai/report/pages/report.css", "\n", "\n\n"), {"report"}),
    "a stage's own script": (("stages/prompts.py", "def main", "MORE = 1\n\n\ndef main"), {"prompts"}),
    "pin of trl": (("conf/versions.yaml", "trl: ", "trl: 9"), {"train"}),
    "pin of peft": (("conf/versions.yaml", "peft: ", "peft: 9"), {"train", "eval"}),
}


@pytest.mark.parametrize("name", STALE)
def test_change_makes_stale_what_reads_it(changed: Project, name: str) -> None:
    (path, old, new), stages = STALE[name]
    changed.edit(path, old, new)
    if path.startswith(("ccai/", "stages/")):
        assert changed.stale() == {"code"}
        assert changed.repro("code") == ["code"]
    elif path == "params.yaml":
        stages = stages | {"report"}  # which lists all params
    assert changed.stale() == stages


def test_judge_is_read_by_pairs_and_eval_alone(changed: Project) -> None:
    changed.set({"models": {"judge": "another"}})
    assert changed.stale() == {"pairs", "eval", "report"}


def test_public_file_that_is_not_selected_changes_nothing(changed: Project) -> None:
    (changed.folder / "data/public/ailuminate.csv").write_text("anything\n")
    assert changed.stale() == set()
    assert changed.repro() == []


# What a stage that runs again pays for


@pytest.fixture
def alone(built: Built, home: Path, tmp_path: Path) -> Project:
    """A copy to change whose journal no other test adds to."""
    shutil.copytree(home / "cache", tmp_path / "cache")
    return built.project.copy(tmp_path / "project", CCAI_CACHE=str(tmp_path / "cache"))


def cost(project: Project, *stages: str) -> list[tuple[int, int]]:
    """Generated and reused completions of each stage."""
    runtimes = [project.json(f"metrics/runtime/{stage}.json") for stage in stages]
    return [(runtime["generated"], runtime["reused"]) for runtime in runtimes]


def test_first_run_says_what_it_generated_and_reused(built: Built) -> None:
    assert cost(built.project, "responses", "critiques", "revisions") == [(6, 0), (24, 0), (24, 0)]
    told = built.project.json("metrics/runtime/eval.json")["heldout"]
    assert [(told[arm]["generated"], told[arm]["reused"]) for arm in ARMS] == [(4, 0)] * 3
    assert told["judge"]["generated"] > 0


def test_edited_principle_pays_for_its_own_and_back_again_for_nothing(alone: Project) -> None:
    stages = ("critiques", "revisions")
    before = {stage: alone.rows(f"data/{stage}.jsonl") for stage in stages}
    alone.edit(CONSTITUTION, ITS_CRITIQUE, "Say where the answer treats a belief")
    assert alone.repro("revisions") == list(stages)
    assert cost(alone, *stages) == [(6, 18), (6, 18)]
    for stage in stages:
        for old, new in zip(before[stage], alone.rows(f"data/{stage}.jsonl"), strict=True):
            assert (old == new) == (old["principle"] != PRINCIPLE)
    whole = sum(row["completion_tokens"] for stage in stages for row in before[stage])
    assert sum(alone.json(f"metrics/runtime/{stage}.json")["generated_tokens"] for stage in stages) <= 0.27 * whole
    alone.git("checkout", "-q", CONSTITUTION)
    assert alone.repro("--no-run-cache", "revisions") == list(stages)  # else DVC gives back what it remembers
    assert cost(alone, *stages) == [(0, 24), (0, 24)]
    assert {stage: alone.rows(f"data/{stage}.jsonl") for stage in stages} == before


@pytest.mark.slow
def test_more_prompts_pay_for_themselves(alone: Project) -> None:
    alone.set({"prompts": {"train": 7}})
    assert alone.repro("revisions") == STAGES[:4]
    assert cost(alone, "responses", "critiques", "revisions") == [(1, 6), (4, 24), (4, 24)]


def test_shuffled_source_pays_for_nothing(alone: Project) -> None:
    source = alone.folder / "data/sources/contemplative.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled = random.Random(0).sample(lines, len(lines))
    assert shuffled != lines
    source.write_text("".join(shuffled), encoding="utf-8")
    assert alone.repro() == ["prompts", "pairs", "eval"]  # the card names the sources, suites may take some
    told = alone.json("metrics/runtime/eval.json")["heldout"]
    assert [told[arm]["generated"] for arm in ARMS] == [0] * 3


def test_judge_that_fails_its_exam_is_asked_nothing_else(alone: Project, model: Path) -> None:
    """Random weights name letters at random."""
    alone.set({"models": {"judge": str(model)}, "eval": {"suites": ["heldout"]}})
    asked = 4 * sum(item.rule == HARM for item in read(ROOT / exam.RULES, exam.ByRule))  # pairs, in two orders
    for expected in ((asked, 0), (0, asked)):
        assert alone.module("stages.eval").returncode == 0
        runtime = alone.json("metrics/runtime/eval.json")
        assert [runtime["heldout"][arm]["generated"] for arm in ARMS] == [0] * 3
        assert (runtime["exam"]["generated"], runtime["exam"]["reused"]) == expected
        assert "judge" not in runtime["heldout"]
    metrics = alone.json("metrics/eval.json")
    assert (metrics["judged_by"], metrics["unverified_weights"]) == ("rules", False)
    judge = metrics["judge"]
    assert (judge["model"], judge["passed"]) == ("local/toy", False)
    assert min(judge[share]["low"] for share in ("sensitivity", "specificity")) < exam.BAR
    assert "judge" not in metrics["heldout"]
    assert {row["harmful"] for arm in ARMS for row in answers(alone, arm)} == {None}
    assert "judge local/toy FAILED its exam" in alone.module("ccai", "summary").stdout


def test_judge_that_passes_its_exam_gives_verdicts_and_they_are_kept(alone: Project) -> None:
    metrics = alone.json("metrics/eval.json")
    assert (metrics["judged_by"], metrics["unverified_weights"]) == ("able", True)
    assert metrics["judge"]["passed"]
    assert (metrics["heldout"]["judge"]["invalid"], metrics["heldout"]["judge"]["harmful"]["n"]) == (0, 2)
    rows = [row for arm in ARMS for row in answers(alone, arm)]
    assert all(0 <= row["harmful"] <= 1 for row in rows)
    first = alone.json("metrics/runtime/eval.json")
    questions = 2 * len({(row["prompt_id"], row["text"]) for row in rows})
    assert (first["heldout"]["judge"]["generated"], first["heldout"]["judge"]["reused"]) == (questions, 24 - questions)
    asked = first["exam"]["generated"] + first["exam"]["reused"]  # what the pairs' exam asked, too, is not asked again
    assert "judge able passed its exam" in alone.module("ccai", "summary").stdout

    before = snapshot(alone)
    assert alone.module("stages.eval").returncode == 0
    again = alone.json("metrics/runtime/eval.json")
    assert (again["exam"]["generated"], again["exam"]["reused"]) == (0, asked)
    assert (again["heldout"]["judge"]["generated"], again["heldout"]["judge"]["reused"]) == (0, 24)
    assert snapshot(alone) == before


def answers(project: Project, arm: str) -> list[dict[str, Any]]:
    return project.rows(f"data/eval/heldout/{arm}.jsonl")


# Experiments


@pytest.mark.slow
def test_queued_experiment_runs_the_code_it_recorded(queue: Project) -> None:
    journal = queue.folder / ".ccai-cache/journal"
    entries, trained = len(Journal(journal)), len(list((queue.folder / ".ccai-cache/training").iterdir()))
    queue.edit("ccai/pairs/build.py", '"kept": kept', '"marker": 1, "kept": kept')
    queue.dvc("exp", "run", "--queue", "--name", "queued", "-S", "train.learning_rate=2e-4")
    queue.edit("ccai/pairs/build.py", '"marker": 1', '"marker": 2')
    queue.dvc("exp", "run", "--run-all", "-j", "1")

    [ref] = [name for name in queue.git("for-each-ref", "--format=%(refname)").splitlines() if name.endswith("/queued")]
    assert json.loads(queue.git("show", f"{ref}:metrics/pairs.json"))["marker"] == 1
    recorded = yaml.safe_load(queue.git("show", f"{ref}:params.yaml"))
    assert float(recorded["train"]["learning_rate"]) == 2e-4
    assert json.loads(queue.git("show", f"{ref}:metrics/eval.json"))["heldout"]["length"]["tokens"]["n"] == 4
    # It ran in a folder of DVC's own and kept its work in the project's: an adapter, and what that answered.
    assert len(list((queue.folder / ".ccai-cache/training").iterdir())) == trained + 1
    assert len(Journal(journal)) >= entries + 4


@pytest.mark.slow
def test_temporary_experiment_reuses_the_journal(queue: Project) -> None:
    entries = len(Journal(queue.folder / ".ccai-cache/journal"))
    queue.dvc("exp", "run", "--temp", "--name", "temporary", "-S", "eval.resamples=200")
    assert "refs/exps" in queue.git("for-each-ref")
    assert len(Journal(queue.folder / ".ccai-cache/journal")) == entries
    assert queue.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_formats_side_by_side(queue: Project) -> None:
    names = ("conversation", "concise", "verbose")
    queue.dvc("exp", "run", "--queue", "-S", f"critiques.format={','.join(names)}", "pairs")
    queue.dvc("exp", "run", "--run-all", "-j", "1")
    table = list(csv.DictReader(queue.dvc("exp", "show", "--csv").splitlines()))
    rows = {row["critiques.format"]: row for row in table if row["Experiment"]}
    assert sorted(rows) == sorted(names)
    assert {row["State"] for row in rows.values()} <= {"", "Success"}
    for row in rows.values():
        counts = [int(row[key]) for key in ("kept", "dropped")]
        assert sum(counts) == 24
        assert sum(int(row[f"dropped_by.{gate}"]) for gate in GATES) == counts[1]
    assert len({row["data/critiques.jsonl"] for row in rows.values()}) == len(names)


# Rounds


@pytest.mark.slow
def test_rounds_cost_the_second_stage_its_last_round(alone: Project) -> None:
    first = {stage: alone.rows(f"data/{stage}.jsonl") for stage in ("critiques", "revisions")}
    alone.set({"critiques": {"rounds": 2}})
    assert alone.repro("revisions") == ["critiques", "revisions"]
    assert cost(alone, "critiques", "revisions") == [(24, 48), (24, 24)]
    for stage, before in first.items():
        rows = alone.rows(f"data/{stage}.jsonl")
        assert [row for row in rows if row["round"] == 1] == before
        assert len(rows) == 48
    alone.set({"critiques": {"principles": "random"}})
    assert alone.repro("pairs") == ["critiques", "revisions", "pairs"]
    rows = alone.rows("data/critiques.jsonl")
    assert [row["round"] for row in rows] == [1, 2] * 6
    assert all(row in first["critiques"] for row in rows if row["round"] == 1)


# The same bytes


def test_another_folder_another_cache_each_stage_killed_once_same_bytes(
    built: Built, model: Path, tmp_path: Path
) -> None:
    """`dvc repro` and all it started are killed as soon as the stage has kept something, and called again."""
    elsewhere = tmp_path / "a path that is longer" / "and has more folders" / "in it"
    shutil.copytree(model, elsewhere / "models" / model.name)
    again = toy.whole(elsewhere / "project", elsewhere / "home", elsewhere / "models" / model.name, built.port)
    cache = Path(again.environment["CCAI_CACHE"])
    for stage in STAGES:
        log = tmp_path / f"{stage}.log"
        with log.open("wb") as file:
            dvc = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro"],
                cwd=again.folder,
                env=again.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        had, since = None, time.monotonic()
        while had is None or (kept(cache) == had and time.monotonic() - since < 3):
            if had is None and f"Running stage '{stage}'" in log.read_text():
                had, since = kept(cache), time.monotonic()
            assert dvc.poll() is None, log.read_text()
            time.sleep(0.01)
        os.killpg(dvc.pid, signal.SIGKILL)
        dvc.wait()
    assert again.repro() == ["eval", "report"]
    assert again.outs() == built.project.outs()
    assert snapshot(again) == snapshot(built.project)
    assert working_in(again.folder) == []


def kept(cache: Path) -> int:
    """Bytes of the journal and of what training keeps."""
    return sum(path.stat().st_size for name in ("journal", "training") for path in (cache / name).rglob("*.*"))


def test_greedy_answers_are_the_same_bytes(changed: Project, tmp_path: Path) -> None:
    sampled = changed.rows("data/responses.jsonl")
    changed.set({"generation": {"temperature": 0}})
    written = []
    for name in ("one", "another, with a longer name"):
        project = changed.copy(tmp_path / name / "project", CCAI_CACHE=str(tmp_path / name / "cache"))
        assert project.module("stages.responses").returncode == 0
        assert project.json("metrics/runtime/responses.json")["generated"] == 6
        written.append((project.folder / "data/responses.jsonl").read_bytes())
    assert written[0] == written[1]
    assert [row["text"] for row in sampled] != [json.loads(line)["text"] for line in written[0].splitlines()]


# Storage


class Bucket(NamedTuple):
    """The built project with an S3 remote, pushed and committed, and a client for the bucket."""

    project: Project
    client: Any


@pytest.fixture(scope="module")
def bucket(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with toy.s3_server() as (keys, client):
        project = built.project.copy(tmp_path_factory.mktemp("pushed") / "project", **keys)
        project.dvc("remote", "add", "-d", "storage", "s3://bucket/prefix")
        project.commit()
        project.dvc("push")
        yield Bucket(project, client)


def colleague(bucket: Bucket, folder: Path) -> Project:
    """A clone on a machine that has nothing: neither data nor DVC's memory of what is stored where."""
    home = toy.environment(folder / "home")
    clone = bucket.project.clone(folder / "project", CCAI_CACHE=home["CCAI_CACHE"])
    clone.environment.update({name: home[name] for name in ("HOME", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR")})
    return clone


def test_colleague_pulls_and_has_it_all(bucket: Bucket, built: Built, tmp_path: Path) -> None:
    clone = colleague(bucket, tmp_path)
    clone.dvc("pull")
    assert snapshot(clone) == snapshot(built.project)
    assert clone.repro() == []
    assert clone.dvc("status", "-c").startswith("Cache and remote 'storage' are in sync")
    assert clone.git("status", "--porcelain") == ""


def test_colleague_resumes_and_nothing_runs(bucket: Bucket, built: Built, tmp_path: Path) -> None:
    clone = colleague(bucket, tmp_path)
    done = clone.module("ccai", "resume")
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stdout
    assert snapshot(clone) == snapshot(built.project)


def test_object_that_is_gone_everywhere_is_named(bucket: Bucket, tmp_path: Path) -> None:
    md5 = bucket.project.outs()["data/critiques.jsonl"]
    key = f"prefix/files/md5/{md5[:2]}/{md5[2:]}"
    content = bucket.client.get_object(Bucket="bucket", Key=key)["Body"].read()
    bucket.client.delete_object(Bucket="bucket", Key=key)
    try:
        done = colleague(bucket, tmp_path).module("ccai", "resume")
    finally:
        bucket.client.put_object(Bucket="bucket", Key=key, Body=content)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: data/critiques.jsonl: neither here nor in storage (s3://bucket/prefix); ")
    assert "Running stage" not in done.stdout


# What bad input gets


def snapshot(project: Project) -> dict[str, bytes]:
    """Content of all files that the stages write and that are compared."""
    found = [path for name in project.outs() for path in (project.folder / name, *(project.folder / name).rglob("*"))]
    return {path.relative_to(project.folder).as_posix(): path.read_bytes() for path in found if path.is_file()}


def refused(project: Project, stage: str, message: str) -> None:
    """The stage's own command ends with 2 and one line that begins so; what was written before stays as it was."""
    before = snapshot(project)
    done = project.module(f"stages.{stage}")
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {message}"), line
    assert "; " in line  # what to do about it
    assert snapshot(project) == before
    assert project.git("status", "--porcelain", "--untracked-files=no", "--", "data", "metrics") == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("beta: 0.1", "bta: 0.1", "params.yaml: train."),
        ("learning_rate: 0.05", "learning_rate: fast", "params.yaml: train.learning_rate: input should be a valid num"),
        ("validation_share: 0.3", "validation_share: 1.5", "params.yaml: pairs.validation_share: input should be less"),
        ("seed: 7", "seed: [7", "params.yaml:"),
    ],
)
def test_params_that_are_wrong(changed: Project, old: str, new: str, message: str) -> None:
    changed.edit("params.yaml", old, new)
    refused(changed, "pairs", message)


def test_file_that_is_missing(changed: Project) -> None:
    (changed.folder / "data/revisions.jsonl").unlink()
    refused(changed, "pairs", "data/revisions.jsonl: no such file; run the stage that writes it")


def test_line_that_is_malformed(changed: Project) -> None:
    path = changed.folder / "data/prompts/train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()  # it may be a link into the cache
    path.write_text("".join([*lines[:2], lines[2][:40] + "\n", *lines[3:]]))
    refused(changed, "pairs", "data/prompts/train.jsonl:3: ")


def test_source_with_a_malformed_line(changed: Project) -> None:
    (changed.folder / "data/sources/mine.jsonl").write_text('{"text": "one"}\n{"text": "two}\n')
    changed.set({"prompts": {"sources": ["data/sources/mine.jsonl"]}})
    refused(changed, "prompts", "data/sources/mine.jsonl:2: not a line of JSON")


def test_public_source_that_is_not_the_pinned_file(changed: Project) -> None:
    (changed.folder / "data/public/ailuminate.csv").write_text("prompt_text\nanother\n")
    changed.set({"prompts": {"sources": ["ailuminate"]}})
    refused(changed, "prompts", "data/public/ailuminate.csv: not the pinned file (sha256 ")


def test_model_that_is_unknown(changed: Project) -> None:
    changed.set({"models": {"answer": "nobody"}})
    refused(changed, "responses", "model 'nobody': ")


def test_model_that_is_too_large_for_this_machine(changed: Project, model: Path, tmp_path: Path) -> None:
    """A sparse file: its header speaks of 2 TB of weights, and it takes a few blocks of the disk."""
    large = tmp_path / "large"
    shutil.copytree(model, large)
    count = 2 * 10**12
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    with (large / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + count)
    changed.set({"models": {"answer": str(large)}})
    refused(changed, "responses", "model local/large: 2000.00B weights need ")


# A run that is stopped


def test_stopped_stage_goes_on_where_it_was(changed: Project, tmp_path: Path) -> None:
    """SIGTERM while it generates: 143, nothing half-written, finished completions reused, the same bytes at the end."""
    toy.toy_model(tmp_path / "talkative", ends=-10)
    changed.set({"models": {"answer": str(tmp_path / "talkative")}, "responses": {"max_new_tokens": 256}})
    changed.set({"prompts": {"train": 120}})
    assert changed.module("stages.prompts").returncode == 0
    out = changed.folder / "data/responses.jsonl"
    out.unlink()

    stopped = changed.copy(tmp_path / "stopped", CCAI_CACHE=str(tmp_path / "cache"))
    command = [sys.executable, "-m", "stages.responses"]
    process = subprocess.Popen(command, cwd=stopped.folder, env=stopped.environment, stdout=subprocess.DEVNULL)
    wait_for_lines(tmp_path / "cache/journal", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not list((stopped.folder / "data").glob("*responses*"))
    assert stopped.module("stages.responses").returncode == 0
    cost = stopped.json("metrics/runtime/responses.json")
    assert cost["generated"] > 0
    assert cost["reused"] > 0
    assert cost["generated"] + cost["reused"] == 120

    assert changed.module("stages.responses").returncode == 0
    assert changed.json("metrics/runtime/responses.json")["reused"] == 0
    assert out.read_bytes() == (stopped.folder / "data/responses.jsonl").read_bytes()


def wait_for_lines(journal: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_size for path in journal.glob("*.jsonl")):
            return
        time.sleep(0.05)
    raise AssertionError("it ended, or hung, before its first batch")
