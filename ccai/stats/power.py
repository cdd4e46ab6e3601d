"""What a comparison of two arms can find: the chance that the interval of their difference leaves out 0.

    chance(100, 0.3, 0.1)           # of two arms with these shares on 100 prompts: 0.93…
    smallest_change(24, 0.3)        # from a share of 0.3 down, found with 80 %
    prompts_needed(0.3, 0.2)        # prompts that find this change with 80 %

Shares are of yes/no outcomes, one for each prompt. The chance is summed over all outcomes with the interval that gives
the verdict, so no approximation enters. Arms are taken to answer independently, given the prompt: where they agree more
than that, less is needed.
"""

from __future__ import annotations

import numpy as np
from scipy import stats as scipy_stats

from ccai.stats.intervals import discordant_interval

POWER = 0.8
MOST = 20_000
"""Prompts above which `prompts_needed` gives up."""


def chance(n: int, base: float, tuned: float) -> float:
    """The chance of an interval that leaves out 0 on the side of the true change.

    Args:
        n: prompts.
        base, tuned: true shares of the two arms, in [0, 1].

    Raises:
        ValueError: n < 1 or a share outside [0, 1].
    """
    if n < 1 or not (0 <= base <= 1 and 0 <= tuned <= 1):
        raise ValueError(f"n >= 1 and shares in [0, 1] are needed, not {n}, {base}, {tuned}")
    only_base, only_tuned = base * (1 - tuned), (1 - base) * tuned
    discordant = only_base + only_tuned
    if discordant == 0:
        return 0.0
    # Discordant pairs are binomial, and so is what part of them favours the tuned arm.
    spread = 8 * np.sqrt(n * discordant * (1 - discordant)) + 8
    counts = np.arange(max(0, int(n * discordant - spread)), min(n, int(n * discordant + spread)) + 1)
    pairs, favouring = np.meshgrid(counts, np.arange(counts[-1] + 1), indexing="ij")
    probability = scipy_stats.binom.pmf(pairs, n, discordant) * scipy_stats.binom.pmf(
        favouring, pairs, only_tuned / discordant
    )
    low, high = discordant_interval(np.maximum(pairs - favouring, 0), np.minimum(favouring, pairs), n)
    found = low > 0 if tuned > base else high < 0
    return float(probability[found].sum())


def smallest_change(n: int, base: float, power: float = POWER) -> float | None:
    """The smallest fall of a share that n prompts find with that chance, to a hundredth; None if no fall is found."""
    for hundredths in range(1, int(100 * base) + 1):
        if chance(n, base, max(0.0, base - hundredths / 100)) >= power:
            return hundredths / 100
    return None


def prompts_needed(base: float, tuned: float, power: float = POWER) -> int | None:
    """The fewest prompts that find a change with that chance, to two digits; None above `MOST` or without a change."""
    if base == tuned:
        return None
    n = 10
    while n <= MOST:
        if chance(n, base, tuned) >= power:
            return n
        n += 10 ** (len(str(n)) - 2)
    return None


def unchanged_needed(bound: float) -> int:
    """The fewest prompts that exclude a loss of more than `bound` (> 0) where no prompt changes."""
    n = 1
    while unchanged_bound(n) > bound:
        n += 1
    return n


def unchanged_bound(n: int) -> float:
    """The loss that n prompts can exclude at best: the interval's bound where no prompt changes."""
    return float(discordant_interval(np.array(0), np.array(0), n)[1])
