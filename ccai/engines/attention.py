"""Attention over rows of different lengths in one flat batch, with few-shot prefixes that are kept once, not per row.

A forward pass gets the tokens of all rows in one sequence without padding: one token for each row that is being
written, all tokens of rows that are new. Matrix multiplications, where the time goes, see nothing else. Attention is
taken in two parts, over a row's own keys and over its shared prefix, and the parts are joined by their log-sum-exp,
which is exact (Juravsky et al. 2024, "Hydragen", arXiv 2402.05099, section 3.1): the prefix's keys and values are read
once for all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from ccai.errors import UserError

NAME = "ccai"
"""As transformers knows this attention."""

REFUSED = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")
"""What some models hand to their attention that changes it in a way not written here."""

BLOCK = 512
"""Queries whose scores are held at once; more would leave the processor's cache."""


@dataclass(eq=False)
class Prefix:
    """Tokens that begin many rows; per layer their keys and values, (kv_heads, tokens, size) each."""

    tokens: tuple[int, ...]
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """Tokens of one row that are read in one pass, from the row's beginning.

    Attributes:
        tokens: without those of the prefix.
        prefix: what the row begins with.
        slot: where its keys and values are kept for the tokens to come.
        keep: the prefix these tokens are, if their keys and values are to be shared.
    """

    tokens: Sequence[int]
    prefix: Prefix | None = None
    slot: int | None = None
    keep: Prefix | None = None


