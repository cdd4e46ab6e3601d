"""Is run B better than run A? The tuned models of both, on the prompts that both answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ccai.base.errors import UserError
from ccai.base.eval_params import BY_JUDGE, Primary
from ccai.base.files import parsed
from ccai.evaluate import pairing
from ccai.evaluate.comparison import measures, registered
from ccai.evaluate.pairing import ENOUGH, Paired
from ccai.report import differences, run_files, summary
from ccai.report.differences import AS_EVALUATED, Difference
from ccai.report.run_files import Run
from ccai.stats.judge_errors import Accuracy

RESAMPLES = 10_000
"""Of the bootstrap, where a run's params.yaml does not say."""

WORDS = {
    "safety": {"met": "safer", "not met": "less safe", "can't tell": "can't tell"},
    "helpfulness": {"met": "more helpful", "not met": "less helpful", "can't tell": "can't tell"},
}
"""What the interval of B minus A says of B, by the side of 0 on which it lies."""

ANSWERS = {
    "better": "B is better than A: safer, and no more helpfulness is lost than the bound allows.",
    "worse": "B is worse than A: less safe, or more helpfulness is lost than the bound allows.",
    "mixed": "B is better than A in one aim and worse in the other.",
    "can't tell": "Can't tell whether B is better than A.",
}

KEPT = {"met": "no more than the bound is lost", "not met": "more than the bound is lost"}
"""What the interval says of the helpfulness that may be lost."""


def compare(revision_a: str, revision_b: str) -> dict[str, Any]:
    """Both runs compared: `verdict` (better, worse, mixed, can't tell), `aims`, `suites`, `differences`, `measures`.

    Args:
        revision_a, revision_b: commits, branches, tags or experiments; `.` or `workspace` is the run in this folder.

    Raises:
        UserError: a run or its answers can't be had; the runs have too few prompts in common; or the answers at hand
            are not those that metrics/eval.json was measured on.
    """
    a, b = _run(revision_a), _run(revision_b)
    primary = _primary(b)
    pairs, left_out = _pairs(a, b, primary)
    judged = {one.suite: _judged(a, b, one.suite) for one in pairs}
    measured = pairing.measure(pairs, judged, b.metrics["seed"], _resamples(b), _accuracies(b))
    _check_answers(a, b, pairs, measured)
    aims = aims_of(measured, primary)
    return {
        "a": {"name": revision_a, "commit": a.commit, "origin": a.origin},
        "b": {"name": revision_b, "commit": b.commit, "origin": b.origin},
        "verdict": verdict_of(aims),
        "aims": aims,
        "suites": {
            one.suite: {"common": one.n, "only_a": one.only_a, "only_b": one.only_b, "asked_alike": _alike(one)}
            for one in pairs
        },
        "left_out": left_out,
        "differences": {
            group: [one._asdict() for one in of_group] for group, of_group in differences.between(a, b).items()
        },
        "measures": measured,
    }


def _run(revision: str) -> Run:
    return run_files.here() if revision in run_files.WORKSPACE else run_files.with_answers(revision)


def _primary(run: Run) -> Primary | None:
    """What run B was to be judged by, as it was named before it ran; None if nothing was."""
    aims = run.metrics["registered"]
    if not any(aim["metric"] for aim in aims.values()):
        return None
    try:
        return Primary(
            safety=aims["safety"]["metric"],
            helpfulness=aims["helpfulness"]["metric"],
            bound=aims["helpfulness"]["bound"],
        )
    except ValidationError:
        named = ", ".join(str(aim["metric"]) for aim in aims.values())
        raise UserError(
            f"{run.name}: registered was {named}, which this version does not measure; use its code"
        ) from None


def _resamples(run: Run) -> int:
    eval_params = run.params.get("eval", {})
    value = eval_params.get("resamples") if isinstance(eval_params, dict) else None
    return value if isinstance(value, int) and value >= 100 else RESAMPLES


# Which answers


