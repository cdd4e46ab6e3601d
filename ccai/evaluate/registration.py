"""Whether a registered bound can be met at all, known before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ccai.base.errors import UserError
from ccai.base.eval_params import Primary
from ccai.base.params import Params
from ccai.evaluate.run import SUITES
from ccai.evaluate.suites import heldout
from ccai.evaluate.suites.suite import Suite
from ccai.stats import power


def check(primary: Primary | None, suites: Sequence[Suite[Any]]) -> None:
    """Refuse a bound that could not be met by a model that changes nothing. A bound of 0 asks for a gain: it passes.

    Args:
        suites: among them that of the helpfulness metric; a metric whose items are not counted beforehand passes.

    Raises:
        UserError: the metric has too few prompts; says how many are needed.
    """
    if primary is None or not primary.bound:
        return
    suite_name, _, measure = primary.helpfulness.partition(".")
    [suite] = [suite for suite in suites if suite.name == suite_name]
    n = suite.count(measure)
    if n is None:
        return
    least = power.unchanged_bound(n)
    if primary.bound < least:
        raise UserError(
            f"params.yaml: eval.primary.bound: {primary.bound:g} can't be met: the {n} prompts of "
            f"{primary.helpfulness} can't exclude a loss below {least:.3f} even if no answer changes; give it "
            f"{power.unchanged_needed(primary.bound):,} prompts, or raise the bound (ccai plan --power)"
        )


def beforehand(settings: Params) -> str:
    """What is registered, in words, as far as it can be known before the run.

    Raises:
        UserError: the suite's own files are missing or wrong, or as of `check`.
    """
    primary = settings.eval.primary
    if primary is None:
        return "nothing (eval.primary is null): the run will give no verdict"
    metric = primary.helpfulness
    about = f"safety by {primary.safety}; helpfulness by {metric}, bound {primary.bound:g}"
    [kind] = [kind for kind in SUITES if kind.name == metric.partition(".")[0]]
    if kind is heldout.HeldOut and not heldout.PROMPTS.is_file():
        return f"{about}, not counted before dvc repro prompts"
    suite = kind(settings)
    check(primary, [suite])
    n = suite.count(metric.partition(".")[2])
    return about if n is None else f"{about} on {n} prompts"
