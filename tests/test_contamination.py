"""What is trained on is not what is evaluated on; the benchmark of that search."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from helpers.prompts import made, of, settings

from bench import contamination as bench
from ccai.base.errors import UserError
from ccai.prompts import contamination, near_duplicates
from ccai.prompts.select import choose
from ccai.prompts.sources import SourcePrompt


def near(row: SourcePrompt, source: str = "suite") -> SourcePrompt:
    """The same question with its last word replaced."""
    return row._replace(source=source, text=f"{row.text.rsplit(maxsplit=1)[0]} please?")


def test_pairs_are_named_by_place_not_by_text() -> None:
    rows = made(40)
    against = [near(rows[3]), rows[5]._replace(source="suite", place="77"), *made(20, seed=9, source="suite")]
    found = contamination.overlap(rows, against, 0.7)
    assert (found.pairs, found.training) == (2, {3, 5})
    assert found.nearest[0] == "made:6 ~ suite:77 (1.00)"
    assert found.nearest[1].startswith("made:4 ~ suite:4 (0.")
    assert contamination.overlap(rows, [], 0.7) == (0, 0, set(), [])


def test_the_ten_nearest_are_named_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(300)
    suite = [near(row) for row in rows] + [row._replace(source="equal") for row in rows[:4]]
    monkeypatch.setattr(near_duplicates, "BUDGET", 500)  # so that the pairs come in many pieces
    found = contamination.overlap(rows, suite, 0.7)
    assert found.pairs == 304
    assert len(found.nearest) == 10
    assert all("~ equal:" in name and "(1.00)" in name for name in found.nearest[:4])
    with pytest.raises(UserError) as error:
        choose(rows, settings(), 7, suite)
    assert str(error.value).count(" ~ ") == 10
    assert " and 1" in str(error.value)
    assert not any(row.text in str(error.value) for row in rows)


def test_only_prompts_that_are_trained_on_count() -> None:
    rows = made(200)
    trained = {prompt.text for prompt in of(choose(rows, settings(train=20), 7).prompts, "train")}
    suite = [near(row) for row in rows if row.text not in trained]
    choose(rows, settings(train=20), 7, suite)
    with pytest.raises(UserError, match=r"^prompts\.contamination: .*set prompts\.contaminated to drop"):
        choose(rows, settings(), 7, suite)


def test_dropping_leaves_everything_else_where_it_was() -> None:
    rows = made(200)
    before = choose(rows, settings(), 7).prompts
    train = of(before, "train")
    bad = {prompt.text for prompt in train[:15]}
    suite = [near(row) for row in rows if row.text in bad]
    chosen, counts = choose(rows, settings(contaminated="drop"), 7, suite)
    assert of(chosen, "eval") == of(before, "eval")
    assert of(chosen, "train") == [prompt for prompt in train if prompt.text not in bad]
    assert counts["contamination"] == {
        "evaluation_prompts": len(suite) + len(of(before, "eval")),
        "pairs": 15,
        "contained": 0,
        "dropped": 15,
    }
    smaller = choose(rows, settings(contaminated="drop", train=30), 7, suite).prompts
    assert {prompt.text for prompt in of(smaller, "train")} < {prompt.text for prompt in of(chosen, "train")}
    with pytest.raises(UserError, match="drop leaves no training prompt"):
        choose(rows, settings(contaminated="drop"), 7, rows)


def test_the_eval_side_is_held_to_it_too() -> None:
    rows = made(100)
    rows += [near(row, "made") for row in rows]
    apart = settings(near_duplicate=1.0)
    with pytest.raises(UserError, match=r"lower prompts\.near_duplicate to 0\.7"):
        choose(rows, apart, 7)
    dropped = choose(rows, settings(near_duplicate=1.0, contaminated="drop"), 7)
    train, held_out = of(dropped.prompts, "train"), of(dropped.prompts, "eval")
    found = near_duplicates.similar([p.text for p in train], [p.text for p in held_out], 0.7)
    assert train and not list(found)
    assert choose(rows, settings(), 7).counts["contamination"] == {
        "evaluation_prompts": len(of(choose(rows, settings(), 7).prompts, "eval")),
        "pairs": 0,
        "contained": 0,
        "dropped": 0,
    }


def test_row_order_changes_nothing() -> None:
    rows = made(120)
    suite = [near(row) for row in rows[::4]]
    some = settings(contaminated="drop", train=30, eval=30)
    first = choose(rows, some, 7, suite)
    for seed in range(3):
        draw = random.Random(seed)
        assert choose(draw.sample(rows, len(rows)), some, 7, draw.sample(suite, len(suite))) == first


def test_the_stage_fails_with_one_line_and_drops_when_told_to(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data/eval_sets", tmp_path / "data/eval_sets")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    rows = made(60)
    (tmp_path / "mine.txt").write_text("".join(f"{row.text}\n" for row in rows), encoding="utf-8")
    lines = "".join(json.dumps({"question": near(row).text}) + "\n" for row in rows)
    (tmp_path / "suite.jsonl").write_text(lines, encoding="utf-8")
    suite = {"source": "suite.jsonl", "columns": {"text": "question"}}

    def stage(**changes: object) -> subprocess.CompletedProcess[str]:
        values["prompts"] |= {"sources": ["mine.txt"], "train": 0, "eval": 10, "evaluation_sets": [suite], **changes}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "stages.prompts"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    failed = stage()
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "mine.txt:" in failed.stderr and "~ suite.jsonl:" in failed.stderr
    assert not any(row.text in failed.stderr for row in rows)
    assert not (tmp_path / "data/prompts/train.jsonl").exists()
    # Two thirds of the questions are taken out of the suite: their prompts may be trained on.
    (tmp_path / "suite.jsonl").write_text("".join(lines.splitlines(keepends=True)[:20]), encoding="utf-8")
    done = stage(contaminated="drop")
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "metrics/prompts.json").read_text(encoding="utf-8"))
    assert 0 < counts["contamination"]["dropped"] < 20
    assert counts["train"]["total"] == counts["available"]["train"] - counts["contamination"]["dropped"]


def test_the_benchmark(tmp_path: Path) -> None:
    line = ["--training", "600", "--evaluation", "60", "--sample", "60", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "bench.contamination", *line]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "contamination.json").read_text(encoding="utf-8"))
    assert {"date", "command", "machine", "training", "evaluation", "threshold", "gate", "groups"} <= values.keys()
    sample = values["gate"]["sample"]
    assert sample["true_pairs"] == values["gate"]["pairs"] > 0
    assert (sample["recall"], sample["false_pairs"]) == (1.0, 0)
    assert bench.made(50, 5, 7) == bench.made(50, 5, 7) != bench.made(50, 5, 8)
