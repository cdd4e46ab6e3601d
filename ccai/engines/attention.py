"""Attention for rows of different lengths in one flat batch, with few-shot prefixes that are stored once, not per row.

A forward pass takes the tokens of all rows in one sequence without padding: one token for each row in generation, all
tokens of new rows. The matrix multiplications, which take most of the time, see no padding. Attention has two parts,
over a row's own keys and over its shared prefix, joined by their log-sum-exp, which is exact (Juravsky et al. 2024,
"Hydragen", arXiv 2402.05099, section 3.1): the prefix's keys and values are read once for all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import AttentionInterface

from ccai.base.errors import UserError

NAME = "ccai"
"""Name of this attention in transformers."""

REFUSED = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")
"""Arguments of some models' attention that change it in ways not implemented here."""

BLOCK = {"cpu": 64, "mps": 512, "cuda": 512}
"""Queries of a new row whose scores are computed at once; more would not fit in the processor's cache."""

STEP = 32
"""Tokens by which the rows' memory grows and shrinks."""


@dataclass(eq=False)
class Prefix:
    """Tokens that begin many rows; per layer their keys and values, (kv_heads, tokens, size) each."""

    tokens: tuple[int, ...]
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """The tokens of one row, from its beginning, that are read in one pass.

    Attributes:
        tokens: without those of the prefix.
        prefix: the prefix of the row.
        slot: where its keys and values are kept for later tokens.
        keep: the prefix that stores keys and values of this segment, after those of its own prefix, to share them.
    """

    tokens: Sequence[int]
    prefix: Prefix | None = None
    slot: int | None = None
    keep: Prefix | None = None


