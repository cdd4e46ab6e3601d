"""Which prompts are used, and on which side of the train/eval split: decided by content, never by row number.

Prompts that share a text are one; prompts that nearly do are a group and stay on one side. A group's side is
the hash of its representative's text against `eval_share`: seed, other prompts and row order play no part.
Adding prompts moves none across, except a group that a new near-duplicate joins (it may become the
representative, or link two groups).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

from ccai.errors import UserError
from ccai.params import Prompts
from ccai.records import HARMLESS, UNSPECIFIED, Prompt, digest
from ccai.sources import Row

Side = Literal["train", "eval"]

GRAM = 5
"""Length in characters of the pieces by which texts are compared."""

CHUNK = 256
"""Prompts compared with all others at a time: bounds memory."""


class Choice(NamedTuple):
    """The chosen prompts, by split and id, and the numbers that say where the others went."""

    prompts: list[Prompt]
    counts: dict[str, object]


def choose(rows: Sequence[Row], params: Prompts, seed: int) -> Choice:
    """Leave out excluded hazards and duplicates, split by hash, sample `params.train` and `params.eval`.

    A text is out if any of its copies is labelled with an excluded hazard. Of equal texts the one with the
    smallest prompt_id stays.

    Raises:
        UserError: nothing is left, a side is empty, or a side has fewer prompts than asked for.
    """
    excluded = {hazard.casefold() for hazard in params.exclude_hazards}
    barred = {row.text for row in rows if row.hazard.casefold() in excluded}
    # The whole row breaks ties: which of two equal prompts stays must not depend on row order.
    there = [row for row in rows if row.text not in barred]
    candidates = sorted(there, key=lambda row: (prompt_id(row), row))
    unique = list({row.text: row for row in reversed(candidates)}.values())
    if not unique:
        raise UserError(
            f"prompts: none of {len(rows)} prompts is left; add to prompts.sources"
            " or take a hazard out of prompts.exclude_hazards"
        )
    groups = near_duplicates([row.text for row in unique], params.near_duplicate)
    sides = _sides(unique, groups, params.eval_share)
    counts: dict[str, object] = {
        "seed": seed,
        "read": len(rows),
        "excluded": len(rows) - len(candidates),
        "exact_duplicates": len(candidates) - len(unique),
        "near_duplicate_groups": sum(size > 1 for size in Counter(groups).values()),
        "available": {side: len(members) for side, members in sides.items()},
    }
    asked: dict[Side, int] = {"train": params.train, "eval": params.eval}
    prompts: list[Prompt] = []
    for side, number in asked.items():
        taken = [_prompt(row, side) for row in _sample(sides[side], _count(side, number, sides), seed)]
        prompts += sorted(taken, key=lambda prompt: prompt.prompt_id)
        counts[side] = _summary(taken)
    return Choice(prompts, counts)


def prompt_id(row: Row) -> str:
    """Hash of source and text: the same prompt has the same id in every run."""
    return digest([row.source, row.text])[:16]


def near_duplicates(texts: Sequence[str], threshold: float) -> list[int]:
    """A group number per text; texts linked by cosines of `threshold` or more, even in a chain, share it.

    The cosine is that of the sets of character 5-grams, with case and white space evened out.
    """
    grams = CountVectorizer(analyzer=_grams, binary=True, dtype=np.int32).fit_transform(texts)
    sizes: npt.NDArray[np.int64] = np.diff(grams.indptr).astype(np.int64)
    left, right = [], []
    for start in range(0, len(texts), CHUNK):
        shared = (grams[start : start + CHUNK] @ grams.T).tocoo()
        row = shared.row + start
        # Whole numbers up to here: the cosine of equal sets is exactly 1, on every machine.
        close = shared.data >= threshold * np.sqrt(sizes[row] * sizes[shared.col])
        left.append(row[close])
        right.append(shared.col[close])
    ends = (np.concatenate(left), np.concatenate(right))
    links = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(len(texts), len(texts)))
    return [int(group) for group in connected_components(links, directed=False)[1]]


def _grams(text: str) -> set[str]:
    even = f" {' '.join(text.casefold().split())} "
    return {even[i : i + GRAM] for i in range(max(1, len(even) - GRAM + 1))}


def _sides(rows: Sequence[Row], groups: Sequence[int], eval_share: float) -> dict[Side, list[Row]]:
    members: dict[int, list[Row]] = defaultdict(list)
    for row, group in zip(rows, groups, strict=True):
        members[group].append(row)
    sides: dict[Side, list[Row]] = {"train": [], "eval": []}
    for alike in members.values():
        # One hash picks the representative, another its side. Were the smallest "split" hash itself compared
        # with the share, a group of two would fall on the eval side with 0.64 instead of 0.4.
        text = min((row.text for row in alike), key=lambda text: digest(["representative", text]))
        side: Side = "eval" if int(digest(["split", text]), 16) < eval_share * 2**256 else "train"
        sides[side] += alike
    return sides


def _count(side: Side, asked: int, sides: dict[Side, list[Row]]) -> int:
    there = len(sides[side])
    more = "raise" if side == "eval" else "lower"
    if there == 0:
        raise UserError(f"prompts.eval_share: leaves {side} no prompt; {more} it or add to prompts.sources")
    if asked > there:
        raise UserError(
            f"prompts.{side}: {asked} asked for, but the {side} side has {there}; lower it, set 0 for all,"
            f" {more} prompts.eval_share or add to prompts.sources"
        )
    return asked or there


def _sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Rows taken one at a time: next is the one whose labels came up least, the important ones first.

    Between equals the hash of seed and text decides. Hence a sample of 27 contains the sample of 24.
    """
    if count == len(rows):
        return list(rows)
    strata: dict[tuple[tuple[str, ...], ...], list[tuple[str, Row]]] = defaultdict(list)
    for row in rows:
        strata[_labels(row)].append((digest([seed, row.text]), row))
    for stratum in strata.values():
        stratum.sort(reverse=True)  # so that pop() takes the smallest hash
    seen: Counter[tuple[str, ...]] = Counter()
    taken = []
    for _ in range(count):
        labels = min(strata, key=lambda labels: (*(seen[label] for label in labels), strata[labels][-1][0]))
        taken.append(strata[labels].pop()[1])
        seen.update(labels)
        if not strata[labels]:
            del strata[labels]
    return taken


def _labels(row: Row) -> tuple[tuple[str, ...], ...]:
    """What a sample is kept even in, most important first."""
    kind = row.hazard if row.hazard in HARMLESS | {UNSPECIFIED} else "hazardous"
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


def _prompt(row: Row, side: Side) -> Prompt:
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


def _summary(prompts: Sequence[Prompt]) -> dict[str, object]:
    def by(values: Sequence[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return {
        "total": len(prompts),
        "by_hazard": by([prompt.hazard for prompt in prompts]),
        "by_source": by([prompt.source for prompt in prompts]),
        "by_principle": by([prompt.principle for prompt in prompts]),
        "by_persona": by([prompt.persona for prompt in prompts]),
    }
