"""Which conversations begin with the same tokens, so that these are read once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple


class Question(NamedTuple):
    """Conversations that differ only at their ends, such as the two orders of a question to a judge.

    `places` are their indices, `shared` is the number of tokens that all of them begin with, and `tokens` the number to
    read beyond the prefix of all questions.
    """

    places: list[int]
    shared: int
    tokens: int


def alike(rows: Sequence[list[int]]) -> int:
    """Number of tokens that all rows begin with; 0 for a single row, and never all of a row."""
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)  # first and last of a sorted list share what all share
    same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False)))
    return min(same, min(map(len, rows)) - 1)


def questions(rows: Sequence[list[int]], shared: int) -> list[Question]:
    """Rows grouped where at least half of their remaining tokens are the same."""
    groups: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda place: rows[place]):
        if groups and 2 * (alike([rows[groups[-1][0]], rows[place]]) - shared) >= len(rows[place]) - shared:
            groups[-1].append(place)
        else:
            groups.append([place])
    result = []
    for places in groups:
        begin = max(shared, alike([rows[place] for place in places]))
        result.append(Question(places, begin, begin - shared + sum(len(rows[place]) - begin for place in places)))
    return result
