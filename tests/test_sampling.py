"""How tokens are drawn: what the noise is worth, what a margin promises, what the penalty touches."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.engines.sampling import SURE, Drawn, draw, gumbel

LOGITS = np.random.default_rng(5).normal(scale=2.0, size=40)


def settings(temperature: float, min_p: float = 0.0, penalty: float = 1.0) -> Generation:
    return Generation(temperature=temperature, min_p=min_p, repetition_penalty=penalty)


def noise(seed: int, position: int, size: int) -> np.ndarray[Any, Any]:
    """Of the first `size` token ids."""
    ids = torch.arange(size)
    return gumbel(torch.full_like(ids, seed), torch.full_like(ids, position), ids).numpy()


def first(logits: torch.Tensor, sampling: Sequence[Generation], seeds: Sequence[int], slack: float = 0.0) -> Drawn:
    """Each row's first token."""
    rows = len(logits)
    return draw(logits.clone(), torch.zeros(rows, 1, dtype=torch.long), [0] * rows, seeds, sampling, slack)


# --- the distribution ---------------------------------------------------------------------------------------


def softmax(logits: np.ndarray[Any, Any], temperature: float, min_p: float) -> np.ndarray[Any, Any]:
    likely = np.exp(logits / temperature)
    likely = np.where(likely >= min_p * likely.max(), likely, 0.0)
    return likely / likely.sum()


def goodness(drawn: Sequence[int], expected: np.ndarray[Any, Any]) -> float:
    """p of a chi-square test; classes of fewer than five expected draws are pooled."""
    counts = Counter(drawn)
    seen = np.array([counts[token] for token in range(len(expected))])
    assert seen[expected == 0].sum() == 0, "drew what min_p forbids"
    wanted = expected * len(drawn)
    common = wanted >= 5
    seen = np.append(seen[common], seen[~common].sum())
    wanted = np.append(wanted[common], wanted[~common].sum())
    return float(stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue)


@pytest.mark.parametrize(("temperature", "min_p"), [(1.0, 0.0), (0.7, 0.05), (2.0, 0.2), (0.5, 0.0)])
@pytest.mark.parametrize("slack", [0.0, 1.0])
def test_draws_follow_the_softmax(temperature: float, min_p: float, slack: float) -> None:
    """Also where tokens below min_p's floor are looked at for the margin."""
    rows = 20_000
    logits = torch.from_numpy(LOGITS).float().expand(rows, -1)
    drawn = first(logits, [settings(temperature, min_p)] * rows, range(rows), slack).tokens.tolist()
    assert goodness(drawn, softmax(LOGITS, temperature, min_p)) > 0.001
    assert goodness(drawn, softmax(LOGITS, temperature * 1.1, min_p)) < 1e-6, "too few draws to tell"


def test_draws_follow_the_softmax_along_one_completion() -> None:
    rows = 20_000
    logits = torch.from_numpy(LOGITS).float().repeat(rows, 1)
    written = torch.zeros(1, 1, dtype=torch.long).expand(rows, rows)
    drawn = draw(logits, written, range(rows), [7] * rows, [settings(1)] * rows).tokens.tolist()
    assert goodness(drawn, softmax(LOGITS, 1.0, 0.0)) > 0.001
    pairs = Counter(itertools.pairwise(drawn))
    top = int(LOGITS.argmax())
    share = drawn.count(top) / len(drawn)
    assert pairs[top, top] / len(drawn) == pytest.approx(share**2, abs=0.015), "neighbours are not independent"


def test_rows_are_drawn_as_if_alone() -> None:
    """Whatever stands in the other rows: settings, seeds, lengths of what is written, numbers of candidates."""
    random = np.random.default_rng(1)
    rows, size, longest = 60, 50, 9
    logits = torch.from_numpy(random.normal(scale=3, size=(rows, size))).float()
    kinds = [settings(0), settings(0, 0, 1.3), settings(1), settings(0.7, 0.05, 1.2), settings(0.1, 0.5), settings(2)]
    sampling = [kinds[row % len(kinds)] for row in range(rows)]
    counts = random.integers(0, longest + 1, rows).tolist()
    written = torch.from_numpy(random.integers(0, size, (rows, longest)))
    for row, count in enumerate(counts):
        written[row, count:] = written[row, 0]
    seeds = random.integers(0, 2**60, rows).tolist()
    together = draw(logits.clone(), written, counts, seeds, sampling, 1e-4)
    for row in range(rows):
        here = slice(row, row + 1)
        alone = draw(logits[here].clone(), written[here], counts[here], seeds[here], sampling[here], 1e-4)
        assert (together.tokens[row], together.margins[row]) == (alone.tokens[0], alone.margins[0])


# --- the noise ----------------------------------------------------------------------------------------------

WORD = 2**64 - 1


