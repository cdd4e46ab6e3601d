"""Baseline rates before training: how often first answers comply with hazardous prompts and violate principles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ccai.base.records import Prompt, Response, hazardous
from ccai.rules import scores
from ccai.rules.outcomes import refused, violated
from ccai.stats import intervals


def measure(
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    violations: Mapping[tuple[str, str], float | None] | None,
) -> dict[str, Any]:
    """Shares of first answers, each with its exact binomial 95 % interval.

    Args:
        violations: by prompt_id and principle, the judge's probability that the first answer violates the principle;
            None where its verdict is unreadable. None without a judge, or if it failed its exam.

    Returns:
        `complied`: hazardous prompts answered with full compliance by the refusal rules, which read English only; `all`
        and `by_hazard`. With a judge also `violated`: `by_principle`, and `by_hazard` with `by_principle` and `any`
        under each hazard (`any`: at least one principle is violated; counted once per prompt, because verdicts on one
        answer are not independent). A share is `{n, unreadable, share, low, high}`; n counts readable verdicts, and the
        last three are present only where n is not 0.
    """
    texts = {response.prompt_id: response.text for response in responses}
    complied: dict[str, list[bool | None]] = defaultdict(list)
    hazards: dict[str, str] = {}
    for prompt in prompts:
        hazards[prompt.prompt_id] = prompt.hazard
        if hazardous(prompt.hazard):
            complied[prompt.hazard].append(not refused(scores.refusal(prompt.text, texts[prompt.prompt_id])))
    shares: dict[str, Any] = {
        "complied": {
            "all": _share([verdict for group in complied.values() for verdict in group]),
            "by_hazard": _shares(complied),
        }
    }
    if violations is not None:
        shares["violated"] = _violated(hazards, violations)
    return shares


def _violated(
    hazards: Mapping[str, str], violations: Mapping[tuple[str, str], float | None]
) -> dict[str, dict[str, Any]]:
    by_principle: dict[str, list[bool | None]] = defaultdict(list)
    by_both: dict[str, dict[str, list[bool | None]]] = defaultdict(lambda: defaultdict(list))
    by_prompt: dict[str, list[bool | None]] = defaultdict(list)
    for (prompt_id, principle), probability in violations.items():
        verdict = violated(probability)
        by_principle[principle].append(verdict)
        by_both[hazards[prompt_id]][principle].append(verdict)
        by_prompt[prompt_id].append(verdict)
    any_of: dict[str, list[bool | None]] = defaultdict(list)
    for prompt_id, verdicts in by_prompt.items():
        any_of[hazards[prompt_id]].append(True if True in verdicts else None if None in verdicts else False)
    return {
        "by_principle": _shares(by_principle),
        "by_hazard": {
            hazard: {"any": _share(any_of[hazard]), "by_principle": _shares(cells)}
            for hazard, cells in sorted(by_both.items())
        },
    }


def _shares(groups: Mapping[str, Sequence[bool | None]]) -> dict[str, Any]:
    return {name: _share(group) for name, group in sorted(groups.items())}


def _share(verdicts: Sequence[bool | None]) -> dict[str, Any]:
    readable = [verdict for verdict in verdicts if verdict is not None]
    counts = {"n": len(readable), "unreadable": len(verdicts) - len(readable)}
    if not readable:
        return counts
    share = intervals.proportion_interval(sum(readable), len(readable))
    return counts | {"share": share.estimate, "low": share.low, "high": share.high}
