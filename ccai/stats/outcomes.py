"""Outcomes: what the class of an answer, a judge's probability, and a difference with its interval come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_measure(value: Any) -> bool:
    """Whether a part of metrics/eval.json is a measure, which has a count `n`, and not what holds some by label.

    A label may be any word, `n` and `difference` too: what lies below it is no number.
    """
    return isinstance(value, Mapping) and isinstance(value.get("n"), int)


def surely(gap: Mapping[str, Any]) -> bool:
    """The interval leaves out 0, and Holm's p is below 0.05 as well."""
    leaves_out_0 = gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0)
    return leaves_out_0 and gap["p_holm"] is not None and gap["p_holm"] < 0.05