def splitmix(state: int) -> int:
    """One output of SplitMix64 as its authors print it, in Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & WORD
    return state ^ (state >> 31)


def as_gumbel(bits: int) -> float:
    return -math.log(-math.log(((bits >> 12) + 0.5) / 2**52))


def test_noise_is_splitmix64s() -> None:
    """Seed 0 gives the outputs that are published for it; others are checked against whole-number arithmetic."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert noise(0, 0, 3).tolist() == pytest.approx([as_gumbel(bits) for bits in published], rel=1e-6)
    golden = 0x9E3779B97F4A7C15
    for seed, position in itertools.product((1, 2**59 + 12345, 2**60 - 1), (0, 1, 511)):
        start = splitmix((splitmix(seed) + position * golden) & WORD)
        wanted = [as_gumbel(splitmix((start + (token + 1) * golden) & WORD)) for token in range(200)]
        np.testing.assert_allclose(noise(seed, position, 200), wanted, rtol=1e-6, atol=1e-7)


def test_noise_stays_what_it_was() -> None:
    """Journals name it gumbel-max-3: whoever changes a value here gives it another name."""
    at = [(7, 0, 0), (7, 0, 49_151), (7, 95, 2), (1_234_567_890_123, 3, 4), (2**60 - 1, 8_191, 151_935)]
    seeds, positions, ids = torch.tensor(at).T
    assert gumbel(seeds, positions, ids).tolist() == pytest.approx(
        [1.054196, 0.5115576, 0.2298269, 0.4543775, -0.3313728], rel=1e-6
    )


def test_noise_is_finite_and_gumbel() -> None:
    """2^26 values: drawn in float32, some eight of them would be infinite."""
    chunks = 256
    most, total, square = -math.inf, 0.0, 0.0
    for position in range(chunks):
        values = noise(11, position, 1 << 18)
        assert np.isfinite(values).all()
        most = max(most, float(values.max()))
        total += float(values.mean(dtype=np.float64))
        square += float(np.square(values, dtype=np.float64).mean())
    mean = total / chunks
    assert mean == pytest.approx(np.euler_gamma, abs=0.001)
    assert square / chunks - mean**2 == pytest.approx(math.pi**2 / 6, abs=0.002)
    assert 14 < most < 37


def test_noise_is_independent_along_seeds_positions_and_ids() -> None:
    size = 64
    axes = torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij")
    uniform = np.exp(-np.exp(-gumbel(*axes).double().numpy()))
    assert len(np.unique(uniform)) > 0.99 * size**3
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.001
    for axis, lag in itertools.product(range(3), (1, 2, 7)):
        one = np.take(uniform, range(size - lag), axis).ravel()
        other = np.take(uniform, range(lag, size), axis).ravel()
        table = np.histogram2d(one, other, bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-4, f"axis {axis}, {lag} apart"


def test_noise_depends_on_seed_position_and_token_and_on_nothing_else() -> None:
    np.testing.assert_array_equal(noise(3, 4, 60)[:30], noise(3, 4, 30))
    order = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    seeds, positions, ids = (
        axis.flatten() for axis in torch.meshgrid(*[torch.arange(10)] * 2, torch.arange(9), indexing="ij")
    )
    mixed = gumbel(seeds[order], positions[order], ids[order])
    assert torch.equal(mixed, gumbel(seeds, positions, ids)[order])


# --- margins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [settings(0), settings(1), settings(0.7, 0.05), settings(0.1, 0.3), settings(2, 0.5), settings(1, 1)],
    ids=["greedy", "plain", "shipped", "cold", "hot", "best alone"],
)
def test_no_logit_changed_by_less_than_the_margin_changes_the_token(sampling: Generation) -> None:
    """And one changed by a little more does: by being drawn, by being cut off, or by cutting the drawn one off."""
    random = np.random.default_rng(2)
    rows, size = 200, 12
    logits = torch.from_numpy(random.normal(scale=1.0, size=(rows, size))).float()
    tokens, margins = first(logits, [sampling] * rows, range(rows), SURE)
    assert 0 < margins.min() < 0.1
    assert margins.max() == SURE
    change = torch.cat([torch.eye(size), -torch.eye(size)])  # one token up or down

    def flipped(share: float) -> torch.Tensor:
        changed = logits[:, None] + change * (margins * share)[:, None, None]
        again = first(changed.flatten(0, 1), [sampling] * (rows * 2 * size), np.repeat(range(rows), 2 * size).tolist())
        return (again.tokens.view(rows, -1) != tokens[:, None]).any(dim=1)

    assert not flipped(0.99).any()
    clear = (margins > 1e-3) & (margins < SURE)
    assert clear.sum() > 50
    assert flipped(1.01)[clear].all()


