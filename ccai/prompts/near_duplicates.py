"""Texts that nearly equal each other: every pair above a threshold, none missed, in bounded memory.

The similarity of two texts is the cosine of their sets of character 5-grams, ignoring case and white space: the number
of shared grams over the root of the product of the sets' sizes. scipy's sparse product counts shared grams.

A few grams rule most pairs out. Order the grams from rare to common. Sets of cosine t or more share at least t² of
either's grams, so they have one in common among the first n - ceil(t²n) + 1 of their n: their prefix (Bayardo, Ma and
Srikant 2007, "Scaling up all pairs similarity search"). The grams that two prefixes share, plus the grams that may
follow, bound the whole (Xiao et al. 2008, "Efficient similarity joins for near duplicate detection", PPJoin's
positional filter). The remaining pairs are counted in full.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

GRAM = 5
"""Length of a gram in characters."""

BUDGET = 2**20
"""Characters, products or grams processed at a time. Bounds memory, at some tens of bytes each."""

Integers = npt.NDArray[np.int64]


class SimilarPairs(NamedTuple):
    """A block of pairs: positions in the left and the right list, and cosines, in arrays of equal length."""

    left: Integers
    right: Integers
    cosine: npt.NDArray[np.float64]


def similar(left: Sequence[str], right: Sequence[str], threshold: float) -> Iterator[SimilarPairs]:
    """All pairs of a left and a right text with a cosine of `threshold` (above 0) or more, in blocks.

    Memory grows with `right` and with the number of texts in `left`; pass the longer list first.
    """
    if not right:
        return
    vocabulary = Vocabulary()
    right_counts = vocabulary.learn(grams(text) for text in right)
    frequency = np.bincount(right_counts.indices, minlength=right_counts.shape[1])
    rank = np.empty(len(frequency), dtype=np.int32)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(rank), dtype=np.int32)
    right_sets = _Sets(right_counts, rank, np.diff(right_counts.indptr).astype(np.int64), threshold)
    index = csr_array(right_sets.prefix.T)
    postings = np.diff(index.indptr).astype(np.int64)
    for start, stop in blocks(np.array([len(text) for text in left], dtype=np.int64)):
        sets = [grams(text) for text in left[start:stop]]
        left_sets = _Sets(vocabulary.counts(sets), rank, np.array([len(some) for some in sets]), threshold)
        for first, last in blocks(np.asarray(left_sets.prefix @ postings)):
            shared = (left_sets.prefix[first:last] @ index).tocoo()
            rows, columns = shared.row.astype(np.int64) + first, shared.col.astype(np.int64)
            for pairs in _pairs(rows, columns, shared.data, left_sets, right_sets):
                yield pairs._replace(left=pairs.left + start)


def groups(texts: Sequence[str], threshold: float) -> list[int]:
    """A group number per text; texts linked by cosines of `threshold` or more, even in a chain, share it."""
    labels = np.arange(len(texts))
    for pairs in similar(texts, texts, threshold):
        ends = (labels[pairs.left], labels[pairs.right])
        links = coo_array((np.ones(len(pairs.left), dtype=np.int8), ends), shape=(len(texts), len(texts)))
        labels = connected_components(links, directed=False)[1][labels]
    return [int(label) for label in labels]


def close(left: str, right: str, threshold: float) -> bool:
    """Whether two texts have a cosine of `threshold` or more; rounds as `similar` does."""
    here, there = grams(left), grams(right)
    return len(here & there) >= threshold * math.sqrt(len(here) * len(there))


class Vocabulary:
    """Columns of the grams of one list of sets, in which those of another are looked up.

    Gives CountVectorizer's matrices without its sorting of the grams and its Python loop over them, which took longer
    than all else here. The columns' order varies between runs, and with it nothing that is found.
    """

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        # From 1: a gram without a column has None, and `filter` takes None out.
        self._numbers.default_factory = lambda: len(self._numbers) + 1

    def learn(self, sets: Iterable[Set[str]]) -> csr_array:
        """A row of ones for each set; new grams get a column."""
        return self._matrix(map(self._numbers.__getitem__, some) for some in sets)

    def counts(self, sets: Iterable[Set[str]]) -> csr_array:
        """A row of ones for each set, without the grams that have no column."""
        return self._matrix(filter(None, map(self._numbers.get, some)) for some in sets)

    def _matrix(self, rows: Iterable[Iterable[int]]) -> csr_array:
        numbers, ends = array("i"), [0]
        for row in rows:
            numbers.extend(row)
            ends.append(len(numbers))
        columns = np.frombuffer(numbers, dtype=np.int32) - np.int32(1)
        shape = (len(ends) - 1, len(self._numbers))
        return csr_array((np.ones(len(columns), dtype=np.int32), columns, ends), shape=shape)


class _Sets:
    """Sets of grams as rows of a matrix whose columns are the right list's grams, rare ones first.

    Grams that the right list lacks are the rarest: they come first in a prefix and have no column.
    """

    def __init__(self, counts: Any, rank: npt.NDArray[np.int32], sizes: Integers, threshold: float) -> None:
        self.sizes = sizes
        self.threshold = threshold
        self.all = csr_array((counts.data, rank[counts.indices], counts.indptr), shape=counts.shape)
        self.all.sort_indices()
        indexed = np.diff(self.all.indptr).astype(np.int64)
        # Minus the rounding error of t²n, which must not shorten a prefix.
        needed = np.ceil(threshold**2 * sizes - 1e-6).astype(np.int64)
        length = np.clip(sizes - np.maximum(needed, 1) + 1 - (sizes - indexed), 0, indexed)
        self.rest = indexed - length
        starts = self.all.indptr[:-1].astype(np.int64)
        within = np.arange(len(self.all.indices)) - np.repeat(starts, indexed) < np.repeat(length, indexed)
        ends = np.concatenate([[0], np.cumsum(length)])
        self.prefix = csr_array((self.all.data[within], self.all.indices[within], ends), shape=counts.shape)
        self.last = np.full(len(sizes), -1)
        self.last[length > 0] = self.prefix.indices[ends[1:][length > 0] - 1]


def _pairs(
    row: Integers, col: Integers, shared: Integers, left_sets: _Sets, right_sets: _Sets
) -> Iterator[SimilarPairs]:
    """The pairs whose whole sets share enough, out of pairs whose prefixes share something."""
    # A shared gram in the prefix that ends earlier is in the other prefix, too.
    earlier = left_sets.last.take(row) <= right_sets.last.take(col)
    most = shared + np.where(earlier, left_sets.rest.take(row), right_sets.rest.take(col))
    left_sizes, right_sizes = left_sets.sizes.take(row), right_sets.sizes.take(col)
    np.minimum(most, np.minimum(left_sizes, right_sizes), out=most)
    likely = most >= left_sets.threshold * np.sqrt(left_sizes * right_sizes)
    row, col = row[likely], col[likely]
    for start, stop in blocks(left_sets.sizes[row] + right_sets.sizes[col]):
        left, right = row[start:stop], col[start:stop]
        whole = left_sets.all[left].multiply(right_sets.all[right]).sum(axis=1)
        sizes = left_sets.sizes[left] * right_sets.sizes[right]
        # Integers up to here, so the cosine of equal sets is exactly 1 on every machine.
        close = whole >= left_sets.threshold * np.sqrt(sizes)
        if close.any():
            yield SimilarPairs(left[close], right[close], whole[close] / np.sqrt(sizes[close]))


def blocks(costs: Integers) -> Iterator[tuple[int, int]]:
    """Consecutive ranges; each costs at most `BUDGET` or has a single item."""
    ends = np.cumsum(costs)
    start = 0
    while start < len(costs):
        spent = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, spent + BUDGET, side="right")))
        yield start, stop
        start = stop


def grams(text: str) -> set[str]:
    """A text's set of grams; a text shorter than `GRAM` is one gram."""
    even = f" {' '.join(text.casefold().split())} "
    return {even[i : i + GRAM] for i in range(max(1, len(even) - GRAM + 1))}
