"""Attention over flat passes against a plain softmax over each whole row, in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from ccai.base.errors import UserError
from ccai.engines import attention
from ccai.engines.attention import Pass, Prefix, Rows, Segment

LAYERS, SIZE = 2, 8
CPU = torch.device("cpu")
CLOSE = {torch.float32: 2e-6, torch.float64: 2e-6, torch.bfloat16: 0.06}  # sums are float32; scores are of the dtype


@dataclass(eq=False)
class Whole:
    """Of one row, or one prefix: per layer keys and values of all its tokens, [kv_heads, size] each."""

    length: int = 0
    keys: list[list[torch.Tensor]] = field(default_factory=lambda: [[] for _ in range(LAYERS)])
    values: list[list[torch.Tensor]] = field(default_factory=lambda: [[] for _ in range(LAYERS)])

    def copy(self) -> Whole:
        return Whole(self.length, [list(each) for each in self.keys], [list(each) for each in self.values])

    def add(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        self.keys[layer].append(key)
        self.values[layer].append(value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """A query (heads, size) over all keys so far."""
        keys, values = (torch.stack(each[layer]).double() for each in (self.keys, self.values))
        share = query.shape[0] // keys.shape[1]
        keys, values = (each.repeat_interleave(share, dim=1) for each in (keys, values))
        scores = torch.einsum("hs,nhs->hn", query.double(), keys)
        return torch.einsum("hn,nhs->hs", scores.softmax(-1), values)


class Both:
    """Rows in the engine's form and as the textbook has them, given the same random queries, keys and values."""

    def __init__(self, dtype: torch.dtype, heads: int, groups: int, slots: int, capacity: int) -> None:
        self.dtype, self.heads, self.groups = dtype, heads, groups
        self.rows, self.wholes = Rows(slots, capacity), list[Whole]()
        self.random = torch.Generator().manual_seed(0)
        self.close, self.scale = CLOSE[dtype], 1.0

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.random).to(self.dtype)

    def prefix(self, tokens: int) -> tuple[Prefix, Whole]:
        prefix, whole = Prefix(tuple(range(tokens))), Whole()
        self._run(Pass(Rows(0, 0), [], [Segment(prefix.tokens, keep=prefix)], CPU), [(whole, tokens)])
        return prefix, whole

    def step(self, new: Sequence[tuple[int, tuple[Prefix, Whole] | None]]) -> None:
        """A token for every row, and new rows of so many tokens behind a prefix."""
        count = len(self.wholes)
        segments, asked = [], [(whole, 1) for whole in self.wholes]
        for index, (tokens, shared) in enumerate(new):
            segments.append(Segment([0] * tokens, shared[0] if shared else None, slot=count + index))
            self.wholes.append(shared[1].copy() if shared else Whole())
            asked.append((self.wholes[-1], tokens))
        self._run(Pass(self.rows, [0] * count, segments, CPU), asked)
        self.rows.lengths = [length + 1 for length in self.rows.lengths] + [tokens for tokens, _ in new]
        self.rows.prefixes += [shared[0] if shared else None for _, shared in new]

    def drop(self, slot: int) -> None:
        self.rows.drop(slot)
        self.wholes[slot] = self.wholes[-1]
        self.wholes.pop()

    def spoil(self, value: float) -> None:
        """Fill what belongs to no row."""
        for kept in self.rows.cache:
            for each in kept:
                for slot in range(self.rows.room[0]):
                    used = self.rows.lengths[slot] if slot < len(self.rows.lengths) else 0
                    each[slot, :, used:] = value

    def _run(self, flat: Pass, asked: Sequence[tuple[Whole, int]]) -> None:
        total = sum(tokens for _, tokens in asked)
        assert len(flat.tokens) == len(flat.positions) == total
        ends = [0]
        for whole, tokens in asked:
            ends.append(ends[-1] + tokens)
            assert flat.positions[ends[-2] : ends[-1]] == list(range(whole.length, whole.length + tokens))
        assert flat.last == [end - 1 for end in ends[1:]]
        for layer in range(LAYERS):
            query, key, value = (self.normal(n, total, SIZE) for n in (self.heads, self.groups, self.groups))
            query *= self.scale
            found = flat.attend(query, key, value, layer)
            assert found.shape == (total, self.heads, SIZE)
            assert found.dtype == self.dtype
            for (whole, _), (start, end) in zip(asked, pairwise(ends), strict=True):
                for at in range(start, end):
                    whole.add(layer, key[:, at], value[:, at])
                    wanted = whole.attend(layer, query[:, at])
                    torch.testing.assert_close(found[at].double(), wanted, atol=self.close, rtol=0)
        assert flat.layers == LAYERS
        for whole, tokens in asked:
            whole.length += tokens