class Rows:
    """Keys and values of the rows in generation; row `i` is in slot `i`.

    Attributes:
        lengths: tokens stored for each row, without its prefix.
        prefixes: the prefix of each row.
        room: number of slots, and the most tokens that a row may have.
        width: tokens that each slot currently has memory for.
        cache: per layer keys and values, (slots, kv_heads, width, size) each.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.room = slots, capacity
        self.width = 0
        self.lengths: list[int] = []
        self.prefixes: list[Prefix | None] = []
        self.cache: list[tuple[torch.Tensor, torch.Tensor]] = []

    def drop(self, slot: int) -> None:
        """Remove a row; the last row takes its slot."""
        last = len(self.lengths) - 1
        for tensors in self.cache if slot < last else ():
            for each in tensors:
                each[slot, :, : self.lengths[last]] = each[last, :, : self.lengths[last]]
        self.lengths[slot], self.prefixes[slot] = self.lengths[last], self.prefixes[last]
        del self.lengths[last], self.prefixes[last]

    def resize(self, slots: int, capacity: int) -> None:
        """Change the number of slots and their capacity; the rows stay."""
        self.room = slots, capacity
        self._move(self.width)

    def fit(self, longest: int) -> None:
        """Make the slots as wide as the longest row, so that memory follows the text."""
        if not longest <= self.width < longest + 2 * STEP:
            self._move(-(-longest // STEP) * STEP)

    def _move(self, width: int) -> None:
        rows, common = len(self.lengths), min(self.width, width)
        for layer, tensors in enumerate(self.cache):
            moved = tuple(_zeros((self.room[0], each.shape[1], width, each.shape[3]), each) for each in tensors)
            for new, old in zip(moved, tensors, strict=True):
                new[:rows, :, :common] = old[:rows, :, :common]
            self.cache[layer] = moved[0], moved[1]
        self.width = width


class Pass:
    """One forward pass: one more token for each row, then whole segments.

    Attributes:
        tokens, positions: of all rows, flat.
        last: index of the last token of each row, then of each segment, where logits are needed.
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
        for segment in segments:
            start, end = len(self.tokens), len(self.tokens) + len(segment.tokens)
            first = len(segment.prefix.tokens) if segment.prefix else 0
            self.tokens += segment.tokens
            self.positions += range(first, first + len(segment.tokens))
            self.last.append(end - 1)
            self._segments.append((segment, start, end))
        held = [length + 1 for length in rows.lengths[: len(following)]]
        held += [len(segment.tokens) for segment in segments if segment.slot is not None]
        if held:
            rows.fit(max(held))
        readers: dict[int, tuple[Prefix, list[int]]] = {}
        for index, prefix in enumerate(rows.prefixes[: len(following)]):
            if prefix:
                readers.setdefault(id(prefix), (prefix, []))[1].append(index)
        self._readers = [
            (prefix, None if len(at) == len(following) else torch.tensor(at, device=device))
            for prefix, at in readers.values()
        ]
        if following:
            lengths = torch.tensor(rows.lengths[: len(following)], device=device)
            self._ends = torch.arange(len(following), device=device), lengths
            hidden = torch.arange(rows.width, device=device) > lengths[:, None]
            self._mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)[:, None, None]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: int) -> torch.Tensor:
        """Attention of one layer; stores its keys and values.

        Args:
            query: (heads, tokens, size), scaled; tokens after those of the pass are padding.
            key, value: (kv_heads, tokens, size).
            layer: from 0.

        Returns:
            (tokens, heads, size).
        """
        self.layers += 1
        heads, tokens, size = query.shape
        out = query.new_zeros(tokens, heads, size).transpose(0, 1)
        if self._written:
            written = slice(0, self._written)
            out[:, written] = self._attend_rows(query[:, written], key[:, written], value[:, written], layer)
        for segment, start, end in self._segments:
            own = key[:, start:end], value[:, start:end]
            prefix = (segment.prefix.keys[layer], segment.prefix.values[layer]) if segment.prefix else None
            out[:, start:end] = _begin(query[:, start:end], *own, prefix)
            if segment.slot is not None:
                for slots, new in zip(self._kept(layer, key), own, strict=True):
                    slots[segment.slot, :, : end - start] = new
            if segment.keep is not None:  # a copy: a view would keep the whole pass in memory
                segment.keep.keys.append(torch.cat([*([prefix[0]] if prefix else []), own[0]], 1))
                segment.keep.values.append(torch.cat([*([prefix[1]] if prefix else []), own[1]], 1))
        return out.transpose(0, 1)

    def _kept(self, layer: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self._rows.cache) <= layer:
            shape = self._rows.room[0], like.shape[0], self._rows.width, like.shape[2]
            self._rows.cache.append((_zeros(shape, like), _zeros(shape, like)))
        return self._rows.cache[layer]

    def _attend_rows(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: int) -> torch.Tensor:
        """One query per row over the row's own keys, padded to the slots' width, and over its prefix."""
        slots = self._kept(layer, key)
        for each, new in zip(slots, (key, value), strict=True):
            each[self._ends[0], :, self._ends[1]] = new.transpose(0, 1)
        heads, rows, size = query.shape
        grouped = query.view(key.shape[0], -1, rows, size).permute(2, 0, 1, 3)
        attended, weight = _masked(grouped, slots[0][:rows], slots[1][:rows], self._mask)
        out = attended.reshape(rows, heads, size).transpose(0, 1)
        weight = weight.reshape(rows, heads, 1).transpose(0, 1)
        for prefix, at in self._readers:
            reads = slice(None) if at is None else at
            shared, its_weight = _attend(query[:, reads], prefix.keys[layer], prefix.values[layer])
            out[:, reads] = _join(out[:, reads], weight[:, reads], shared, its_weight)
        return out


