"""Recognises out-of-memory errors of torch, NumPy and the operating system."""

from __future__ import annotations

import re

import torch
from safetensors import SafetensorError

FAILED = re.compile(r"out of memory|not enough memory|can(?:no|')t allocate|alloc_failed|bad_alloc", re.IGNORECASE)
"""Messages of errors without a type of their own: CUDA's libraries, MPS, torch on the CPU, memory maps."""


def ran_out(error: BaseException) -> bool:
    """Whether the error means too little memory, of the device or the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError | SafetensorError) and bool(FAILED.search(str(error)))
