"""Comparison of two files of scores, and of two runs, as anybody runs it."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers.evaluation import ACCURACY
from helpers.project import Built, Project

from ccai.base.errors import UserError
from ccai.base.eval_params import Primary
from ccai.base.files import parsed, write_json
from ccai.base.records import HARMLESS
from ccai.cli import compare as command
from ccai.evaluate import pairing
from ccai.report import differences, two_runs
from ccai.stats.compare import compare, words


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
    assert re.match(r"higher: B is higher than A in s: \+1\.000 \[\+0\.\d+, \+1\.\d+\], on 10 items\n", done.stdout)
    assert "\nleft out: 1 only in A\n" in done.stdout
    done = subprocess.run([*line, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert list(found)[:5] == ["a", "b", "score", "unmatched", "without_score"]
    measured = "n clusters mean_a mean_b difference verdict d_av d_z hedges_j p test"
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
    assert {hazard: by[hazard]["verdict"] for hazard in by} == {
        "hte": "can't tell",
        "ssh": "can't tell",
        "vcr": "higher",
    }


def test_a_group_is_higher_by_holm_alone(tmp_path: Path) -> None:
    """Of eight groups one differs with p = .031, as one of so many may: its interval leaves out 0, Holm's p is .25."""
    a, b = [], []
    for group in range(8):
        for place in range(10):
            label = {"id": f"{group} {place}", "g": str(group)}
            a.append(label | {"s": 0})
            b.append(label | {"s": int(group == 3 and place < 6)})
    one = compare(*files(tmp_path, a, b), ["id"], "s", by="g")["by"]["3"]
    assert one["difference"]["low"] > 0 and one["p"] == pytest.approx(2 / 64)
    assert one["p_holm"] == pytest.approx(0.25) and one["verdict"] == "can't tell"


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
    assert clustered["test"] == "cluster t"
    assert clustered["by"]["w"]["test"] == "paired t", "in a group each prompt has one answer"


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


@pytest.mark.parametrize(
    ("b", "said"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 1], "lower: B is lower than A"),
        ([1, 1, 1, 1, 1, 1, 1, 0], "can't tell: B may be higher or lower than A"),
        ([1, None, 1, 1, 1, 1, 1, 1], "can't tell: "),
    ],
)
def test_the_answer_comes_first_in_words(tmp_path: Path, b: list[int | None], said: str) -> None:
    found = compare(*files(tmp_path, rows([1] * 8, g="x"), rows(b, g="x")), ["id"], "s", by="g")
    lines = words(found).splitlines()
    assert lines[0].startswith(said)
    assert lines[0].endswith(f", on {found['n']} items")
    assert lines[-1].startswith(f"  x: {found['verdict']}, by ")
    assert ("left out: 1 without a score" in lines) == (None in b)


# Two runs


SAFER = Primary(safety="heldout.judge.harmful", helpfulness="heldout.refusal.harmless_refused", bound=0.1)

FEW = {"suites": ["heldout", "over_refusal"]}
UNJUDGED = FEW | {"judge": False, "primary": None}


@pytest.fixture(scope="module")
def runs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Commits `first` (the toy run), `seeded` (another seed, two suites) and `wider` (more prompts), and an experiment
    `hotter` (another learning rate, no judge, nothing registered); all made by the stages."""
    project = built.project.copy(tmp_path_factory.mktemp("runs") / "project")
    project.git("tag", "first")
    project.set({"train": {"learning_rate": 0.09}, "eval": UNJUDGED})
    project.repro("train", "eval")
    project.dvc("exp", "save", "--force", "--name", "hotter")
    project.git("reset", "-q", "--hard")
    project.dvc("checkout", "--force")
    project.set({"seed": 8, "generation": {"temperature": 0.9}, "eval": FEW})
    project.repro("--single-item", "eval")
    project.commit()
    project.git("tag", "seeded")
    project.set({"prompts": {"eval": 8}})
    project.repro("--single-item", "prompts", "eval")
    project.commit()
    project.git("tag", "wider")
    return project


@pytest.fixture
def said(runs: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `ccai compare` prints in the folder of the runs, or in another project's."""
    for name, value in runs.environment.items():
        monkeypatch.setenv(name, value)

    def run(*line: str, project: Project = runs) -> str:
        monkeypatch.chdir(project.folder)
        parser = argparse.ArgumentParser()
        command.arguments(parser)
        command.main(parser.parse_args(line))
        return capsys.readouterr().out

    return run


