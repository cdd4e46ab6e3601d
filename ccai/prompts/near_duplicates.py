"""Texts that nearly equal each other: every pair above a threshold, none missed, in bounded memory.

Similarity is the cosine of two texts' sets of character 5-grams, with case and white space evened out: grams shared,
over the root of the product of the sets' sizes. scikit-learn's CountVectorizer makes the sets, and scipy's sparse
product counts what they share.

Most pairs are ruled out by a few grams. Let grams be ordered, rare ones first. Sets of cosine t or more share at
least t² of either's grams, so both have one in common among the first n - ceil(t²n) + 1 of their n: their prefix
(Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"). What the prefixes share, plus what may follow,
bounds the whole (Xiao et al. 2008, "Efficient similarity joins for near duplicate detection", PPJoin's positional
filter). The pairs left are counted in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

GRAM = 5
"""Length in characters of the pieces by which texts are compared."""

BUDGET = 2**20
"""Characters, products or grams held at a time: bounds memory, at some tens of bytes each."""

Integers = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Some of the pairs: positions in the left and the right list, and their cosines, in arrays of one length."""

    left: Integers
    right: Integers
    cosine: npt.NDArray[np.float64]


def similar(left: Sequence[str], right: Sequence[str], threshold: float) -> Iterator[Pairs]:
    """All pairs of a left and a right text whose cosine is `threshold` (above 0) or more, some at a time.

    Memory grows with `right`, and with the number of texts in `left`; give the longer list first.
    """
    if not right:
        return
    vectorizer = CountVectorizer(analyzer=lambda some: some, dtype=np.int32)
    counts = vectorizer.fit_transform(grams(text) for text in right)
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    rank = np.empty(len(frequency), dtype=np.int32)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(rank), dtype=np.int32)
    there = _Sets(counts, rank, np.diff(counts.indptr).astype(np.int64), threshold)
    index = csr_array(there.prefix.T)
    postings = np.diff(index.indptr).astype(np.int64)
    for start, stop in _blocks(np.array([len(text) for text in left], dtype=np.int64)):
        sets = [grams(text) for text in left[start:stop]]
        here = _Sets(vectorizer.transform(sets), rank, np.array([len(some) for some in sets]), threshold)
        for first, last in _blocks(np.asarray(here.prefix @ postings)):
            shared = (here.prefix[first:last] @ index).tocoo()
            found = _pairs(shared.row.astype(np.int64) + first, shared.col.astype(np.int64), shared.data, here, there)
            for pairs in found:
                yield pairs._replace(left=pairs.left + start)


def groups(texts: Sequence[str], threshold: float) -> list[int]:
    """A group number per text; texts linked by cosines of `threshold` or more, even in a chain, share it."""
    labels = np.arange(len(texts))
    for pairs in similar(texts, texts, threshold):
        ends = (labels[pairs.left], labels[pairs.right])
        links = coo_array((np.ones(len(pairs.left), dtype=np.int8), ends), shape=(len(texts), len(texts)))
        labels = connected_components(links, directed=False)[1][labels]
    return [int(label) for label in labels]


class _Sets:
    """Sets of grams as rows of a matrix whose columns are the right list's grams, rare ones first.

    Grams that the right list doesn't have are rarer than any: they come first in a prefix and take no column.
    """

    def __init__(self, counts: Any, rank: npt.NDArray[np.int32], sizes: Integers, threshold: float) -> None:
        self.sizes = sizes
        self.threshold = threshold
        self.all = csr_array((counts.data, rank[counts.indices], counts.indptr), shape=counts.shape)
        self.all.sort_indices()
        known = np.diff(self.all.indptr).astype(np.int64)
        # Less the rounding error of t²n, which may not shorten a prefix.
        needed = np.ceil(threshold**2 * sizes - 1e-6).astype(np.int64)
        length = np.clip(sizes - np.maximum(needed, 1) + 1 - (sizes - known), 0, known)
        self.rest = known - length
        starts = self.all.indptr[:-1].astype(np.int64)
        within = np.arange(len(self.all.indices)) - np.repeat(starts, known) < np.repeat(length, known)
        ends = np.concatenate([[0], np.cumsum(length)])
        self.prefix = csr_array((self.all.data[within], self.all.indices[within], ends), shape=counts.shape)
        self.last = np.full(len(sizes), -1)
        self.last[length > 0] = self.prefix.indices[ends[1:][length > 0] - 1]


def _pairs(row: Integers, col: Integers, shared: Integers, here: _Sets, there: _Sets) -> Iterator[Pairs]:
    """Of pairs whose prefixes share something, those whose whole sets share enough."""
    # A gram that both sets have and that is in the shorter-reaching prefix is in the other, too.
    rest = np.where(here.last[row] <= there.last[col], here.rest[row], there.rest[col])
    most = np.minimum(shared + rest, np.minimum(here.sizes[row], there.sizes[col]))
    likely = most >= here.threshold * np.sqrt(here.sizes[row] * there.sizes[col])
    row, col = row[likely], col[likely]
    for start, stop in _blocks(here.sizes[row] + there.sizes[col]):
        left, right = row[start:stop], col[start:stop]
        whole = here.all[left].multiply(there.all[right]).sum(axis=1)
        sizes = here.sizes[left] * there.sizes[right]
        # Whole numbers up to here: the cosine of equal sets is exactly 1, on every machine.
        close = whole >= here.threshold * np.sqrt(sizes)
        if close.any():
            yield Pairs(left[close], right[close], whole[close] / np.sqrt(sizes[close]))


def _blocks(costs: Integers) -> Iterator[tuple[int, int]]:
    """Ranges that follow each other; each costs at most `BUDGET` or is a single one."""
    ends = np.cumsum(costs)
    start = 0
    while start < len(costs):
        spent = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, spent + BUDGET, side="right")))
        yield start, stop
        start = stop


def grams(text: str) -> set[str]:
    """The set that stands for a text; a text shorter than `GRAM` is one gram."""
    even = f" {' '.join(text.casefold().split())} "
    return {even[i : i + GRAM] for i in range(max(1, len(even) - GRAM + 1))}
