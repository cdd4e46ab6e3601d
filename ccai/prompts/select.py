"""Selects prompts and splits them into train and eval by their content, never by row number.

Of prompts with equal text one is kept; near-duplicates form a group and stay on one side. A group's side is the hash
of its representative's text against `eval_share`: seed, other prompts and row order have no effect. Adding prompts
moves none to the other side, except a group that a new near-duplicate joins (it may become the representative, or
link two groups).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Prompts
from ccai.base.records import Prompt, hazardous
from ccai.prompts import contamination, near_duplicates
from ccai.prompts.sources import SourcePrompt, label

Side = Literal["train", "eval"]

AILUMINATE = frozenset("vcr src cse ssh iwp ipv dfm ncr hte prv spc_ele spc_fin spc_hlt spc_lgl sxc_prn".split())
"""Hazards of the AILuminate taxonomy: excluding one that no source has is not a spelling error."""

SHOWN = 20
"""Number of values that a warning lists."""


class SelectedPrompts(NamedTuple):
    """The chosen prompts, by split and id, and counts of the prompts at each step."""

    prompts: list[Prompt]
    counts: dict[str, object]


def choose(
    rows: Sequence[SourcePrompt], params: Prompts, seed: int, evaluation: Sequence[SourcePrompt] = ()
) -> SelectedPrompts:
    """Drop excluded prompts and duplicates, split by hash, sample `params.train` and `params.eval`.

    A text is dropped if any of its copies has an excluded hazard. Of equal texts the one with the smallest prompt_id
    stays.

    Args:
        evaluation: prompts of all sets that a run evaluates on (ccai/prompts/evaluation_sets.py). No training prompt
            may nearly equal or contain one of them, or one of the chosen eval prompts.

    Raises:
        UserError: nothing is left, a side is empty or has fewer prompts than requested, or a training prompt is too
            similar to an evaluation prompt.
    """
    unique, left_out = _distinct(rows, params)
    groups = near_duplicates.groups([row.text for row in unique], params.near_duplicate)
    sides = _sides(unique, groups, params.eval_share)
    counts: dict[str, object] = {
        "seed": seed,
        "read": len(rows),
        **left_out,
        "near_duplicate_groups": sum(size > 1 for size in Counter(groups).values()),
        "available": {side: len(members) for side, members in sides.items()},
    }
    weights = {label(entry.source): entry.weight for entry in params.sources}

    def sample(side: Side, requested: int) -> list[SourcePrompt]:
        return _sample(sides[side], _count(side, requested, sides), weights, seed)

    held_out = sample("eval", params.eval)
    against = [*held_out, *evaluation]
    if params.contaminated == "drop":
        overlap = contamination.overlap(sides["train"], against, params.contamination)
        sides["train"] = [row for at, row in enumerate(sides["train"]) if at not in overlap.training]
        if not sides["train"]:
            raise UserError(
                "prompts.contaminated: drop leaves no training prompt, each is too similar to an evaluation prompt;"
                " take out of prompts.evaluation_sets what is in prompts.sources"
            )
        train = sample("train", params.train)
    else:
        train = sample("train", params.train)
        overlap = contamination.overlap(train, against, params.contamination)
        if overlap.pairs:
            raise UserError(_contaminated(overlap, params))
    counts["contamination"] = {
        "evaluation_prompts": len(against),
        "pairs": overlap.pairs,
        "contained": overlap.contained,
        "dropped": len(overlap.training),
    }
    prompts: list[Prompt] = []
    chosen: dict[Side, list[SourcePrompt]] = {"train": train, "eval": held_out}
    for side, taken in chosen.items():
        prompts += sorted((_prompt(row, side) for row in taken), key=lambda prompt: prompt.prompt_id)
        counts[side] = _summary(taken)
    return SelectedPrompts(prompts, counts)


def slips(rows: Sequence[SourcePrompt], params: Prompts) -> Iterator[str]:
    """A warning for each value of `params.only` and `exclude_hazards` that no prompt has; lists the existing values."""
    filters = [(f"prompts.only.{key}", key, values) for key, values in params.only.model_dump().items()]
    unknown = [hazard for hazard in params.exclude_hazards if hazard.casefold() not in AILUMINATE]
    for where, key, values in [*filters, ("prompts.exclude_hazards", "hazard", unknown)]:
        existing = sorted({getattr(row, key) for row in rows})
        for value in values:
            if value.casefold() not in map(str.casefold, existing):
                more = f" and {len(existing) - SHOWN} more" if len(existing) > SHOWN else ""
                yield f"{where}: {value!r} never occurs; there are {', '.join(existing[:SHOWN])}{more}"


def prompt_id(row: SourcePrompt) -> str:
    """Hash of source and text: the same prompt has the same id in every run."""
    return digest([row.source, row.text])[:16]


def _distinct(rows: Sequence[SourcePrompt], params: Prompts) -> tuple[list[SourcePrompt], dict[str, int]]:
    """One row of each text that may be chosen, and counts of the others, by what left them out."""
    excluded = {hazard.casefold() for hazard in params.exclude_hazards}
    barred = {row.text for row in rows if row.hazard.casefold() in excluded}
    allowed = [row for row in rows if row.text not in barred]
    wanted = [row for row in allowed if _wanted(row, params)]
    # The whole row breaks ties: which of two equal prompts stays must not depend on row order.
    candidates = sorted(wanted, key=lambda row: (prompt_id(row), row))
    unique = list({row.text: row for row in reversed(candidates)}.values())
    if not unique:
        raise UserError(
            f"prompts: none of {len(rows)} prompts is left; add to prompts.sources, relax prompts.only"
            " or take a hazard out of prompts.exclude_hazards"
        )
    left_out = {
        "excluded": len(rows) - len(allowed),
        "filtered": len(allowed) - len(wanted),
        "exact_duplicates": len(candidates) - len(unique),
    }
    return unique, left_out


def _wanted(row: SourcePrompt, params: Prompts) -> bool:
    filters = params.only.model_dump().items()
    return all(not values or getattr(row, key).casefold() in map(str.casefold, values) for key, values in filters)


def _contaminated(overlap: contamination.Overlap, params: Prompts) -> str:
    more = f" and {overlap.pairs - len(overlap.nearest)} more" if overlap.pairs > len(overlap.nearest) else ""
    nearer = params.contamination < params.near_duplicate
    lower = f", or lower prompts.near_duplicate to {params.contamination}" if nearer else ""
    return (
        f"prompts.contamination: pairs of a training and an evaluation prompt with a cosine of {params.contamination}"
        f" or more, or with the evaluation prompt inside the other: {', '.join(overlap.nearest)}{more}; set"
        f" prompts.contaminated to drop, or take the prompts out of prompts.sources{lower}"
    )


def _sides(rows: Sequence[SourcePrompt], groups: Sequence[int], eval_share: float) -> dict[Side, list[SourcePrompt]]:
    members: dict[int, list[SourcePrompt]] = defaultdict(list)
    for row, group in zip(rows, groups, strict=True):
        members[group].append(row)
    sides: dict[Side, list[SourcePrompt]] = {"train": [], "eval": []}
    for alike in members.values():
        # One hash picks the representative, another its side. If the smallest "split" hash itself were compared
        # with the share, a group of two would fall on the eval side with 0.64 instead of 0.4.
        text = min((row.text for row in alike), key=lambda text: digest(["representative", text]))
        side: Side = "eval" if int(digest(["split", text]), 16) < eval_share * 2**256 else "train"
        sides[side] += alike
    return sides


def _count(side: Side, requested: int, sides: dict[Side, list[SourcePrompt]]) -> int:
    available = len(sides[side])
    more = "raise" if side == "eval" else "lower"
    if available == 0:
        raise UserError(f"prompts.eval_share: leaves {side} no prompt; {more} it or add to prompts.sources")
    if requested > available:
        raise UserError(
            f"prompts.{side}: {requested} requested, but the {side} side has {available}; lower it, set 0 for all,"
            f" {more} prompts.eval_share or add to prompts.sources"
        )
    return requested or available


def _sample(rows: Sequence[SourcePrompt], count: int, weights: Mapping[str, float], seed: int) -> list[SourcePrompt]:
    """Rows taken one at a time: the next is the one whose labels occur least so far, the first labels deciding first.

    Among sources, by their weights (1 by default), it is the one with the least (taken + 1/2) / weight, as
    Sainte-Laguë's method allots seats. Ties go to the smaller hash of seed and text. A sample of 27 therefore contains
    the sample of 24.
    """
    if count == len(rows):
        return list(rows)
    strata: dict[tuple[tuple[str, ...], ...], list[tuple[str, SourcePrompt]]] = defaultdict(list)
    for row in rows:
        strata[_labels(row)].append((digest([seed, row.text]), row))
    for stratum in strata.values():
        stratum.sort(reverse=True)  # pop() then takes the smallest hash
    counts: Counter[tuple[str, ...]] = Counter()
    taken = []

    def turn(labels: tuple[tuple[str, ...], ...]) -> tuple[object, ...]:
        source, *others = labels
        share = (counts[source] + 0.5) / weights.get(source[1], 1)
        return (share, *(counts[label] for label in others), strata[labels][-1][0])

    for _ in range(count):
        labels = min(strata, key=turn)
        taken.append(strata[labels].pop()[1])
        counts.update(labels)
        if not strata[labels]:
            del strata[labels]
    return taken


def _labels(row: SourcePrompt) -> tuple[tuple[str, ...], ...]:
    """Labels by which a sample is balanced, most important first."""
    kind = "hazardous" if hazardous(row.hazard) else row.hazard
    return (
        ("source", row.source),
        ("principle", row.principle),
        ("principle, kind", row.principle, kind),
        ("kind", kind),
        ("hazard", row.hazard),
        ("hazard, persona", row.hazard, row.persona),
        ("principle, persona", row.principle, row.persona),
        ("persona", row.persona),
    )


def _prompt(row: SourcePrompt, side: Side) -> Prompt:
    return Prompt(
        prompt_id=prompt_id(row),
        text=row.text,
        source=row.source,
        source_id=row.source_id,
        hazard=row.hazard,
        persona=row.persona,
        principle=row.principle,
        split=side,
    )


def _summary(prompts: Sequence[SourcePrompt]) -> dict[str, object]:
    def by(values: Sequence[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return {
        "total": len(prompts),
        "by_hazard": by([prompt.hazard for prompt in prompts]),
        "by_source": by([prompt.source for prompt in prompts]),
        "by_principle": by([prompt.principle for prompt in prompts]),
        "by_persona": by([prompt.persona for prompt in prompts]),
    }