class Rows:
    """Keys and values of the rows that are being written; row `i` lives in slot `i`.

    Attributes:
        lengths: tokens kept of each row, without its prefix.
        prefixes: what each row begins with.
        room: slots there are, and tokens in each.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.room = slots, capacity
        self.lengths: list[int] = []
        self.prefixes: list[Prefix | None] = []
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # per layer, (slots, kv_heads, capacity, size)

    def drop(self, slot: int) -> None:
        """Forget a row; the last one takes its slot."""
        last = len(self.lengths) - 1
        for kept in self.kept if slot < last else ():
            for each in kept:
                each[slot, :, : self.lengths[last]] = each[last, :, : self.lengths[last]]
        self.lengths[slot], self.prefixes[slot] = self.lengths[last], self.prefixes[last]
        del self.lengths[last], self.prefixes[last]

    def resize(self, slots: int, capacity: int) -> None:
        """Give the same rows other room."""
        rows, longest = len(self.lengths), max(self.lengths, default=0)
        for layer, kept in enumerate(self.kept):
            moved = tuple(_zeros((slots, each.shape[1], capacity, each.shape[3]), each) for each in kept)
            for new, old in zip(moved, kept, strict=True):
                new[:rows, :, :longest] = old[:rows, :, :longest]
            self.kept[layer] = moved[0], moved[1]
        self.room = slots, capacity


class Pass:
    """One forward pass: a token more for each row, then whole segments.

    Attributes:
        tokens, positions: of all rows, flat.
        last: index of each row's, then of each segment's last token: where logits are wanted.
    """

    def __init__(self, rows: Rows, following: Sequence[int], segments: Sequence[Segment], device: torch.device) -> None:
        self.tokens = list(following)
        self.positions = [
            length + (len(prefix.tokens) if prefix else 0)
            for length, prefix in zip(rows.lengths[: len(following)], rows.prefixes, strict=False)
        ]
        self.last = list(range(len(following)))
        self.layers = 0
        self._rows, self._device, self._written = rows, device, len(following)
        self._segments: list[tuple[Segment, int, int]] = []
        readers: dict[int, tuple[Prefix, list[int]]] = {}
        for index, prefix in enumerate(rows.prefixes[: len(following)]):
            if prefix:
                readers.setdefault(id(prefix), (prefix, []))[1].append(index)
        for segment in segments:
            start, end = len(self.tokens), len(self.tokens) + len(segment.tokens)
            first = len(segment.prefix.tokens) if segment.prefix else 0
            self.tokens += segment.tokens
            self.positions += range(first, first + len(segment.tokens))
            self.last.append(end - 1)
            self._segments.append((segment, start, end))
            if segment.prefix:
                readers.setdefault(id(segment.prefix), (segment.prefix, []))[1].extend(range(start, end))
        self._readers = [
            (prefix, None if len(at) == len(self.tokens) else torch.tensor(at, device=device))
            for prefix, at in readers.values()
        ]
        if following:
            lengths = torch.tensor(rows.lengths[: len(following)], device=device)
            self._ends = torch.arange(len(following), device=device), lengths
            self._widest = max(rows.lengths[: len(following)]) + 1
            hidden = torch.arange(self._widest, device=device) > lengths[:, None]
            self._mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)[:, None, None]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: int) -> torch.Tensor:
        """Attention of one layer; keeps its keys and values.

        Args:
            query: (heads, tokens, size), scaled.
            key, value: (kv_heads, tokens, size).
            layer: from 0.

        Returns:
            (tokens, heads, size).
        """
        self.layers += 1
        heads, tokens, size = query.shape
        out = query.new_empty(tokens, heads, size).transpose(0, 1)
        weight = torch.empty(heads, tokens, 1, dtype=torch.float32, device=query.device)
        if self._written:
            here = slice(0, self._written)
            out[:, here], weight[:, here] = self._attend_rows(query[:, here], key[:, here], value[:, here], layer)
        for segment, start, end in self._segments:
            own = key[:, start:end], value[:, start:end]
            out[:, start:end], weight[:, start:end] = _attend(query[:, start:end], *own, causal=True)
            if segment.slot is not None:
                for kept, new in zip(self._kept(layer, key), own, strict=True):
                    kept[segment.slot, :, : end - start] = new
            if segment.keep is not None:
                segment.keep.keys.append(own[0].clone(memory_format=torch.contiguous_format))
                segment.keep.values.append(own[1].clone(memory_format=torch.contiguous_format))
        for prefix, at in self._readers:
            asked = query if at is None else query[:, at]
            shared, its_weight = _attend(asked, prefix.keys[layer], prefix.values[layer], causal=False)
            if at is None:
                out.lerp_(shared, (its_weight - weight).sigmoid_().to(out.dtype))
            else:
                share = (its_weight - weight[:, at]).sigmoid_().to(out.dtype)
                out[:, at] = out[:, at].lerp_(shared, share)
        return out.transpose(0, 1)

    def _kept(self, layer: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slots, capacity = self._rows.room
        while len(self._rows.kept) <= layer:
            shape = slots, like.shape[0], capacity, like.shape[2]
            self._rows.kept.append((_zeros(shape, like), _zeros(shape, like)))
        return self._rows.kept[layer]

    def _attend_rows(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One query a row over the row's own keys, padded to the longest row."""
        kept = self._kept(layer, key)
        for each, new in zip(kept, (key, value), strict=True):
            each[self._ends[0], :, self._ends[1]] = new.transpose(0, 1)
        heads, rows, size = query.shape
        groups = key.shape[0]
        keys, values = (each.flatten(0, 1)[: rows * groups, : self._widest] for each in kept)
        asked = query.view(groups, -1, rows, size).permute(2, 0, 3, 1).reshape(rows * groups, size, -1)
        scores = torch.bmm(keys, asked).transpose(1, 2).contiguous().view(rows, groups, -1, self._widest)
        found, weight = _weigh(scores.add_(self._mask).flatten(0, 1), values)
        return found.view(rows, heads, size).transpose(0, 1), weight.view(rows, heads, 1).transpose(0, 1)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the log-sum-exp of its scores, (heads, tokens, size) and (heads, tokens, 1) in float32.

    Several query heads may share a key head. `causal`: as many queries as keys, each sees those up to its own.
    """
    heads, tokens, size = query.shape
    groups = key.shape[0]
    if query.device.type == "cpu" and query.dtype == torch.float32:
        asked = query[None] if causal else query.reshape(1, groups, -1, size)
        found, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            asked, key[None], value[None], 0.0, causal, scale=1.0
        )
        return found.reshape(heads, tokens, size), weight.reshape(heads, tokens, 1)
    asked = query.reshape(groups, -1, size)
    found, weight = torch.empty_like(asked), asked.new_empty(*asked.shape[:2], 1, dtype=torch.float32)
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu_(1) if causal else None
    for start in range(0, asked.shape[1], BLOCK):
        here = slice(start, start + BLOCK)
        scores = torch.bmm(asked[:, here], key.transpose(1, 2))
        if future is not None:
            at = torch.arange(start, start + scores.shape[1], device=query.device) % tokens
            scores.masked_fill_(future[at], -torch.inf)
        found[:, here], weight[:, here] = _weigh(scores, value)
    return found.view(heads, tokens, size), weight.view(heads, tokens, 1)


def _weigh(scores: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (rows, keys, size) averaged by the softmax of scores (rows, queries, keys), and its log-sum-exp."""
    shares = scores.softmax(dim=-1)
    weight = scores.amax(dim=-1, keepdim=True).float() - shares.amax(dim=-1, keepdim=True).float().log()
    return torch.bmm(shares, value), weight


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros, since padding is read too and 0 times NaN is NaN. On a CPU they take no memory until something is written,
    which torch's own would."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(math.prod(shape) * like.itemsize, np.uint8)).view(like.dtype).view(shape)


def _forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    *,
    flat: Pass,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer; tensors are (1, heads, tokens, size)."""
    if refused := [name for name in REFUSED if others.get(name) is not None]:
        raise UserError(f"this model's attention wants {', '.join(refused)}; serve it and use an endpoint instead")
    if sliding_window is not None and max(flat.positions) >= sliding_window:
        raise UserError(
            f"this model sees {sliding_window} tokens at a time and a row has {max(flat.positions) + 1}; use fewer "
            "examples or shorter limits, or serve it and use an endpoint"
        )
    return flat.attend(query[0] * scaling, key[0], value[0], module.layer_idx)[None], None


AttentionInterface.register(NAME, _forward)
