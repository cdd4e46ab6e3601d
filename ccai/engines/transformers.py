"""The default engine: batches on this machine's device through transformers."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging

from ccai import models
from ccai.engines.request import Completed, Request
from ccai.errors import UserError
from ccai.models import Model, Placement
from ccai.records import FinishReason, Message

logging.disable_progress_bar()
logging.set_verbosity_error()
# PEFT and TRL use names of transformers that will go; nothing a user could do about it.
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

MAX_ROWS = {"cpu": 32, "mps": 32, "cuda": 256}
"""Rows in a batch, where memory allows; on a CPU more rows no longer raise the rate."""


def draw(logits: torch.Tensor, written: torch.Tensor, requests: Sequence[Request]) -> torch.Tensor:
    """The next token of each row, by Gumbel-max; greedy at temperature 0.

    argmax(logits / temperature + Gumbel) is a draw from softmax(logits / temperature) (Maddison et al. 2014,
    arXiv 1411.0030). The noise depends on (seed, position, token id) alone, so a row draws the same tokens in any
    batch, and a rounding difference in the logits flips a draw only when two candidates are that close.

    Args:
        logits: float (rows, vocabulary).
        written: int64 (rows, tokens written so far).
        requests: one a row, all with the same sampling settings.
    """
    settings = requests[0].sampling
    scores = logits.float()
    if settings.repetition_penalty != 1 and written.shape[1]:
        seen = scores.gather(1, written)
        penalty = settings.repetition_penalty
        scores = scores.scatter(1, written, torch.where(seen < 0, seen * penalty, seen / penalty))
    if settings.temperature > 0:
        scores = scores / settings.temperature
        if settings.min_p > 0:
            floor = scores.amax(dim=-1, keepdim=True) + math.log(settings.min_p)
            scores = scores.masked_fill(scores < floor, -math.inf)
        noise = np.stack([gumbel(request.seed, written.shape[1], scores.shape[1]) for request in requests])
        scores = scores + torch.from_numpy(noise).to(scores.device)
    return scores.argmax(dim=-1)


def gumbel(seed: int, position: int, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard Gumbel noise for each token id at one position of one completion, float32 (size,).

    Drawn in float64: in float32 an exponential is exactly 0, and its Gumbel infinite, about once in 2^23 draws,
    which over a vocabulary of 49,152 puts a random word into every second completion.
    """
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, position]))
    return -np.log(generator.standard_exponential(size)).astype(np.float32)


class _Row(NamedTuple):
    place: int
    request: Request
    suffix: list[int]