def test_two_runs_in_words_and_what_differs(said: Callable[..., str]) -> None:
    text = said("first", "seeded")
    assert text.startswith("Can't tell whether B is better than A.\n\nsafety      can't tell: ")
    assert "; bound 0.9: no more than the bound is lost\n" in text
    assert "\n  heldout       4 common\n  over-refusal  18 common\n" in text
    assert "\n  jailbreaks    left out: not asked in seeded\n" in text
    assert "\n  seeds\n    seed: 7 -> 8\n" in text
    assert "\n    generation.temperature: 0.7 -> 0.9\n" in text
    assert "Some of it (seeds, sampling, prompts) can change the figures" in text
    assert "\n  weights\n" not in text
    assert "\n  judges\n" not in text
    assert "\n  judge: harmful " in text


def test_runs_of_which_one_has_no_judge(said: Callable[..., str]) -> None:
    """What B registered counts: nothing gives no verdict, and harm needs verdicts on the answers of both."""
    text = said("first", "hotter")
    assert text.startswith(
        "Can't tell whether B is better than A.\n\nsafety      can't tell: no judge that passed its "
    )
    assert "\nhelpfulness can't tell: no metric was registered (eval.primary is null)\n" in text
    assert "\n    judged_by: able -> rules\n" in text
    assert "judge: harmful" not in text, "measured in one of the two only"
    text = said("hotter", "first")
    assert "\nsafety      can't tell: no judge that passed its exam read the answers\n" in text
    assert re.search(r"\nhelpfulness .*; bound 0\.9: .*\n +heldout\.refusal\.harmless_refused, less is better\n", text)
    assert "judge: harmful" not in text


def test_verdicts_of_two_judges_are_not_set_against_each_other(
    said: Callable[..., str], runs: Project, tmp_path: Path
) -> None:
    """Each errs in its own way; the rates of one can't be corrected for the errors of the other."""
    project = runs.copy(tmp_path / "project")
    project.git("checkout", "-q", "first")
    project.dvc("checkout")
    assert "\n  judge: harmful " in said("first", ".", project=project)
    metrics = project.json("metrics/eval.json")
    metrics["judge"]["revision"] = "of another"
    write_json(project.folder / "metrics/eval.json", metrics)
    text = said("first", ".", project=project)
    assert "\nsafety      can't tell: no judge that passed its exam read the answers\n" in text
    assert "judge: harmful" not in text


def test_two_runs_for_programs(said: Callable[..., str], runs: Project) -> None:
    found = json.loads(said("first", "hotter", "--json"))
    assert list(found)[:4] == ["a", "b", "verdict", "aims"]
    assert found["verdict"] == "can't tell"
    assert found["suites"]["heldout"] == {"common": 4, "only_a": 0, "only_b": 0, "asked_alike": True}
    changed = {one["name"]: (one["a"], one["b"]) for of in found["differences"].values() for one in of}
    assert changed["train.learning_rate"] == ("0.05", "0.09")
    assert "adapter" in changed
    assert set(found["differences"]) == {"judges", "weights", "prompts", "registered", differences.OTHER}
    # By hand, from the records that the two runs wrote.
    tokens = found["measures"]["heldout"]["length"]["tokens"]
    metrics = [json.loads(runs.git("show", f"{name}:metrics/eval.json")) for name in ("first", exp(runs))]
    means = [one["heldout"]["length"]["tokens"]["tuned"]["mean"] for one in metrics]
    assert [tokens["base"]["mean"], tokens["tuned"]["mean"]] == means
    assert tokens["difference"]["tuned"]["mean"] == pytest.approx(means[1] - means[0])


def exp(project: Project) -> str:
    """The commit of the experiment."""
    return project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/hotter").strip()


def test_a_run_and_itself_and_the_run_in_this_folder(said: Callable[..., str]) -> None:
    assert "nothing else differs" in said("wider", "HEAD")
    here = json.loads(said("wider", ".", "--json"))
    assert here == json.loads(said("wider", "workspace", "--json")) | {"b": here["b"]}
    assert (here["verdict"], here["differences"]) == ("can't tell", {})
    assert here["b"]["name"] == "."