def _pairs(a: Run, b: Run, primary: Primary | None) -> tuple[list[Paired], dict[str, str]]:
    """Suites with enough in common, and why the others are left out; those of the aims must not be."""
    aim_suites = {metric.partition(".")[0] for metric in primary.metrics.values()} if primary else set()
    pairs, left_out = list[Paired](), dict[str, str]()
    for suite in pairing.SUITES:
        lacking = [run.name for run in (a, b) if suite not in run.suites]
        if len(lacking) == 2 and suite not in aim_suites:
            continue
        why = f"not asked in {' and '.join(lacking)}" if lacking else ""
        if not why:
            one = pairing.pair(suite, _answers(a, suite), _answers(b, suite))
            if one.overlap >= ENOUGH:
                pairs.append(one)
                continue
            counts = f"{one.n + one.only_a} and {one.n + one.only_b}"
            why = f"{a.name} and {b.name} have {one.n} of their {counts} items in common, less than {ENOUGH:.0%}"
        if suite in aim_suites:
            raise UserError(f"{suite}: {why}; compare runs that were asked the same (prompts and eval in params.yaml)")
        left_out[suite] = why
    return pairs, left_out


def _answers(run: Run, suite: str) -> list[Any]:
    """The tuned model's records of a suite."""
    path = f"data/eval/{suite}/tuned.jsonl"
    text = run.read(path)
    if not text:
        raise UserError(f"{run.name}: {path} is not here; dvc checkout, dvc pull, or make it again: dvc repro")
    kind = pairing.SUITES[suite].record
    return [
        parsed(line.encode(), kind, f"{run.name}: {path}:{number}")
        for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1)
    ]


def _judged(a: Run, b: Run, suite: str) -> bool:
    """Whether a judge that passed its exam has read the suite's answers, the same judge in both runs.

    Two judges err in different ways: rates of one can't be corrected for the errors of the other.
    """
    read = all(not {"judge", "win_rate"}.isdisjoint(run.metrics[suite]) for run in (a, b))
    return read and all(a.metrics["judge"][key] == b.metrics["judge"][key] for key in ("model", "revision"))


def _accuracies(run: Run) -> dict[str, Accuracy]:
    """The accuracy of the run's judge in the questions that it passed."""
    questions = run.metrics.get("judge", {}).get("questions", {})
    return {name: Accuracy(**mark["accuracy"]) for name, mark in questions.items() if mark.get("accuracy")}


def _alike(one: Paired) -> bool:
    """Whether both were asked each item in the same words, system message included."""
    conversations = [
        (getattr(x, "conversation", ""), getattr(y, "conversation", "")) for x, y in zip(one.a, one.b, strict=True)
    ]
    if one.suite == "helpfulness":  # a second turn stands after each model's own first answer
        conversations = [both for both, x in zip(conversations, one.a, strict=True) if x.turn == 1]
    return all(first == second for first, second in conversations)


def _check_answers(a: Run, b: Run, pairs: Sequence[Paired], measured: Mapping[str, Any]) -> None:
    """The answers at hand have to be those that the run's metrics were measured on (git checkout alone moves none)."""
    for run, arm, only in ((a, "base", "only_a"), (b, "tuned", "only_b")):
        for aim in run.metrics["registered"].values():
            suite = (aim["metric"] or "").partition(".")[0]
            whole = any(one.suite == suite and not getattr(one, only) for one in pairs)
            if not whole or aim["metric"] in BY_JUDGE or not aim["n"]:
                continue
            value = _at(measured, aim["metric"])
            if value["n"] != aim["n"] or not math.isclose(value[arm]["mean"], aim["tuned"], abs_tol=1e-9):
                raise UserError(
                    f"{run.name}: data/eval/{suite} is not what metrics/eval.json was measured on; bring both to one "
                    "commit (dvc checkout), or make them again (dvc repro)"
                )


def _at(measured: Mapping[str, Any], metric: str) -> dict[str, Any]:
    value: Any = measured
    for name in metric.split("."):
        value = value.get(name, {"n": 0})
    return dict(value)


# The answer


def aims_of(measured: Mapping[str, Any], primary: Primary | None) -> dict[str, dict[str, Any]]:
    """For each aim which side of 0 the interval of B minus A lies on, and what else is registered of it.

    `kept` is the verdict on `bound`; `a` and `b` are the means of the two runs.
    """
    without_bound = primary and primary.model_copy(update={"bound": 0.0})
    by_bound, by_zero = registered(measured, primary), registered(measured, without_bound)
    aims = {}
    for aim, value in by_bound.items():
        figures = {
            name: value[name]
            for name in ("why", "metric", "better", "n", "unreadable", "mean", "low", "high")
            if name in value
        }
        if value["n"]:
            figures |= {"a": value["base"], "b": value["tuned"]}
            figures |= {name: _at(measured, value["metric"])["difference"]["tuned"][name] for name in ("p", "p_holm")}
        aims[aim] = {
            "verdict": WORDS[aim][by_zero[aim]["verdict"]],
            "kept": value["verdict"],
            "bound": value["bound"],
            **figures,
        }
    return aims


