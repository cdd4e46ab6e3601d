"""What this machine can do: matrix multiplication at the model's shapes, and memory bandwidth.

python -m bench.limits --dtype float32
python -m bench.limits --dtype bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig

from bench import machine
from bench.roofline import Linear, Machine, report
from ccai.base import params
from ccai.base.files import write_json
from ccai.engines.packed_linear import pack
from ccai.models import find

ROWS = (32, 64, 128, 256, 512, 1024, 2048)
HEAD_ROWS = (32, 64, 128, 256, 512)
"""Rows of a multiplication; only drawn positions go through the head, so it never sees thousands."""

BUFFER = 2**30
"""Bytes that are read or copied: far more than the processor's caches."""


def measure(folder: Path, dtype: torch.dtype, repeats: int = 3, buffer: int = BUFFER) -> Machine:
    """Peaks for a Llama-like model; query, key and value in one weight, gate and up in one."""
    config = AutoConfig.from_pretrained(folder).get_text_config()
    size, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_size = getattr(config, "head_dim", None) or size // heads
    shapes = {
        "query, key, value": ((heads + 2 * kv_heads) * head_size, size),
        "attention out": (size, heads * head_size),
        "gate, up": (2 * inner, size),
        "down": (size, inner),
    }
    with torch.inference_mode():
        linears = [
            Linear(name, out, into, layers, _matmul(out, into, layers, dtype, ROWS, repeats))
            for name, (out, into) in shapes.items()
        ]
        head = _matmul(config.vocab_size, size, 1, dtype, HEAD_ROWS, repeats)
        read, copy = _bandwidth(buffer, repeats)
    return Machine(
        dtype=str(dtype).removeprefix("torch."),
        size=dtype.itemsize,
        linears=linears,
        head=Linear("head", config.vocab_size, size, 1, head),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        read=read,
        copy=copy,
    )


def _matmul(out: int, into: int, count: int, dtype: torch.dtype, rows: tuple[int, ...], repeats: int) -> float:
    """Best FLOP/s over numbers of rows, of torch's own linear layer and in float32 of the engine's too. As many weights
    as the model has layers, so that they come from memory."""
    plain = [nn.Linear(into, out, bias=False, dtype=dtype) for _ in range(count)]
    kinds: list[Iterable[nn.Module]] = [plain]
    if dtype == torch.float32:
        packed = nn.ModuleList(plain)
        pack(packed)
        kinds.append(packed)
    best = 0.0
    for number in rows:
        inputs = torch.randn(number, into, dtype=dtype)
        for layers in kinds:
            seconds = _least_seconds(lambda inputs=inputs, layers=layers: [each(inputs) for each in layers], repeats)  # type: ignore[misc]
            best = max(best, 2 * number * out * into * count / seconds)
    return best


def _bandwidth(size: int, repeats: int) -> tuple[float, float]:
    """Bytes/s of reading (a sum) and of copying (read and written) `size` bytes."""
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    read = source.nbytes / _least_seconds(source.sum, repeats)
    return read, 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), repeats)


def _least_seconds(work: Callable[[], object], repeats: int) -> float:
    """Of several runs, after one that allocates."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Command line."""
    settings = params.load()
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--model", default=settings.models.answer)
    parser.add_argument("--out", type=Path, help="write the bare numbers there, for bench.generation")
    machine.add_results(parser)
    options = parser.parse_args()
    torch.set_num_threads(machine.threads())
    limits = measure(find.find(options.model).folder, getattr(torch, options.dtype))
    if options.out:
        write_json(options.out, asdict(limits))
        return
    print(report(limits))
    path = machine.write(options.results, f"limits-{options.dtype}", "bench.limits", sys.argv[1:], asdict(limits))
    print(f"written: {path}")


if __name__ == "__main__":
    from ccai.base.errors import run

    run(main)
