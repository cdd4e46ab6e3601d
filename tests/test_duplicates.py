"""Near-duplicates: every pair above the threshold and no other, however the work is cut up."""

from __future__ import annotations

import math
import random

import pytest

from ccai.prompts import near_duplicates
from ccai.prompts.near_duplicates import grams, groups, similar

WORDS = "amber basil cedar delta ember fjord grove heron inlet juniper kettle lantern meadow nectar orchid".split()


def texts(count: int, seed: int) -> list[str]:
    """Prompts of all lengths, among them copies with words replaced, in other case, and some of no gram's length."""
    draw = random.Random(seed)
    made = [" ".join(draw.choices(WORDS, k=draw.randint(1, 25))) for _ in range(count)]
    for text in made[: count // 2]:
        words = text.split()
        for _ in range(draw.randint(0, 4)):
            words[draw.randrange(len(words))] = draw.choice([*WORDS, "unheard", "of"])
        made.append("  ".join(words).upper())
    return [*made, "a", "A", "", "hm?"]


def pairs(left: list[str], right: list[str], threshold: float) -> set[tuple[int, int]]:
    found = [
        (int(a), int(b)) for some in similar(left, right, threshold) for a, b in zip(some.left, some.right, strict=True)
    ]
    assert len(found) == len(set(found))
    return set(found)


def one_by_one(left: list[str], right: list[str], threshold: float) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, a in enumerate(map(grams, left))
        for j, b in enumerate(map(grams, right))
        if len(a & b) >= threshold * math.sqrt(len(a) * len(b))
    }


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6, 0.7, 0.8, 0.95, 1.0])
def test_all_pairs_and_no_other(threshold: float) -> None:
    left, right = texts(120, seed=1), texts(60, seed=2) + texts(120, seed=1)[::3]
    expected = one_by_one(left, right, threshold)
    assert pairs(left, right, threshold) == expected
    assert 0 < len(expected) < len(left) * len(right)


def test_pieces_of_the_work_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = texts(60, seed=1), texts(60, seed=1)
    whole, grouped = pairs(left, right, 0.6), groups(left, 0.6)
    for budget in (1, 97):
        monkeypatch.setattr(near_duplicates, "BUDGET", budget)
        assert pairs(left, right, 0.6) == whole
        assert groups(left, 0.6) == grouped


def test_cosines() -> None:
    [found] = similar(["the same text", "something else"], ["The  same text"], 0.5)
    assert (found.left.tolist(), found.right.tolist(), found.cosine.tolist()) == ([0], [0], [1.0])


def test_nothing_to_compare() -> None:
    assert list(similar([], ["text"], 0.5)) == list(similar(["text"], [], 0.5)) == []
    assert groups([], 0.5) == []


def test_groups_are_chained() -> None:
    a = "the quick brown fox jumps over the lazy dog near the river bank today"
    b = a.replace("quick brown", "quick green")
    c = b.replace("river bank", "river side")
    assert len(set(groups([a, c, "something else entirely", b], 0.8))) == 2
    assert len(set(groups([a, c], 0.8))) == 2
    assert len(set(groups([a, a.upper(), b], 1.0))) == 2


def test_very_short_texts() -> None:
    assert len(set(groups(["a", "b", "A", "hm?"], 0.8))) == 3