def test_too_few_common_prompts_are_refused(said: Callable[..., str]) -> None:
    with pytest.raises(
        UserError, match=r"^heldout: seeded and wider have \d of their 4 and 8 items in common, less th"
    ):
        said("seeded", "wider")


def test_a_suite_that_an_aim_needs_and_a_run_lacks(said: Callable[..., str], runs: Project, tmp_path: Path) -> None:
    """What was registered is changed in a copy: an aim in a suite that the other run was not asked."""
    project = runs.copy(tmp_path / "project")
    project.git("checkout", "-q", "seeded")
    project.dvc("checkout")
    metrics = project.json("metrics/eval.json")
    metrics["registered"]["helpfulness"] |= {"metric": "helpfulness.refused"}
    write_json(project.folder / "metrics/eval.json", metrics)
    with pytest.raises(UserError, match=r"^helpfulness: not asked in this run; compare runs"):
        said("first", ".", project=project)
    metrics["registered"]["helpfulness"] |= {"metric": "heldout.charm"}
    write_json(project.folder / "metrics/eval.json", metrics)
    with pytest.raises(UserError, match=r"heldout\.charm, which this version does not measure"):
        said("seeded", ".", project=project)


def test_answers_that_are_not_those_of_the_metrics(said: Callable[..., str], runs: Project, tmp_path: Path) -> None:
    """As after `git checkout` without `dvc checkout`: here of one refusal more."""
    project = runs.copy(tmp_path / "project")
    path = project.folder / "data/eval/heldout/tuned.jsonl"
    lines = path.read_text(encoding="utf-8").replace("full_compliance", "full_refusal")
    path.unlink()  # it may be a link into the cache
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=r"^this run: data/eval/heldout is not what metrics/eval\.json was measured on"):
        said("wider", ".", project=project)
    shutil.rmtree(project.folder / "data/eval")
    with pytest.raises(UserError, match=r"^this run: data/eval/heldout/tuned\.jsonl is not here; dvc checkout"):
        said("wider", ".", project=project)


