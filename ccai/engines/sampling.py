"""Sampling of each row's next token: Gumbel-max, with noise that no other row affects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ccai.base.errors import UserError
from ccai.base.params import Generation

SURE = 1.0
"""Upper limit of margins; wider ones are reported as this."""

LEAST = 1e-9
"""A token less likely than this share of the likeliest is never drawn, even without min_p."""

_GOLDEN, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # SplitMix64's, as int64


class Drawn(NamedTuple):
    """Token ids, int64 (rows,), and the change in logits below which each token stays the same, float32 (rows,)."""

    tokens: torch.Tensor
    margins: torch.Tensor


def draw(
    logits: torch.Tensor,
    written: torch.Tensor,
    counts: Sequence[int],
    seeds: Sequence[int],
    settings: Sequence[Generation],
    slack: float = 0.0,
) -> Drawn:
    """The next token of each row; greedy where the temperature is 0.

    argmax(logits / temperature + Gumbel) is a draw from softmax(logits / temperature) (Maddison et al. 2014,
    arXiv 1411.0030). The noise depends on (seed, position, token id) alone. A row therefore draws the same tokens in
    any batch, and a rounding difference in the logits changes a draw only where two candidates are that close. The
    margin is that distance: to the second best, and to the floor of min_p.

    Args:
        logits: float (rows, vocabulary); changed in place where they are float32.
        written: int64 (rows, at least max(counts)): tokens drawn so far, padded with repeats of the first.
        counts: number of tokens that each row has drawn.
        seeds: one per row.
        settings: one per row.
        slack: distance below the floor, in logits, within which a token still counts in the margin.

    Raises:
        UserError: a row's logits are not numbers.
    """
    device = logits.device
    scores = logits.float()
    _penalise(scores, written, counts, settings)
    temperature = torch.tensor([each.temperature for each in settings], device=device)
    random = temperature > 0
    temperature[~random] = 1
    scores /= temperature[:, None]
    best = scores.amax(dim=-1)
    least = [math.log(max(each.min_p, LEAST)) if each.temperature > 0 else -SURE for each in settings]
    below = torch.tensor(least, device=device)
    floor = best + below
    rows, ids = (scores >= (floor - slack / temperature)[:, None]).nonzero(as_tuple=True)
    candidates = scores[rows, ids]
    noise = _noise(seeds, counts, rows, ids)
    drawn = candidates + torch.where(random[rows], noise, 0.0)
    # One line per row, as wide as the row with the most candidates.
    amount = torch.bincount(rows, minlength=len(counts))
    if not bool(amount.all()):
        raise UserError("the model's logits are not numbers (NaN); use another dtype, or other weights or adapter")
    column = torch.arange(len(rows), device=device) - (amount.cumsum(0) - amount)[rows]
    table = torch.full((len(counts), max(2, int(amount.max()))), -torch.inf, device=device)
    table[rows, column] = torch.where(candidates >= floor[rows], drawn, -torch.inf)
    winner = table.argmax(dim=-1)
    at = (amount.cumsum(0) - amount) + winner
    won = drawn[at]
    below_floor = (floor[rows] - candidates).clamp(min=0)
    table[rows, column] = candidates
    # If the best of the others rises, the floor may rise above the winner.
    other = table.scatter_(1, winner[:, None], -torch.inf).amax(dim=-1)
    table.fill_(torch.inf)
    table[rows, column] = torch.maximum(won[rows] - drawn, below_floor)
    table.scatter_(1, winner[:, None], (candidates[at] - other - below)[:, None])
    margins = (table.amin(dim=-1) * temperature).clamp(max=SURE)
    return Drawn(ids[at], margins)


def _penalise(
    scores: torch.Tensor, written: torch.Tensor, counts: Sequence[int], settings: Sequence[Generation]
) -> None:
    """Apply each row's repetition penalty to the tokens that it has written, in place."""
    penalty = torch.tensor([each.repetition_penalty for each in settings], device=scores.device)[:, None]
    if max(counts) and bool((penalty != 1).any()):
        ids = written[:, : max(counts)]
        seen = scores.gather(1, ids)
        begun = torch.tensor(counts, device=scores.device)[:, None] > 0
        scores.scatter_(1, ids, torch.where(begun, torch.where(seen < 0, seen * penalty, seen / penalty), seen))


def _noise(seeds: Sequence[int], counts: Sequence[int], rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Gumbel noise for tokens of rows, on their device."""
    device = rows.device
    seed, position = (torch.tensor(each, device=device)[rows] for each in (seeds, counts))
    exact = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
    return gumbel(*(each.to(exact) for each in (seed, position, ids))).to(device)


def gumbel(seeds: torch.Tensor, positions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, float32, for int64 tensors of seeds, positions and token ids of one shape.

    The uniform number behind it is output number `id` of a SplitMix64 generator (Steele, Lea, Flood 2014, "Fast
    splittable pseudorandom number generators", figure 14) whose start is a hash of seed and position. It has 52 bits
    and is never 0 or 1. With 24 bits the Gumbel would be infinite about once in 2^24 draws: over a vocabulary of 49,152
    tokens that puts a random word into every third completion.
    """
    start = _mix(_mix(seeds) + positions * _GOLDEN)
    bits = _mix(start + (ids + 1) * _GOLDEN)
    uniform = ((bits >> 12) & (2**52 - 1)).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_().float()


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finalizer; torch shifts int64 arithmetically, hence the masks."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))
