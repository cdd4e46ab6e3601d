"""A reviewer's work: the sample of pairs, the view of the page, and the verdicts so far."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ccai.base import files
from ccai.base.hashing import digest
from ccai.base.records import DroppedPair, Pair
from ccai.review.log import Log, Review, content, shown_first, standing

PAIRS = Path("data/pairs")

MOST_WORDS = 5000
"""Words of both answers up to which their difference is computed: the cost is the product of the two."""

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


def sample(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """`count` pairs, taken one at a time: next is the one whose labels occur least so far, the first labels deciding
    first.

    No prompt comes twice before each came once, and principles and hazards stay balanced. Ties go to the smaller hash
    of seed and content: the files' order has no effect, and a larger sample begins with the smaller one.
    """
    pool = {key: (_strata(pair), digest([seed, key]), pair) for pair in pairs for key in [content(pair)]}
    counts: Counter[tuple[str, ...]] = Counter()
    taken = []
    for _ in range(min(count, len(pool))):
        key = min(pool, key=lambda key: (*(counts[stratum] for stratum in pool[key][0]), pool[key][1]))
        strata, _, pair = pool.pop(key)
        counts.update(strata)
        taken.append(pair)
    return taken


def _strata(pair: Pair) -> tuple[tuple[str, ...], ...]:
    return (
        ("prompt", pair.prompt_id),
        ("principle", pair.principle),
        ("hazard", pair.hazard),
        ("principle, hazard", pair.principle, pair.hazard),
    )


@dataclass
class View:
    """State of one open page: a hazard and a principle to filter by (empty: all), and whether to mark differences."""

    hazard: str = ""
    principle: str = ""
    difference: bool = False

    def shows(self, pair: Pair) -> bool:
        """Whether the filters include a pair."""
        return self.hazard in ("", pair.hazard) and self.principle in ("", pair.principle)


def difference(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]] | None:
    """Both texts in parts, each with whether only this text has it, by words; None if they are too long."""
    words = [re.findall(r"\S+\s*|\s+", text) for text in (first, second)]
    if sum(map(len, words)) > MOST_WORDS:
        return None
    bare = [[word.strip() for word in text] for text in words]
    parts: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for kind, *places in difflib.SequenceMatcher[str](None, bare[0], bare[1], autojunk=False).get_opcodes():
        for text, into, begin, end in zip(words, parts, places[::2], places[1::2], strict=True):
            if begin < end:
                into.append(("".join(text[begin:end]), kind != "equal"))
    return parts


class Desk:
    """A reviewer, a sample, and the verdicts so far."""

    def __init__(self, pairs: Sequence[Pair], log: Log, reviewer: str) -> None:
        self.pairs = {content(pair): pair for pair in pairs}
        self.log = log
        self.reviewer = reviewer

    @property
    def verdicts(self) -> dict[str, Review]:
        """Standing verdicts on the sample, the latest last."""
        return {key: review for key, review in standing(self.log.reviews).items() if key in self.pairs}

    def current(self, view: View) -> str | None:
        """`content` of the next pair in a view; None when all its pairs have a verdict."""
        done = self.verdicts
        return next((key for key, pair in self.pairs.items() if key not in done and view.shows(pair)), None)

    def labels(self, of: Callable[[Pair], str]) -> list[str]:
        """The sample's hazards, or its principles."""
        return sorted({of(pair) for pair in self.pairs.values()})

    def answers(self, key: str) -> tuple[str, str]:
        """The two answers in the order of display."""
        pair = self.pairs[key]
        chosen, rejected = pair.chosen[-1].content, pair.rejected[-1].content
        return (chosen, rejected) if shown_first(pair, self.reviewer) == "chosen" else (rejected, chosen)

    def choose(self, key: str, choice: Choice, note: str) -> None:
        """Write a verdict, unless this pair has received one meanwhile, from another page or a second key press.

        Raises:
            OSError: it could not be written.
        """
        if key not in self.verdicts:
            self._append(key, choice, note.strip())

    def undo(self) -> None:
        """Withdraw the latest verdict, so that its pair is shown again.

        Raises:
            OSError: it could not be written.
        """
        if done := list(self.verdicts):
            self._append(done[-1], "undo", "")

    def _append(self, key: str, choice: Choice | Literal["undo"], note: str) -> None:
        pair = self.pairs[key]
        self.log.append(
            Review(
                pair_id=pair.pair_id,
                content=key,
                first=shown_first(pair, self.reviewer),
                choice=choice,
                note=note,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )


def read_pairs(*, dropped: bool) -> list[Pair]:
    """All kept pairs and, if `dropped`, also the dropped ones."""
    pairs = [pair for side in ("train", "validation") for pair in files.read(PAIRS / f"{side}.jsonl", Pair)]
    return pairs + list[Pair](files.each(PAIRS / "dropped.jsonl", DroppedPair)) if dropped else pairs