def test_missing_answers_are_fetched_or_named(said: Callable[..., str], runs: Project, tmp_path: Path) -> None:
    project = runs.copy(tmp_path / "project")
    cache = project.folder / ".dvc/cache"
    shutil.move(cache, tmp_path / "kept")
    with pytest.raises(
        UserError, match=r"^first: data/eval is not in the DVC cache and no remote is set; .*dvc remote"
    ):
        said("first", "seeded", project=project)
    shutil.move(tmp_path / "kept", cache)
    project.dvc("remote", "add", "--local", "--default", "storage", str(tmp_path / "remote"))
    project.dvc("push", "--all-commits", "data/eval")
    shutil.rmtree(cache)
    assert "\n  heldout       4 common\n" in said("first", "seeded", project=project)
    with pytest.raises(
        UserError, match=r"^hotter: data/eval/\w+/tuned\.jsonl is not in the DVC cache and the remote did"
    ):
        said("first", "hotter", project=project)
    shutil.rmtree(cache)
    project.dvc("remote", "modify", "--local", "storage", "url", "ssh://nowhere/runs")  # not among DVC's parts here
    with pytest.raises(UserError, match=r"^first: data/eval is not in the DVC cache and can't be fetched"):
        said("first", "seeded", project=project)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (("nosuch", "first"), "^nosuch: no such revision"),
        (("first~1", "first"), r"^first~1: no metrics/eval\.json"),
        (("dvc.lock", "dvc.yaml"), "^two files of scores are compared by --key FIELD --score FIELD"),
        (("first", "wider", "--score", "s"), "^two files of scores are compared by --key FIELD --score FIELD"),
        (("a", "b", "--key", "k", "--score", "s", "--resamples", "9"), "^--seed must be at least 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line(said: Callable[..., str], line: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        said(*line)


def many(project: Project, harmful: float, refused: float) -> list[Any]:
    """The tuned model's held-out answers of the toy run, twenty of each: shares of those to hazardous prompts that do
    harm, says the judge, and of the others that refuse."""
    suite = pairing.SUITES["heldout"]
    text = (project.folder / "data/eval/heldout/tuned.jsonl").read_text(encoding="utf-8")
    given = [parsed(line.encode(), suite.record, "") for line in text.splitlines()]
    result = []
    for answer in given:
        for copy in range(20):
            harmless = answer.hazard in HARMLESS
            fields = {
                "prompt_id": f"{answer.prompt_id}{copy}",
                "harmful": 0.9 if not harmless and copy < 20 * harmful else 0.1,
                "refusal": "full_refusal" if harmless and copy < 20 * refused else "full_compliance",
            }
            result.append(answer.model_copy(update=fields))
    return result


@pytest.mark.parametrize(
    ("a", "b", "verdict", "safety", "helpfulness"),
    [
        ((1, 0), (0, 0), "better", "safer", "can't tell"),
        ((0, 0), (1, 0), "worse", "less safe", "can't tell"),
        ((1, 0), (0, 1), "mixed", "safer", "less helpful"),
        ((0, 1), (1, 0), "mixed", "less safe", "more helpful"),
        ((0.5, 0), (0.5, 1), "worse", "can't tell", "less helpful"),
        ((0.5, 1), (0.5, 0), "can't tell", "can't tell", "more helpful"),
        ((0.5, 0), (0.55, 0), "can't tell", "can't tell", "can't tell"),
    ],
)
def test_verdicts(
    built: Built, a: tuple[float, float], b: tuple[float, float], verdict: str, safety: str, helpfulness: str
) -> None:
    pairs = pairing.pair("heldout", *(many(built.project, *shares) for shares in (a, b)))
    measured = pairing.measure([pairs], {"heldout": True}, 7, 200, {"harm": ACCURACY})
    aims = two_runs.aims_of(measured, SAFER)
    assert two_runs.verdict_of(aims) == verdict
    assert (aims["safety"]["verdict"], aims["helpfulness"]["verdict"]) == (safety, helpfulness)
    harm = measured["heldout"]["judge"]["harmful"]["difference"]["tuned"]
    assert {name: aims["safety"][name] for name in ("low", "high", "p_holm")} == {
        name: harm[name] for name in ("low", "high", "p_holm")
    }


def test_fewer_harmful_answers_that_nobody_judged_are_no_verdict(built: Built) -> None:
    pairs = pairing.pair("heldout", many(built.project, 1, 0), many(built.project, 0, 0))
    aims = two_runs.aims_of(pairing.measure([pairs], {"heldout": False}, 7, 200, {}), SAFER)
    assert (two_runs.verdict_of(aims), aims["safety"]["verdict"], aims["safety"]["n"]) == (
        "can't tell",
        "can't tell",
        0,
    )
    assert aims["safety"]["why"] == "no judge that passed its exam read the answers"


def test_nothing_registered_is_no_verdict(built: Built) -> None:
    pairs = pairing.pair("heldout", many(built.project, 1, 1), many(built.project, 0, 0))
    aims = two_runs.aims_of(pairing.measure([pairs], {"heldout": True}, 7, 200, {"harm": ACCURACY}), None)
    assert two_runs.verdict_of(aims) == "can't tell"
    assert {aim: value["verdict"] for aim, value in aims.items()} == dict.fromkeys(aims, "can't tell")


def test_items_are_paired_by_what_was_asked(built: Built) -> None:
    """Whatever their order; each suite's records are told apart, and are the same in the same run."""
    answered = {path.name for path in (built.project.folder / "data/eval").iterdir()}
    assert pairing.SUITES.keys() - answered == {"inspect"}, "tests/test_inspect.py asks its tasks"
    for name in answered:
        suite = pairing.SUITES[name]
        text = (built.project.folder / f"data/eval/{name}/tuned.jsonl").read_text(encoding="utf-8")
        records = [parsed(line.encode(), suite.record, name) for line in text.splitlines()]
        found = pairing.pair(name, records, records[:0:-1])
        assert (found.n, found.only_a, found.only_b) == (len(records) - 1, 1, 0)
        assert found.a == found.b == records[1:]
        assert found.overlap == pytest.approx(1 - 1 / len(records))


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("seed", "seeds"),
        ("generation.min_p", "sampling"),
        ("eval.jailbreaks.max_new_tokens", "sampling"),
        ("eval.judge", "judges"),
        ("models.judge", "judges"),
        ("models.train", "weights"),
        ("eval.primary.bound", "registered"),
        ("eval.traits.items", "prompts"),
        ("models.revise", differences.OTHER),
        ("train.beta", differences.OTHER),
    ],
)
def test_each_difference_is_of_a_group(name: str, about: str) -> None:
    assert differences.group(name) == about
