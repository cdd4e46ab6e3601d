"""TODO."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in canonical form: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(seed: int, *key: object) -> int:
    """Sampling seed of one record, from the run's seed and the record's key: independent of order and batch."""
    return int(digest([seed, *map(str, key)])[:15], 16)
