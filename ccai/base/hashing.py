"""Hashes that identify content, and sampling seeds derived from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in canonical form: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(seed: int, *key: object) -> int:
    """A record's sampling seed, from the run's seed and the record's key: independent of order and batch."""
    return int(digest([seed, *map(str, key)])[:15], 16)


def sha256_of(content: bytes | Path) -> str:
    """sha256 (hex) of bytes or of a file's content. Raises OSError."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """md5 (hex) of a file's content, by which DVC names it. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
