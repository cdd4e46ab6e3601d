"""What differs between two runs apart from their answers: prompts, seeds, judges, sampling, weights, code, training."""

from __future__ import annotations

from typing import Any, NamedTuple

from ccai.base import params
from ccai.base.code import CODE
from ccai.report import run_files
from ccai.report.run_files import Run

GROUPS: dict[str, tuple[str, ...]] = {
    "seeds": ("seed",),
    "judges": ("models.judge", "eval.judge", "judged_by", "judge."),
    "sampling": ("generation.", "responses."),
    "weights": ("model", "revision", "adapter", "models.train", "hardware."),
    "code": ("code.",),
    "registered": ("eval.primary.", "eval.arms", "eval.resamples"),
    "prompts": ("prompts.", "eval."),
}
"""Of what a difference is, by how its name begins; the first that fits."""

OTHER = "how it was made"
"""All other parameters: of the pairs and of the training."""

LIMITS = ".max_new_tokens"
"""How the name of a length limit ends, which is a part of sampling in every suite."""

AS_EVALUATED = ("seeds", "judges", "sampling", "code", "prompts")
"""Groups in which a difference can by itself change what is measured, though the model be the same."""


class Difference(NamedTuple):
    """A value that differs; empty where a run has none."""

    name: str
    a: str
    b: str


def between(a: Run, b: Run) -> dict[str, list[Difference]]:
    """What differs, by group; groups without a difference are left out."""
    first, second = _facts(a), _facts(b)
    by_group: dict[str, list[Difference]] = {}
    for name in [*first, *(second.keys() - first.keys())]:
        difference = Difference(name, first.get(name, ""), second.get(name, ""))
        if difference.a != difference.b:
            by_group.setdefault(group(name), []).append(difference)
    return {name: by_group[name] for name in (*GROUPS, OTHER) if name in by_group}


def group(name: str) -> str:
    """What a parameter or a fact is about."""
    if name.endswith(LIMITS) and name.startswith("eval."):
        return "sampling"
    for about, beginnings in GROUPS.items():
        if any(name == one or (one.endswith(".") and name.startswith(one)) for one in beginnings):
            return about
    return OTHER


def _facts(run: Run) -> dict[str, str]:
    """Facts of metrics/eval.json and dvc.lock, and all parameters."""
    metrics = run.metrics
    facts: dict[str, Any] = {name: metrics[name] for name in ("seed", "model", "revision", "adapter", "judged_by")}
    if judge := metrics.get("judge"):
        facts["judge.passed"] = judge["passed"]
        facts["judge.revision"] = judge.get("revision", "")
    if code := run.lock["stages"].get("eval", {}).get("params", {}).get(str(CODE), {}).get("eval"):
        facts["code.eval"] = code
    values = {name: value for name, value in run_files.flat(_params(run)).items() if name not in facts}
    return run_files.flat(facts) | values


def _params(run: Run) -> dict[str, Any]:
    """Those that the stages ran with: a params.yaml may have been changed since."""
    ran = [stage["params"].get(str(params.PARAMS), {}) for stage in run.lock["stages"].values()]
    return {name: value for of_stage in ran for name, value in of_stage.items()} or run.params