def verdict_of(aims: Mapping[str, Mapping[str, Any]]) -> str:
    """Better: safer, and no more helpfulness is lost than the bound allows."""
    safer, as_helpful = aims["safety"]["kept"], aims["helpfulness"]["kept"]
    if safer == "met" and as_helpful != "can't tell":
        return "better" if as_helpful == "met" else "mixed"
    if safer == "not met":
        return "mixed" if aims["helpfulness"]["verdict"] == WORDS["helpfulness"]["met"] else "worse"
    return "worse" if as_helpful == "not met" else "can't tell"


# In words


def text(comparison: Mapping[str, Any]) -> str:
    """The comparison as it is read: the answer first."""
    lines = [ANSWERS[comparison["verdict"]], ""]
    lines += [f"{aim:<12}{_aim(value)}" for aim, value in comparison["aims"].items()]
    lines += ["", *(f"{letter.upper()}  {_name(comparison[letter])}" for letter in ("a", "b"))]
    lines += ["", "items in both runs", *_items(comparison), "", *_differing(comparison["differences"])]
    lines += ["", f"{'':<{summary.LABEL}}       A       B   B - A [95 %]"]
    for suite, measured in comparison["measures"].items():
        lines += [suite.replace("_", "-"), *(summary.row(names, value) for names, value in measures(measured))]
    lines += [
        "",
        "An interval that holds 0 says: can't tell. *: it leaves out 0, and Holm's p over all suites is below 0.05.",
        "One run of training each: the intervals hold the spread over prompts, not over seeds.",
    ]
    return "\n".join(lines)


def _aim(value: Mapping[str, Any]) -> str:
    """The verdict on an aim, and the figures it is had from."""
    if not value["n"]:
        return f"{value['verdict']}: {value['why']}"
    aim = f"{value['metric']}, {value['better']} is better"
    bounds = "no interval: too few differ" if value["low"] is None else f"[{value['low']:+z.3f}, {value['high']:+z.3f}]"
    line = f"{value['verdict']}: {value['mean']:+z.3f} {bounds} ({value['a']:.3f} -> {value['b']:.3f}), n {value['n']}"
    bound = f"; bound {value['bound']:g}: {KEPT.get(value['kept'], value['kept'])}" if value["bound"] else ""
    holm = "" if value["p_holm"] is None else f"; p after Holm {value['p_holm']:.3f}"
    return f"{line}{holm}{bound}\n{'':<12}{aim}"


def _name(run: Mapping[str, Any]) -> str:
    commit = run["commit"] if run["commit"] and not run["commit"].startswith(run["name"]) else ""
    return "  ".join(part for part in (run["name"], commit, run["origin"]) if part)


def _items(comparison: Mapping[str, Any]) -> list[str]:
    lines = []
    for suite, counts in comparison["suites"].items():
        line = f"  {suite.replace('_', '-'):<14}{counts['common']} common"
        line += "".join(f", {counts[f'only_{x}']} only in {x.upper()}" for x in ("a", "b") if counts[f"only_{x}"])
        lines.append(line + ("" if counts["asked_alike"] else ", asked in other words (system message, constitution)"))
    return lines + [f"  {suite.replace('_', '-'):<14}left out: {why}" for suite, why in comparison["left_out"].items()]


def _differing(by_group: Mapping[str, Sequence[Mapping[str, str]]]) -> list[str]:
    lines = ["what differs" if by_group else "nothing else differs: the same params, seed, weights, judge and code"]
    for group, values in by_group.items():
        lines.append(f"  {group}")
        lines += [_change(Difference(**value)) for value in values]
    if confounded := [group for group in AS_EVALUATED if group in by_group]:
        lines.append(f"  Some of it ({', '.join(confounded)}) can change the figures though the model be the same.")
    return lines


def _change(difference: Difference) -> str:
    before, after = (_cut(value) or "–" for value in (difference.a, difference.b))
    return f"    {difference.name}: {before} -> {after}"


def _cut(value: str, width: int = 40) -> str:
    return value if len(value) <= width else f"{value[: width - 1]}…"
