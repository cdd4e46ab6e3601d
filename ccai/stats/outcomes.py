"""Reading metrics/eval.json: which parts are measures, and whether a difference is significant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_measure(value: Any) -> bool:
    """Whether a part of metrics/eval.json is a measure, which has a count `n`, rather than a mapping by label.

    A label may be any word, even `n` or `difference`; its value is then a mapping, not a number.
    """
    return isinstance(value, Mapping) and isinstance(value.get("n"), int)


def significant(gap: Mapping[str, Any]) -> bool:
    """Whether the interval excludes 0 and Holm's p is below 0.05."""
    leaves_out_0 = gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0)
    return leaves_out_0 and gap["p_holm"] is not None and gap["p_holm"] < 0.05
