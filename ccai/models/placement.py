"""Placement of a model: device, dtype and quantization, by the memory that is free."""

from __future__ import annotations

from typing import Literal, NamedTuple

import psutil

from ccai.base.errors import UserError
from ccai.base.params import Hardware
from ccai.models.files import parameters
from ccai.models.model import Model

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.1, "4bit": 0.6}
"""Bytes per weight; quantized forms include their scales and the layers that stay unquantized."""

WORKING_ROOM = 1.25
"""Factor over the weights' memory for activations and the key/value cache of at least a small batch."""


class Placement(NamedTuple):
    """Device and form of a model's weights, with the reason."""

    device: Literal["cuda", "mps", "cpu"]
    dtype: Literal["float32", "bfloat16", "float16"]
    quantization: Literal["none", "8bit", "4bit"]
    reason: str


def place(model: Model, hardware: Hardware) -> Placement:
    """Choose device, dtype and quantization for a model.

    Raises:
        UserError: this machine lacks what was requested, or the model fits in no form; says which size would fit.
    """
    device = _device(hardware.device)
    free = free_memory(device)
    count = parameters(model.folder)
    best = {"cuda": "bfloat16", "mps": "float16", "cpu": "float32"}[device]
    dtype = best if hardware.dtype == "auto" else hardware.dtype
    if hardware.quantization == "auto":
        forms = [dtype, "8bit", "4bit"] if device != "mps" else [dtype, "float16"]
    else:
        forms = [dtype if hardware.quantization == "none" else hardware.quantization]
    if device == "mps" and hardware.quantization in ("8bit", "4bit"):
        raise UserError("hardware.quantization: bitsandbytes does not run on mps; set it to none and dtype to float16")
    need = {form: count * BYTES[form] * WORKING_ROOM for form in forms}
    for form in forms:
        if need[form] <= free:
            quantization = form if form in ("8bit", "4bit") else "none"
            dtype = dtype if quantization != "none" else form
            reason = (
                f"{model.name} on {device}, {dtype}"
                + (f", {quantization}" if quantization != "none" else "")
                + f": needs about {need[form] / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
                + ("" if form == forms[0] else f"; as {forms[0]} it would need {need[forms[0]] / 1e9:.1f} GB")
            )
            return Placement(device, dtype, quantization, reason)  # type: ignore[arg-type]
    smallest = min(need, key=lambda form: need[form])
    largest = free / (BYTES[smallest] * WORKING_ROOM) / 1e9
    raise UserError(
        f"model {model.name}: {count / 1e9:.2f}B weights need {need[smallest] / 1e9:.1f} GB as {smallest}, "
        f"{free / 1e9:.1f} GB are free on {device}; a model of up to {largest:.1f}B weights would fit"
        + ("" if smallest == "4bit" or device == "mps" else ", or set hardware.quantization to auto")
    )


def free_memory(device: str) -> int:
    """Bytes free for a model on `device`."""
    import torch

    if device == "cuda":
        held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # free, but still reserved by torch
        return int(torch.cuda.mem_get_info()[0] + held)
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return int(psutil.virtual_memory().available)


def _device(device: str) -> Literal["cuda", "mps", "cpu"]:
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if device in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if device in ("auto", "cpu"):
        return "cpu"
    raise UserError(f"hardware.device: {device} is not available on this machine; set it to auto or cpu")
