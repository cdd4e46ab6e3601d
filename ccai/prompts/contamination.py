"""Training prompts that equal, nearly equal or contain evaluation prompts.

Two measures find them: the cosine of character 5-grams (`near_duplicates`) for texts that resemble each other as
wholes, and the share of the evaluation prompt's word 3-grams that the training text has (`containment`) for a prompt
inside a longer text.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccai.prompts import containment, near_duplicates
from ccai.prompts.near_duplicates import Integers
from ccai.prompts.sources import SourcePrompt

SHOWN = 10
"""Number of pairs that a message lists."""


class Overlap(NamedTuple):
    """Pairs of a training and an evaluation prompt that are too similar.

    Attributes:
        pairs: number of such pairs.
        contained: number of those whose cosine is below the threshold: the training prompt contains the other.
        training: positions of the training prompts among them.
        nearest: the most similar pairs, at most `SHOWN`, by source and place, without their texts.
    """

    pairs: int
    contained: int
    training: set[int]
    nearest: list[str]


class OverlappingPairs(NamedTuple):
    """A block of pairs: positions in both lists, and the measure that found them, in arrays of equal length.

    Attributes:
        contained: whether `similarity` is a containment; else it is a cosine.
    """

    left: Integers
    right: Integers
    similarity: npt.NDArray[np.float64]
    contained: bool


def pairs(training: Sequence[str], evaluation: Sequence[str], threshold: float) -> Iterator[OverlappingPairs]:
    """All pairs with a cosine of `threshold` or more, then those that only containment finds; none is missed."""
    for near in near_duplicates.similar(training, evaluation, threshold):
        yield OverlappingPairs(near.left, near.right, near.cosine, False)
    for block in containment.contained(training, evaluation):
        ends = zip(block.left.tolist(), block.right.tolist(), strict=True)
        apart = np.array([not near_duplicates.close(training[a], evaluation[b], threshold) for a, b in ends])
        if apart.any():
            yield OverlappingPairs(block.left[apart], block.right[apart], block.share[apart], True)


def overlap(training: Sequence[SourcePrompt], evaluation: Sequence[SourcePrompt], threshold: float) -> Overlap:
    """All `pairs` of prompts, counted."""
    count = contained = 0
    touched: set[int] = set()
    nearest: list[tuple[float, bool, int, int]] = []
    for block in pairs([row.text for row in training], [row.text for row in evaluation], threshold):
        count += len(block.left)
        contained += len(block.left) * block.contained
        touched.update(np.unique(block.left).tolist())
        ends = zip((-block.similarity).tolist(), block.left.tolist(), block.right.tolist(), strict=True)
        nearest = heapq.nsmallest(SHOWN, [*nearest, *((s, block.contained, a, b) for s, a, b in ends)])
    shown = [
        f"{_name(training[a])} ~ {_name(evaluation[b])} ({-similarity:.2f}{' contained' if inside else ''})"
        for similarity, inside, a, b in nearest
    ]
    return Overlap(count, contained, touched, shown)


def _name(row: SourcePrompt) -> str:
    return f"{row.source}:{row.place}"