def test_margin_is_to_the_second_best_or_to_the_floor() -> None:
    def margin(logits: list[float], sampling: Generation, slack: float = 0.0) -> float:
        return float(first(torch.tensor([logits]), [sampling], [0], slack).margins[0])

    greedy, halved = settings(0), settings(1, 0.5)
    assert margin([2.0, 1.75, -3.0], greedy) == pytest.approx(0.25)
    assert margin([2.0, 2.0, -3.0], greedy) == 0
    assert margin([2.0, -3.0, -4.0], greedy) == SURE
    below = 2 - math.log(2)  # the floor of min_p 0.5 under a logit of 2
    drawn = np.array([2.0, below + 0.01]) + noise(0, 0, 2)
    assert drawn[1] < drawn[0] - 0.1, "choose another seed"
    assert margin([2.0, -9.0, -9.0], halved) == SURE
    # Noise decides between 0 and 1. If 1 would win were it let in, the margin is what keeps it out.
    seed = next(seed for seed in range(50) if np.subtract(*noise(seed, 0, 2)[::-1]) > 2)
    row, sampling = torch.tensor([[2.0, below - 0.01]]), [halved]
    assert first(row, sampling, [seed], slack=0.1).margins.item() == pytest.approx(0.01, abs=1e-5)
    assert first(row, sampling, [seed], slack=0.001).margins.item() == SURE, "beyond the slack it is not looked at"
    let_in = first(torch.tensor([[2.0, below + 0.01]]), sampling, [seed])
    assert let_in.tokens.item() == 1
    assert let_in.margins.item() == pytest.approx(0.01, abs=1e-5)


def test_margin_is_in_logits_at_any_temperature() -> None:
    for temperature in (0.1, 0.5, 1.0, 2.0):
        sampling = [settings(temperature, 0.5)]
        floor = 2 + temperature * math.log(0.5)
        seed = next(seed for seed in range(200) if np.subtract(*noise(seed, 0, 2)[::-1]) > 1)
        for beside, token in ((0.005, 1), (-0.005, 0)):
            drawn = first(torch.tensor([[2.0, floor + beside]]), sampling, [seed], slack=0.01)
            assert drawn.tokens.item() == token
            assert drawn.margins.item() == pytest.approx(0.005, abs=1e-5)


# --- the penalty, and what is no logit ----------------------------------------------------------------------


def test_repetition_penalty_is_for_written_tokens_alone() -> None:
    def pick(logits: list[float], written: list[int], penalty: float = 1.25) -> int:
        row = torch.tensor([logits]), torch.tensor([written]), [len(written)], [0], [settings(0, 0, penalty)]
        return int(draw(*row).tokens)

    assert pick([5.0, 4.5, 0.0], [2]) == 0
    assert pick([5.0, 4.5, 0.0], [0]) == 1
    assert pick([5.0, 4.5, 0.0], [0, 1]) == 0
    assert pick([5.0, 4.5, 0.0], [0], penalty=1.0) == 0
    assert pick([-1.0, -1.2, -9.0], [0]) == 1  # a negative logit is multiplied: divided, it would rise
    assert pick([5.0, 4.1, 0.0], [0, 0, 0]) == 1  # once, however often it was written: 5 / 1.25 = 4


def test_written_tokens_of_each_row_are_its_own() -> None:
    """Shorter ones are filled with their first; a row that has written nothing has nothing that counts."""
    sampling = [settings(0, 0, 1.25), settings(0, 0, 1.25), settings(0, 0, 1.25), settings(0)]
    written = torch.tensor([[0, 0], [2, 1], [0, 0], [0, 1]])
    drawn = draw(torch.tensor([[5.0, 4.5, 0.0]] * 4), written, [1, 2, 0, 2], [0] * 4, sampling)
    assert drawn.tokens.tolist() == [1, 0, 0, 0]


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.from_numpy(LOGITS).float().repeat(500, 1)
    logits[:, int(LOGITS.argmax())] = -torch.inf
    drawn = first(logits, [settings(2)] * 500, range(500), SURE)
    assert int(LOGITS.argmax()) not in drawn.tokens.tolist()
    assert drawn.margins.isfinite().all()


def test_logits_in_16_bit_are_drawn_from_in_32() -> None:
    logits = torch.from_numpy(LOGITS).bfloat16().repeat(100, 1)
    before = logits.clone()
    drawn = draw(logits, torch.zeros(100, 1, dtype=torch.long), [0] * 100, range(100), [settings(0.7, 0.05)] * 100)
    assert torch.equal(logits, before)
    assert torch.equal(drawn.tokens, first(before.float(), [settings(0.7, 0.05)] * 100, range(100)).tokens)


@pytest.mark.parametrize("sampling", [settings(0), settings(0.7, 0.05)], ids=["greedy", "shipped"])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_logits_that_are_no_numbers(sampling: Generation, row: int) -> None:
    """As of a diverged adapter: a row without candidates must not be given its neighbour's."""
    logits = torch.from_numpy(LOGITS).float().repeat(3, 1)
    logits[row, 5] = torch.nan
    with pytest.raises(UserError, match=r"logits are not numbers \(NaN\); use another dtype, or other weights"):
        first(logits, [sampling] * 3, range(3))
