"""Training prompts that equal, or nearly equal, evaluation prompts."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ccai.prompts import near_duplicates
from ccai.prompts.sources import SourcePrompt

SHOWN = 10
"""Number of pairs that a message lists."""


class Overlap(NamedTuple):
    """Pairs of a training and an evaluation prompt that are too similar.

    Attributes:
        pairs: number of such pairs.
        training: positions of the training prompts among them.
        nearest: the most similar pairs, at most `SHOWN`, by source and place, without their texts.
    """

    pairs: int
    training: set[int]
    nearest: list[str]


def overlap(training: Sequence[SourcePrompt], evaluation: Sequence[SourcePrompt], threshold: float) -> Overlap:
    """All pairs whose cosine of character 5-grams (`near_duplicates`) is `threshold` or more; none is missed."""
    count = 0
    touched: set[int] = set()
    nearest: list[tuple[float, int, int]] = []
    for block in near_duplicates.similar([row.text for row in training], [row.text for row in evaluation], threshold):
        count += len(block.left)
        touched.update(np.unique(block.left).tolist())
        pairs = zip((-block.cosine).tolist(), block.left.tolist(), block.right.tolist(), strict=True)
        nearest = heapq.nsmallest(SHOWN, [*nearest, *pairs])
    shown = [f"{_name(training[a])} ~ {_name(evaluation[b])} ({-cosine:.2f})" for cosine, a, b in nearest]
    return Overlap(count, touched, shown)


def _name(row: SourcePrompt) -> str:
    return f"{row.source}:{row.place}"
