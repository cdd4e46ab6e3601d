"""Comparison of two files of scores, as anybody runs it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ccai.base.errors import UserError
from ccai.stats.compare import compare


def write(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def files(folder: Path, a: Iterable[Any], b: Iterable[Any]) -> tuple[Path, Path]:
    return write(folder / "a.jsonl", a), write(folder / "b.jsonl", b)


def rows(values: Iterable[Any], **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{place}", "s": value, **fields} for place, value in enumerate(values)]


def test_command(tmp_path: Path) -> None:
    """Lakens 2013 (Front. Psychol. 4:863): d_z = 1.50 before Hedges' correction, t(9) = 4.74."""
    files(tmp_path, rows([9, 6, 7, 8, 7, 9, 8, 8, 8, 7, 1]), rows([9, 7, 8, 9, 8, 9, 9, 10, 9, 9]))
    line = [sys.executable, "-m", "ccai", "compare", "a.jsonl", "b.jsonl", "--key", "id", "--score", "s", "--seed", "3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert list(found)[:5] == ["a", "b", "score", "unmatched", "without_score"]
    measured = "n clusters mean_a mean_b difference interval verdict d_av d_z hedges_j p test"
    assert list(found)[5:] == measured.split()
    assert (found["n"], found["unmatched"], found["mean_a"], found["mean_b"]) == (10, {"a": 1, "b": 0}, 7.7, 8.7)
    assert found["d_z"]["estimate"] / found["hedges_j"] == pytest.approx(1.50, abs=0.005)
    assert found["d_z"]["low"] < found["d_z"]["estimate"] < found["d_z"]["high"]
    assert 0 < found["difference"]["low"] < 1 < found["difference"]["high"]
    assert found["verdict"] == "higher"
    (tmp_path / "b.jsonl").write_text('{"id": "p0"}\n', encoding="utf-8")
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: b.jsonl:1: no field s; add it, or name another\n"


def test_order_of_lines_plays_no_part(tmp_path: Path) -> None:
    draw = random.Random(0)
    a, b = rows(draw.random() for _ in range(30)), rows(draw.random() for _ in range(30))
    first = compare(*files(tmp_path, a, b), ["id"], "s")
    draw.shuffle(a)
    assert compare(*files(tmp_path, a, b[::-1]), ["id"], "s") == first


def test_nested_fields_and_outcomes(tmp_path: Path) -> None:
    a = [{"id": place, "scores": {"harmful": place < 9}} for place in range(24)]
    b = [{"id": place, "scores": {"harmful": place < 1}} for place in range(24)]
    found = compare(*files(tmp_path, a, b), ["id"], "scores.harmful")
    # 8 against 0 that disagree: p = 2 / 2⁸
    assert (found["test"], found["p"], found["verdict"]) == ("exact McNemar", pytest.approx(2 / 256), "lower")
    assert found["interval"] == "Bonett-Price"


def test_no_score_is_left_out_and_counted(tmp_path: Path) -> None:
    found = compare(*files(tmp_path, rows([1, None, 0, 1]), rows([1, 1, None, 1, 0])), ["id"], "s")
    assert (found["n"], found["without_score"], found["unmatched"]) == (2, 2, {"a": 0, "b": 1})


def test_groups_with_holm(tmp_path: Path) -> None:
    """P values .0078125, .25 and 1 by hand: 8, 3 and no pairs that disagree; Holm: times 3, times 2, as it is."""
    worse = {"vcr": 8, "hte": 3, "ssh": 0}
    a, b = [], []
    for hazard, count in worse.items():
        for place in range(10):
            a.append({"id": f"{hazard}{place}", "hazard": hazard, "s": 0})
            b.append({"id": f"{hazard}{place}", "hazard": hazard, "s": int(place < count)})
    by = compare(*files(tmp_path, a, b), ["id"], "s", by="hazard")["by"]
    assert list(by) == ["hte", "ssh", "vcr"]
    assert {hazard: by[hazard]["p"] for hazard in by} == pytest.approx({"hte": 0.25, "ssh": 1, "vcr": 2 / 256})
    assert {hazard: by[hazard]["p_holm"] for hazard in by} == pytest.approx({"hte": 0.5, "ssh": 1, "vcr": 6 / 256})


def test_a_group_without_p_value_takes_no_part_in_holm(tmp_path: Path) -> None:
    a = [*rows([0.1] * 3, g="x"), {"id": "q", "g": "y", "s": 0.1}, {"id": "r", "g": "y", "s": 0.4}]
    b = [*rows([0.3, 0.2, 0.9], g="x"), {"id": "q", "g": "y", "s": 0.2}, {"id": "r", "g": "y", "s": 0.5}]
    by = compare(*files(tmp_path, a, b), ["id"], "s", by="g")["by"]
    assert (by["y"]["p"], by["y"]["p_holm"]) == (None, None)
    assert by["x"]["p_holm"] == by["x"]["p"] is not None


def test_answers_that_share_a_prompt_are_clustered(tmp_path: Path) -> None:
    draw = random.Random(1)
    a, b = [], []
    for prompt in range(12):
        shift = draw.gauss(0.3, 1)
        for principle in "wxyz":
            label = {"id": prompt, "principle": principle}
            a.append(label | {"s": draw.gauss(0, 0.1)})
            b.append(label | {"s": shift + draw.gauss(0, 0.1)})
    paths = files(tmp_path, a, b)
    plain = compare(*paths, ["id", "principle"], "s")
    clustered = compare(*paths, ["id", "principle"], "s", cluster="id", by="principle")
    assert (plain["n"], plain["clusters"], clustered["n"], clustered["clusters"]) == (48, 48, 48, 12)
    widths = [found["difference"]["high"] - found["difference"]["low"] for found in (plain, clustered)]
    assert widths[1] > 1.5 * widths[0]
    assert clustered["interval"] == "cluster bootstrap"
    assert clustered["by"]["w"]["interval"] == "paired bootstrap", "in a group each prompt has one answer"


GOOD = [{"id": "p0", "s": 1, "g": "x"}, {"id": "p1", "s": 0.5, "g": "y"}]


@pytest.mark.parametrize(
    ("b", "said"),
    [
        ('{"id": "p0", "s": 1}\n[]\n', r"b\.jsonl:2: not a JSON object"),
        ('{"s": 1}\n', r"b\.jsonl:1: no field id"),
        ('{"id": "p0"}\n', r"b\.jsonl:1: no field s"),
        ('{"id": null, "s": 1}\n', r"b\.jsonl:1: id must be a text or a number, not null"),
        ('{"id": "p0", "s": "high"}\n', r'b\.jsonl:1: s must be a number, true, false or null, not "high"'),
        ('{"id": "p0", "s": NaN}\n', r"b\.jsonl:1: s must be a number, true, false or null, not NaN"),
        ('{"id": "p0", "s": 1}\n{"id": "p0", "s": 1}\n', r"b\.jsonl:2: id p0 is also at .*b\.jsonl:1; name further"),
        ('{"id": "p9", "s": 1}\n', r"a\.jsonl and .*b\.jsonl have no id in common"),
        ('{"id": "p0", "s": null}\n', r"have no item with a s in both"),
        ("", r"have no id in common"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, b: str, said: str) -> None:
    write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "b.jsonl").write_text(b, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", ["id"], "s")


def test_labels_must_agree_and_files_exist(tmp_path: Path) -> None:
    a, b = files(tmp_path, GOOD, [GOOD[0], GOOD[1] | {"g": "z"}])
    with pytest.raises(UserError, match=r"b\.jsonl:2: g is z, but y at .*a\.jsonl:2; correct one"):
        compare(a, b, ["id"], "s", by="g")
    with pytest.raises(UserError, match=r"c\.jsonl: cannot be read"):
        compare(a, tmp_path / "c.jsonl", ["id"], "s")


def rated(draw: random.Random, loss: float) -> float:
    """A score as of the rules: 0, or a quarter to the whole."""
    return draw.choice((0.25, 0.5, 0.75, 1.0)) if draw.random() < 0.6 - loss else 0.0


def obeyed(draw: random.Random, loss: float) -> bool:
    return draw.random() < 0.7 - loss


@pytest.mark.parametrize("model", [rated, obeyed])
def test_an_identical_model_cant_be_told_and_a_worse_one_is(
    tmp_path: Path, model: Callable[[random.Random, float], float]
) -> None:
    """The same model with other seeds, and one that loses 0.4 of its good answers, on 60 prompts."""
    verdicts: dict[str, list[str]] = {"same": [], "worse": []}
    for seed in range(100):
        draw = random.Random(seed)
        base = rows(model(draw, 0.0) for _ in range(60))
        for name, loss in (("same", 0.0), ("worse", 0.4)):
            paths = files(tmp_path, base, rows(model(draw, loss) for _ in range(60)))
            verdicts[name].append(compare(*paths, ["id"], "s", seed=seed, resamples=1000)["verdict"])
    assert verdicts["same"].count("can't tell") >= 93
    assert verdicts["worse"].count("lower") >= 93