@pytest.fixture(params=[(4, 2), (3, 3), (6, 1)], ids=["grouped", "each its own", "one for all"])
def heads(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Query heads and key heads."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """float32 takes torch's kernel, the others take blocks."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[5, 512])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Queries at once: fewer than there are, with a rest, and more. Memory grows often."""
    monkeypatch.setattr(attention, "BLOCK", {"cpu": request.param})
    monkeypatch.setattr(attention, "STEP", 4)
    yield request.param


def test_rows_come_grow_move_and_go(dtype: torch.dtype, heads: tuple[int, int], block: int) -> None:
    """With two prefixes and without, of lengths of their own; rooms of other sizes; leftovers of other rows."""
    both, rng = Both(dtype, *heads, slots=6, capacity=24), random.Random(4)
    prefixes = [None, both.prefix(7), both.prefix(13)]
    seen = set()
    for turn in range(40):
        if turn == 20:
            both.rows.resize(9, 31)
        if turn == 30:
            both.rows.resize(len(both.wholes), max(24, *both.rows.lengths, 0) + 4)
        slots, capacity = both.rows.room
        for slot in reversed(range(len(both.wholes))):
            if both.rows.lengths[slot] >= capacity or rng.random() < 0.15:
                both.drop(slot)
        both.spoil(rng.choice([0.0, 1e4, -1e4]))
        room = slots - len(both.wholes)
        new = [(rng.randint(1, 12), rng.choice(prefixes)) for _ in range(rng.randint(0, min(3, room)))]
        if new or both.wholes:
            both.step(new)
            seen.add((len(both.wholes), len({id(prefix) for prefix in both.rows.prefixes})))
    assert max(rows for rows, _ in seen) >= 6
    assert max(kinds for _, kinds in seen) == 3


def test_all_rows_behind_one_prefix(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    both = Both(dtype, *heads, slots=4, capacity=16)
    shared = both.prefix(9)
    both.step([(3, shared), (1, shared)])
    both.step([(5, shared)])
    both.step([])
    assert len(both.wholes) == 3


def test_scores_far_apart_are_joined_exactly() -> None:
    """One part weighs nothing beside the other: neither overflows, nor is lost."""
    for scale in (0.0, 1.0, 60.0):
        both = Both(torch.float32, 4, 2, slots=2, capacity=8)
        both.scale, both.close = scale, 2e-6 * max(1.0, 10 * scale)  # rounding of a score grows with it
        shared = both.prefix(6)
        both.step([(2, shared), (2, None)])
        both.step([])


def test_other_rows_change_nothing_in_a_row() -> None:
    """Up to rounding: the same row beside none and beside others, longer and shorter."""
    query, key, value = (torch.randn(n, 40, SIZE, generator=torch.Generator().manual_seed(n)) for n in (4, 2, 2))

    def first(others: int) -> torch.Tensor:
        rows = Rows(1 + others, 12)
        segments = [Segment([0] * (3 + index), slot=index) for index in range(1 + others)]
        flat = Pass(rows, [], segments, CPU)
        total = len(flat.tokens)
        flat.attend(query[:, :total], key[:, :total], value[:, :total], 0)
        rows.lengths, rows.prefixes = [3 + index for index in range(1 + others)], [None] * (1 + others)
        now = slice(30, 31 + others)
        return Pass(rows, [0] * (1 + others), [], CPU).attend(query[:, now], key[:, now], value[:, now], 0)[0]

    for others in (1, 3, 4):
        torch.testing.assert_close(first(others), first(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_room_that_nothing_was_written_to_is_zero(dtype: torch.dtype) -> None:
    """It is read, hidden: 0 times NaN would be NaN. Memory given back before is full of it."""
    for _ in range(20):
        torch.full((8 * 2 * 64 * SIZE,), torch.nan, dtype=dtype)
    both = Both(dtype, 4, 2, slots=8, capacity=64)
    both.step([(3, None), (5, None)])
    both.rows.resize(16, 64)
    for kept in both.rows.cache:
        for each in kept:
            assert each.shape == (16, 2, attention.STEP, SIZE)
            assert each.dtype == dtype
            assert not each[0, :, 3:].any()
            assert not each[1, :, 5:].any()
            assert not each[2:].any()
            assert each[1, :, :5].all()


def test_memory_follows_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what rows may come to: a slot is as wide as the longest row, in steps."""
    monkeypatch.setattr(attention, "STEP", 4)
    both, widths = Both(torch.bfloat16, 4, 2, slots=3, capacity=1000), []
    both.step([(3, None), (2, None)])
    for _ in range(6):
        both.step([])
        widths.append(both.rows.width)
    assert widths == [4, 8, 8, 8, 8, 12]
    both.step([(30, None)])
    assert both.rows.width == 32
    both.drop(2)
    both.step([])
    assert both.rows.width == 12
    assert {each.shape for kept in both.rows.cache for each in kept} == {(3, 2, 12, SIZE)}


def test_prefix_keeps_its_own_copy() -> None:
    """Not a view that would keep the whole pass in memory, or change with it."""
    both = Both(torch.float32, 4, 2, slots=2, capacity=8)
    prefix, _ = both.prefix(6)
    assert len(prefix.keys) == len(prefix.values) == LAYERS
    for each in (*prefix.keys, *prefix.values):
        assert each.shape == (2, 6, SIZE)
        assert each.is_contiguous()
        assert each.untyped_storage().nbytes() == each.nbytes


def test_model_that_attends_otherwise_is_refused() -> None:
    query, key = torch.zeros(1, 4, 6, SIZE), torch.zeros(1, 2, 6, SIZE)
    layer = SimpleNamespace(layer_idx=0)

    def attend(**settings: object) -> torch.Tensor:
        flat = Pass(Rows(0, 0), [], [Segment([0] * 6)], CPU)
        return attention._forward(layer, query, key, key, None, 1.0, flat=flat, **settings)[0]  # type: ignore[arg-type]

    assert attend(sliding_window=6, dropout=0.0).shape == (1, 6, 4, SIZE)
    with pytest.raises(UserError, match=r"sees 5 tokens at a time and a row has 6; use fewer examples or shorter"):
        attend(sliding_window=5)
    with pytest.raises(UserError, match="attention needs softcap; serve it and use an endpoint"):
        attend(softcap=50.0)
    with pytest.raises(UserError, match="attention needs s_aux; serve it and use an endpoint"):
        attend(s_aux=torch.zeros(4))