def _begin(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prefix: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """Attention of a new row: each token sees the prefix and the row up to itself; all (heads, tokens, size)."""
    if _flash(query):
        attended, weight = _attend(query, key, value, causal=True)
        return _join(attended, weight, *_attend(query, *prefix)) if prefix else attended
    heads, tokens, size = query.shape
    groups, block = key.shape[0], BLOCK[query.device.type]
    padding = 0, 0, 0, -tokens % block  # whole blocks: oneDNN builds and caches a kernel for each shape
    grouped = pad(query.reshape(groups, -1, tokens, size), padding)
    keys, values = pad(key, padding), pad(value, padding)
    if prefix:
        keys, values = torch.cat([prefix[0], keys], 1), torch.cat([prefix[1], values], 1)
    future = torch.ones(block, block, dtype=torch.bool, device=query.device).triu_(1)
    attended = torch.empty_like(grouped)
    for end in range(block, grouped.shape[2] + 1, block):
        span, limit = slice(end - block, end), keys.shape[1] - grouped.shape[2] + end
        scores = torch.bmm(grouped[:, :, span].flatten(1, 2), keys[:, :limit].transpose(1, 2))
        scores.view(groups, -1, block, limit)[..., -block:].masked_fill_(future, -torch.inf)
        attended[:, :, span] = torch.bmm(scores.softmax(-1), values[:, :limit]).view(groups, -1, block, size)
    return attended[:, :, :tokens].reshape(heads, tokens, size)


def _masked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of rows over their own keys, and the log-sum-exp of the scores.

    Args:
        query: (rows, kv_heads, heads of a kv_head, size).
        key, value: (rows, kv_heads, width, size).
        mask: (rows, 1, 1, width), added to the scores.
    """
    rows, groups, heads, size = query.shape
    if _flash(query):
        return _kernel(query, key, value, attn_mask=mask.expand(-1, -1, heads, -1))
    # Whole slots: in 16 bit torch would copy a view of fewer tokens each time.
    turned = query.transpose(2, 3).reshape(rows * groups, size, heads)
    scores = torch.bmm(key.flatten(0, 1), turned).transpose(1, 2).contiguous().view(rows, groups, heads, -1)
    return _weigh(scores.add_(mask).flatten(0, 1), value.flatten(0, 1))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the log-sum-exp of its scores, (heads, tokens, size) and (heads, tokens, 1) in float32.

    Several query heads may share a key head. `causal` works only with `_flash`: as many queries as keys, and each sees
    the keys up to its own.
    """
    heads, tokens, size = query.shape
    grouped = query.reshape(key.shape[0], -1, size)
    if not _flash(query):
        attended, weight = _weigh(torch.bmm(grouped, key.transpose(1, 2)), value)
    else:
        attended, weight = _kernel(query[None] if causal else grouped[None], key[None], value[None], is_causal=causal)
    return attended.reshape(heads, tokens, size), weight.reshape(heads, tokens, 1)


def _flash(query: torch.Tensor) -> bool:
    """Whether torch has a kernel that returns the log-sum-exp and is faster than plain products."""
    return query.device.type == "cpu" and query.dtype == torch.float32


def _kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's CPU kernel: (batch, heads, tokens, size) and the log-sum-exp of the scores, (batch, heads, tokens)."""
    attended, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, scale=1.0, **options
    )
    return attended, weight


def _join(
    own: torch.Tensor, own_weight: torch.Tensor, shared: torch.Tensor, shared_weight: torch.Tensor
) -> torch.Tensor:
    """Attention over two sets of keys from the attention over each, (heads, tokens, size), and their log-sum-exps."""
    return own.lerp_(shared, (shared_weight - own_weight).sigmoid_().to(own.dtype))


def _weigh(scores: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (rows, keys, size) averaged by the softmax of scores (rows, queries, keys), and its log-sum-exp."""
    shares = scores.softmax(dim=-1)
    weight = scores.amax(dim=-1, keepdim=True).float() - shares.amax(dim=-1, keepdim=True).float().log()
    return torch.bmm(shares, value), weight


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros, because padding is read too and 0 times NaN is NaN.

    On a CPU NumPy's take no memory until something is written to them; torch's would.
    """
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
    """The function that transformers calls in each layer; tensors are (1, heads, tokens, size)."""
    if refused := [name for name in REFUSED if others.get(name) is not None]:
        raise UserError(f"this model's attention needs {', '.join(refused)}; serve it and use an endpoint instead")
    if sliding_window is not None and max(flat.positions) >= sliding_window:
        raise UserError(
            f"this model sees {sliding_window} tokens at a time and a row has {max(flat.positions) + 1}; use fewer "
            "examples or shorter limits, or serve it and use an endpoint"
        )
    return flat.attend(query[0] * scaling, key[0], value[0], module.layer_idx)[None], None


AttentionInterface.register(NAME, _forward)
