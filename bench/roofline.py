"""The least time the work can take on this machine, from what it needs and what the machine can do.

The work is split into phases that can't run beside each other, since each layer's attention waits for its matmuls and
the other way round. Each phase takes as long as its arithmetic at the matmul peak or its traffic at the memory
bandwidth, whichever is longer, and the phases are added up:

    seconds = Σ max(FLOPs / peak, bytes / bandwidth)    over prefill and decode, each with matmuls and attention

What is counted, and nothing else (no padding, no softmax, norm, rotation, sampling, copy):

- Matmuls: 2 x in x out for each token and each of the model's linear weights, each at the best rate that its shape
  reached. Prefill computes every distinct token of a stage once: what a group of prompts shares counts once. Only
  positions from which a token is drawn go through the head: the last of each prompt, and every decoded token. A
  completion of n tokens is n - 1 decoding steps, and n where the model ended it by a token of its own.
- Attention: 4 x heads x head size x context, for each token and layer, causal, at the weighted peak of the matmuls.
- Traffic: the weights once for each stage's prefill, and once for each decoding step of `ROWS` rows; keys and values
  written once; while decoding, each row reads its own once a token, and a step of `ROWS` rows reads a shared prefix
  once. Prefill is taken to read keys and values from the processor's caches.

`overlapped` is the bound for a machine that could do all arithmetic and all traffic at once: Σ FLOPs / peak or
Σ bytes / bandwidth. It is printed beside the other, and is always the smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from bench.work import STAGES, Item

ROWS = 64
"""Rows that one decoding step is taken to have. Matmuls of about ten rows and more are bound by arithmetic on CPUs, so
that more rows would hardly lower the bound."""


class Linear(NamedTuple):
    """A linear weight, (out, in), `number` of which a token passes, and the best rate it reached, in FLOP/s."""

    name: str
    out: int
    into: int
    number: int
    peak: float

    @property
    def flops(self) -> int:
        """For one token."""
        return 2 * self.out * self.into * self.number


@dataclass(frozen=True)
class Machine:
    """What bench.limits measured; `head` is the output layer, `bandwidth` in bytes/s, `size` bytes of a number."""

    dtype: str
    size: int
    linears: list[Linear]
    head: Linear
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    read: float
    copy: float

    @property
    def bandwidth(self) -> float:
        """The better of reading and copying."""
        return max(self.read, self.copy)

    @property
    def peak(self) -> float:
        """FLOP/s over a whole token, each weight at its own peak."""
        every = [*self.linears, self.head]
        return sum(linear.flops for linear in every) / sum(linear.flops / linear.peak for linear in every)

    @property
    def flops_per_token(self) -> int:
        return sum(linear.flops for linear in (*self.linears, self.head))


def load(values: Mapping[str, Any]) -> Machine:
    """From what bench.limits wrote."""
    linears = [Linear(*linear) for linear in values["linears"]]
    return Machine(**{**values, "linears": linears, "head": Linear(*values["head"])})


def best(one: Machine, other: Machine) -> Machine:
    """The higher of two measurements, figure by figure: what disturbs one only ever slows it."""
    linears = [max(pair, key=lambda linear: linear.peak) for pair in zip(one.linears, other.linears, strict=True)]
    head = max(one.head, other.head, key=lambda linear: linear.peak)
    read, copy = max(one.read, other.read), max(one.copy, other.copy)
    return replace(one, linears=linears, head=head, read=read, copy=copy)


def report(machine: Machine) -> str:
    """A few lines for people."""
    lines = [f"{machine.dtype}: {machine.flops_per_token / 1e9:.3f} GFLOP a token in the model's weights"]
    for linear in (*machine.linears, machine.head):
        shape = f"({linear.out}, {linear.into}) x {linear.number}"
        lines.append(f"  {linear.name:<18}{shape:<20}{linear.peak / 1e9:7.0f} GFLOP/s")
    lines.append(f"  {'a whole token':<38}{machine.peak / 1e9:7.0f} GFLOP/s")
    lines.append(f"  {'memory':<18}read {machine.read / 1e9:.1f}, copy {machine.copy / 1e9:.1f} GB/s")
    return "\n".join(lines)


@dataclass
class Phase:
    """Arithmetic in FLOPs and the seconds it takes at the peak, and traffic in bytes."""

    flops: float = 0
    seconds_of_flops: float = 0
    bytes: float = 0

    def seconds(self, machine: Machine) -> float:
        """The longer of the two."""
        return max(self.seconds_of_flops, self.bytes / machine.bandwidth)


def least(machine: Machine, items: Sequence[Item], ended: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """The bound for the items, given (completion tokens, finish reason) of each: seconds in all and by phase."""
    phases = {name: Phase() for name in ("prefill matmul", "prefill attention", "decode matmul", "decode attention")}
    for stage in STAGES:
        there = [(item, *end) for item, end in zip(items, ended, strict=True) if item.stage == stage]
        groups: dict[int, int] = {item.group: item.shared_tokens for item, _, _ in there}
        tokens = sum(groups.values()) + sum(item.prompt_tokens - item.shared_tokens for item, _, _ in there)
        contexts = sum(map(_triangle, groups.values()))
        contexts += sum(_triangle(item.prompt_tokens) - _triangle(item.shared_tokens) for item, _, _ in there)
        _matmul(phases["prefill matmul"], machine, tokens=tokens, drawn=len(there), passes=1 if there else 0)
        _attention(phases["prefill attention"], machine, contexts, read=0, written=tokens)
        steps = [n if reason == "stop" else n - 1 for _, n, reason in there]
        contexts = sum(n * item.prompt_tokens + _triangle(n) for (item, _, _), n in zip(there, steps, strict=True))
        shared = sum(n * item.shared_tokens for (item, _, _), n in zip(there, steps, strict=True))
        _matmul(phases["decode matmul"], machine, tokens=sum(steps), drawn=sum(steps), passes=sum(steps) / ROWS)
        _attention(
            phases["decode attention"], machine, contexts, read=contexts - shared + shared / ROWS, written=sum(steps)
        )
    flops = sum(phase.flops for phase in phases.values())
    arithmetic = sum(phase.seconds_of_flops for phase in phases.values())
    traffic = sum(phase.bytes for phase in phases.values())
    return {
        "seconds": sum(phase.seconds(machine) for phase in phases.values()),
        "overlapped": max(arithmetic, traffic / machine.bandwidth),
        "flops": flops,
        "bytes": traffic,
        "phases": {name: asdict(phase) | {"seconds": phase.seconds(machine)} for name, phase in phases.items()},
    }


def _triangle(n: int) -> int:
    """Sum of the contexts of n tokens, each of which attends to itself and those before."""
    return n * (n + 1) // 2


def _matmul(phase: Phase, machine: Machine, *, tokens: int, drawn: int, passes: float) -> None:
    for linear, times in [*((linear, tokens) for linear in machine.linears), (machine.head, drawn)]:
        phase.flops += linear.flops * times
        phase.seconds_of_flops += linear.flops * times / linear.peak
        phase.bytes += linear.out * linear.into * linear.number * machine.size * passes


def _attention(phase: Phase, machine: Machine, contexts: float, *, read: float, written: float) -> None:
    flops = 4 * machine.layers * machine.heads * machine.head_size * contexts
    phase.flops += flops
    phase.seconds_of_flops += flops / machine.peak
    phase.bytes += 2 * machine.layers * machine.kv_heads * machine.head_size * machine.size * (read + written)