class Transformers:
    """A model, and optionally a LoRA adapter, loaded and ready.

    Attributes:
        name: logical name for records; `revision` says which weights.
        identity: everything about the engine that can change a completion's text; part of each journal key.
    """

    def __init__(self, model: Model, placement: Placement, adapter: Path | None = None) -> None:
        self.name = model.name if adapter is None else f"{model.name}+adapter"
        self.revision = model.revision
        self.placement = placement
        self._tokenizer = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=False)
        if self._tokenizer.chat_template is None:
            raise UserError(f"model {model.name}: its tokenizer has no chat template; use an instruct model")
        self.model = load_weights(model, placement)
        self.identity: dict[str, Any] = {
            "engine": f"transformers-{transformers.__version__.split('.')[0]} gumbel-max-2",
            "weights": models.fingerprint(model.folder),
            "adapter": None if adapter is None else models.fingerprint(adapter),
            "template": self._tokenizer.chat_template,
            "device": placement.device,
            "dtype": placement.dtype,
            "quantization": placement.quantization,
        }
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends: list[int] = ends if isinstance(ends, list) else [ends]
        self._pad: int = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._ends[0]

    def tokens(self, messages: Sequence[Message], *, generation_prompt: bool) -> list[int]:
        """Token ids of a conversation in the model's chat template."""
        turns = [message.model_dump() for message in messages]
        ids: Mapping[str, list[int]] = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=generation_prompt, tokenize=True, return_dict=True
        )
        return list(ids["input_ids"])

    @torch.inference_mode()
    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion) batch by batch as they finish.

        Raises:
            UserError: a prompt leaves no room in the model's context, or one single row does not fit in memory.
        """
        groups: dict[tuple[Any, ...], list[_Row]] = {}
        for place, request in enumerate(requests):
            key = request.messages[: request.shared], request.max_new_tokens, request.sampling
            groups.setdefault(key, []).append(_Row(place, request, []))
        for rows in groups.values():
            yield from self._complete_group(rows)

    @torch.inference_mode()
    def score(self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[list[float]]:
        """Probability of each label as the next token after each conversation, not renormalised.

        Raises:
            UserError: a label is not one token of this model.
        """
        ids = [self._tokenizer.encode(label, add_special_tokens=False) for label in labels]
        if any(len(tokens) != 1 for tokens in ids):
            raise UserError(f"model {self.name}: labels {list(labels)} are not single tokens of it; use another judge")
        columns = [tokens[0] for tokens in ids]
        rows = [self.tokens(messages, generation_prompt=True) for messages in conversations]
        result: list[list[float]] = []
        for start in range(0, len(rows), MAX_ROWS[self.placement.device]):
            batch = rows[start : start + MAX_ROWS[self.placement.device]]
            widest = max(map(len, batch))
            padded = [[self._pad] * (widest - len(row)) + row for row in batch]
            mask = [[0] * (widest - len(row)) + [1] * len(row) for row in batch]
            logits = self.model(
                input_ids=torch.tensor(padded, device=self.model.device),
                attention_mask=torch.tensor(mask, device=self.model.device),
                position_ids=(torch.tensor(mask).cumsum(-1) - 1).clamp(min=0).to(self.model.device),
                logits_to_keep=1,
            ).logits[:, -1]
            result += logits.float().softmax(-1)[:, columns].tolist()
        return result

    def estimate(self, requests: Sequence[Request]) -> float:
        """Seconds these requests may take: one batch step of this model timed, times the steps; an upper bound."""
        width = min(MAX_ROWS[self.placement.device], len(requests))
        ids = torch.full((width, 16), self._pad, device=self.model.device)
        with torch.inference_mode():
            self.model(input_ids=ids[:, :1], logits_to_keep=1)  # first call allocates
            start = time.monotonic()
            self.model(input_ids=ids[:, :1], logits_to_keep=1)
            step = time.monotonic() - start
            self.model(input_ids=ids, logits_to_keep=1)
            per_token = (time.monotonic() - start - step) / ids.numel()
        written = sum(request.max_new_tokens for request in requests)
        unshared = sum(len(m.content) / 4 for request in requests for m in request.messages[request.shared :])
        return step * written / width + per_token * unshared

    def _complete_group(self, rows: Sequence[_Row]) -> Iterator[list[tuple[int, Completed]]]:
        """Rows with the same shared messages and settings: the prefix's keys and values are computed once."""
        first = rows[0].request
        full = [self.tokens(row.request.messages, generation_prompt=True) for row in rows]
        prefix = self.tokens(first.messages[: first.shared], generation_prompt=False) if first.shared else []
        if len(rows) == 1 or any(ids[: len(prefix)] != prefix for ids in full):
            prefix = []  # nothing to share, or a template in which later turns change earlier tokens
        limit = self.model.config.get_text_config().max_position_embeddings
        for ids in full:
            if len(ids) + first.max_new_tokens > limit:
                raise UserError(
                    f"model {self.name}: a prompt of {len(ids)} tokens and {first.max_new_tokens} new ones exceed its "
                    f"context of {limit}; use fewer examples or shorter limits"
                )
        cache = self._prefill(prefix)
        todo = [row._replace(suffix=ids[len(prefix) :]) for row, ids in zip(rows, full, strict=True)]
        todo.sort(key=lambda row: -len(row.suffix))  # rows of like length pad each other least
        width = MAX_ROWS[self.placement.device]
        while todo:
            longest = len(prefix) + len(todo[0].suffix) + first.max_new_tokens
            width = max(1, min(width, self._rows_that_fit(longest)))
            finished: set[int] = set()
            try:
                for done in self._decode(todo[:width], prefix, cache):
                    finished |= {place for place, _ in done}
                    yield done
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                    raise
                if width == 1:
                    raise UserError(
                        f"model {self.name}: one row of {longest} tokens does not fit in memory on "
                        f"{self.placement.device}; lower max_new_tokens or use a smaller model"
                    ) from None
                width //= 2
                print(f"out of memory: batches of {width} from here on", flush=True)
            todo = [row for row in todo if row.place not in finished]

    def _rows_that_fit(self, tokens: int) -> int:
        """Rows of that many tokens whose keys and values fit in half of what is free."""
        config = self.model.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        size = 4 if self.placement.dtype == "float32" else 2
        per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * size
        return int(models.free_memory(self.placement.device) / 2 // (per_token * tokens))

    def _prefill(self, prefix: Sequence[int]) -> DynamicCache | None:
        """Keys and values of the shared prefix, one row."""
        if not prefix:
            return None
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prefix], device=self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _decode(
        self, rows: Sequence[_Row], prefix: Sequence[int], shared: DynamicCache | None
    ) -> Iterator[list[tuple[int, Completed]]]:
        """One batch: [prefix][padding][suffix] for each row, so that all rows end at the same column.

        Finished rows leave the batch, and are yielded, as soon as a quarter of it is finished.
        """
        device, limit = self.model.device, rows[0].request.max_new_tokens
        widest = max(len(row.suffix) for row in rows)
        gaps = [widest - len(row.suffix) for row in rows]
        ids = torch.tensor([[self._pad] * gap + row.suffix for gap, row in zip(gaps, rows, strict=True)], device=device)
        mask = torch.ones(len(rows), len(prefix) + widest, dtype=torch.long, device=device)
        for index, gap in enumerate(gaps):
            mask[index, len(prefix) : len(prefix) + gap] = 0
        cache = _room(self.model.config, shared, len(rows), len(prefix) + widest + limit)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, len(prefix) :]
        texts: list[list[int]] = [[] for _ in rows]
        ended = [False] * len(rows)
        active = list(range(len(rows)))
        written = torch.empty(len(rows), 0, dtype=torch.long, device=device)

        def completed(index: int) -> tuple[int, Completed]:
            text = self._tokenizer.decode(texts[index], skip_special_tokens=True).strip()
            reason: FinishReason = "stop" if ended[index] else "length"
            length = len(prefix) + len(rows[index].suffix)
            return rows[index].place, Completed(text, reason, length, len(texts[index]))

        for step in range(limit):
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                logits_to_keep=1,
            ).logits[:, -1]
            if step == 0:
                logits[:, self._ends] = -math.inf  # a completion of nothing is no completion
            ids = draw(logits, written, [rows[index].request for index in active])[:, None]
            for index, token in zip(active, ids[:, 0].tolist(), strict=True):
                ended[index] = ended[index] or token in self._ends
                if not ended[index]:
                    texts[index].append(token)
            left = [place for place, index in enumerate(active) if not ended[index]]
            if not left:
                break
            written = torch.cat([written, ids], dim=1)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = positions[:, -1:] + 1
            if len(left) <= 0.75 * len(active):
                keep = torch.tensor(left, device=device)
                ids, written, mask, positions = ids[keep], written[keep], mask[keep], positions[keep]
                cache.batch_select_indices(keep)
                yield [completed(index) for index in active if ended[index]]
                active = [active[place] for place in left]
        yield [completed(index) for index in active]


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer with room for the whole completion; transformers' own layer copies all of them at
    every token."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def fill(self, keys: torch.Tensor, values: torch.Tensor, rows: int) -> None:
        """Start every row with the same keys and values, (1, heads, tokens, size) each."""
        self.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (rows, heads, tokens, size) states; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = [self._empty(key_states), self._empty(value_states)]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        end = self.get_seq_length()
        self._room = [room[indices] for room in self._room]
        self.keys, self.values = (room[:, :, :end] for room in self._room)

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        rows, heads, _, size = like.shape
        return like.new_empty(rows, heads, self._capacity, size)


def _room(config: Any, shared: DynamicCache | None, rows: int, capacity: int) -> DynamicCache:
    """A cache for `rows` rows of `capacity` tokens that begin with the shared prefix.

    Layers of another kind than full attention (sliding windows) stay as transformers makes them.
    """
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = _RoomyLayer(capacity)
    for index, layer in enumerate(shared.layers if shared else []):
        own = cache.layers[index]
        if isinstance(own, _RoomyLayer):
            own.fill(layer.keys, layer.values, rows)
        else:
            cache.layers[index] = copy.deepcopy(layer)
            cache.layers[index].batch_repeat_interleave(rows)
    return cache


def load_weights(model: Model, placement: Placement) -> Any:
    """A causal language model on its device; quantized through bitsandbytes if the placement says so."""
    quantization = None
    if placement.quantization == "8bit":
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    elif placement.quantization == "4bit":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, placement.dtype),
        )
    return AutoModelForCausalLM.from_pretrained(
        model.folder,
        dtype=getattr(torch, placement.dtype),
        quantization_config=quantization,
        device_map=placement.device,
        use_safetensors=True,
        trust_remote_code=False,
    )
