"""The default engine: continuous batching through transformers on this machine's device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from ccai.base.errors import UserError
from ccai.base.records import FinishReason, Message
from ccai.engines import attention, packed_linear
from ccai.engines.attention import Pass, Prefix, Rows, Segment
from ccai.engines.base import Completed, Request, begun
from ccai.engines.chat_template import Template
from ccai.engines.prefixes import Question, alike, questions
from ccai.engines.sampling import SURE, draw
from ccai.models import files, load, memory
from ccai.models.model import Model
from ccai.models.placement import Placement, free_memory

MAX_ROWS = {"float32": {"cpu": 48, "mps": 32, "cuda": 128}, "16 bit": {"cpu": 24, "mps": 64, "cuda": 256}}
"""Rows in generation at a time, memory permitting; more would raise the rate little and memory a lot. In 16 bit a CPU's
matrix multiplications are so fast that keys and values limit the rate, and these are read row by row.
"""

MAX_TOKENS = {"cpu": 1024, "mps": 1024, "cuda": 8192}
"""Tokens in one forward pass, unless a single row has more; bounds the memory of activations."""

WHOLE = 32
"""Longer passes in 16 bit on a CPU are padded to a multiple of this: oneDNN builds and caches a kernel of some 100 KB
for each number of tokens and each weight.
"""

NEAR_TIE = 1e-4
"""Margin in logits below which a float32 decision is repeated with logits that no other row took part in. With the
batch, the logits of a row's candidates move by up to 5e-5 relative to each other (SmolLM2-135M).
"""

YIELD_EVERY = 1.0
"""Seconds for which finished completions are collected, so that the journal does not sync to disk for each."""


@dataclass(eq=False)
class _Row:
    """A request in progress: its tokens after the prefix, and the tokens drawn so far."""

    place: int
    request: Request
    prefix: Prefix | None
    suffix: list[int]
    written: list[int] = field(default_factory=list)
    margin: float = SURE
    ended: bool = False

    @property
    def room(self) -> int:
        return len(self.suffix) + self.request.max_new_tokens


class Transformers:
    """A model, and optionally a LoRA adapter, on this machine's device.

    Attributes:
        name: logical name for records; `revision` identifies the weights.
        identity: everything about the engine that can change a completion's text; part of each journal key.
        near_ties: number of decisions that were repeated alone.
        template: the model's tokenizer and chat template.
    """

    unverified_weights = False

    def __init__(self, model: Model, placement: Placement, adapter: Path | None = None) -> None:
        self.name = model.name if adapter is None else f"{model.name}+adapter"
        self.revision = model.revision
        self.placement = placement
        self.near_ties = 0
        self.template = Template(model)
        self.identity: dict[str, Any] = {
            "engine": f"transformers-{transformers.__version__.split('.')[0]} gumbel-max-3",
            "weights": files.fingerprint(model.folder),
            "adapter": None if adapter is None else files.fingerprint(adapter),
            "template": self.template.text,
            "device": placement.device,
            "dtype": placement.dtype,
            "quantization": placement.quantization,
        }
        self._model, self._adapter = model, adapter
        self._exact = placement.dtype == "float32" and placement.quantization == "none"
        self._near_tie = NEAR_TIE if self._exact else 0.0

    @cached_property
    def model(self) -> Any:
        """The network, loaded on first use: never, if the journal has every completion.

        Raises:
            UserError: as `load.weights` and `load.adapter`.
        """
        model = load.weights(self._model, self.placement)
        if self._adapter is not None:
            model = load.adapter(model, self._adapter, self._model)
        model.set_attn_implementation(attention.NAME)
        if self._exact and self.placement.device == "cpu":
            packed_linear.pack(model)
        return model.eval()

    @cached_property
    def _ends(self) -> list[int]:
        """Tokens that end a completion."""
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = self.template.end
        ends = ends if isinstance(ends, list) else [ends]
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if not ends or not all(type(end) is int and 0 <= end < vocabulary for end in ends):
            raise UserError(
                f"model {self.name}: eos_token_id: {ends} is not an end token; correct generation_config.json"
            )
        return ends

    @property
    def runtime(self) -> dict[str, Any]:
        """Device and form of the weights, and the number of near ties so far."""
        return {
            "device": self.placement.device,
            "dtype": self.placement.dtype,
            "quantization": self.placement.quantization,
            "placement": self.placement.reason,
            "near_ties": self.near_ties,
        }

    @property
    def _most(self) -> int:
        return MAX_ROWS["float32" if self.placement.dtype == "float32" else "16 bit"][self.placement.device]

    @torch.inference_mode()
    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion) as they finish, about once a second.

        Rows run side by side, whatever their lengths and prefixes; when one ends the next begins.

        Raises:
            UserError: a prompt leaves no room in the model's context, or a single row does not fit in memory.
        """
        waiting = deque(self._rows(requests))
        most = self._most
        active: list[_Row] = []
        kept = Rows(0, 0)
        done: list[tuple[int, Completed]] = []
        yielded = time.monotonic()
        while waiting or active:
            new: list[_Row] = []
            try:
                self._make_room(kept, active, waiting, most)
                while waiting and self._may_begin(waiting[0], kept, new):
                    new.append(waiting.popleft())
                tokens = self._next(kept, active, new)
            except (MemoryError, RuntimeError) as error:
                if not memory.ran_out(error):
                    raise
                waiting.extendleft(reversed(active + new))  # they resume with the tokens they have
                most = min(most, len(active + new) or most) // 2
                if most == 0:
                    if done:
                        yield done
                    raise UserError(
                        f"model {self.name}: one row of {waiting[0].room} tokens does not fit in memory on "
                        f"{self.placement.device}; lower max_new_tokens or use a smaller model"
                    ) from None
                print(f"out of memory: {most} rows at a time from here on", flush=True)
                active, kept = [], Rows(0, 0)
                continue
            active += new
            for slot in reversed(range(len(active))):
                row, token = active[slot], tokens[slot]
                row.ended = token in self._ends
                if not row.ended:
                    row.written.append(token)
                if row.ended or len(row.written) == row.request.max_new_tokens:
                    done.append((row.place, self._completed(row)))
                    kept.drop(slot)
                    active[slot] = active[-1]
                    active.pop()
            if done and (time.monotonic() - yielded > YIELD_EVERY or not (waiting or active)):
                yield done
                done, yielded = [], time.monotonic()

    @torch.inference_mode()
    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation, not renormalised; see `Engine`.

        Of a label that follows a begun turn only the first token counts.

        Raises:
            UserError: a label is not one token of this model, or a conversation exceeds its context.
        """
        columns = self.template.labels(labels, beginnings=any(map(begun, conversations)))
        rows = [self.template.tokens(messages) for messages in conversations]
        for row in rows:
            self._check_length(len(row), 1)
        if not rows:
            return
        shared = alike(rows)
        prefix = Prefix(tuple(rows[0][:shared])) if shared else None
        self._read(prefix)
        todo = deque(questions(rows, shared))
        budget, most = MAX_TOKENS[self.placement.device], self._most
        while todo:
            read, batch = 0, list[Question]()
            while todo and (
                not batch or (read + todo[0].tokens <= budget and sum(len(each.places) for each in batch) < most)
            ):
                read += todo[0].tokens
                batch.append(todo.popleft())
            heads = [Prefix(tuple(rows[each.places[0]][: each.shared])) for each in batch]
            reading = [Segment(head.tokens[shared:], prefix, keep=head) for head in heads if len(head.tokens) > shared]
            if reading:
                self._forward(Pass(Rows(0, 0), [], reading, self.model.device))
            segments = [
                Segment(rows[place][len(head.tokens) :], head if len(head.tokens) > shared else prefix)
                for head, each in zip(heads, batch, strict=True)
                for place in each.places
            ]
            logits = self._forward(Pass(Rows(0, 0), [], segments, self.model.device))
            places = [place for each in batch for place in each.places]
            yield list(zip(places, logits.float().softmax(-1)[:, columns].tolist(), strict=True))

    def estimate(self, requests: Sequence[Request]) -> float:
        """Expected seconds: the time of a token in a full pass, times the largest possible number of tokens."""
        some = [Segment([self._ends[0]] * 8)] * (len(requests) if len(requests) < 32 else 32)
        with torch.inference_mode():
            self._forward(Pass(Rows(0, 0), [], some[:1], self.model.device)).tolist()  # first call allocates
            start = time.monotonic()
            self._forward(Pass(Rows(0, 0), [], some, self.model.device)).tolist()  # waits for a GPU
            per_token = (time.monotonic() - start) / (8 * len(some))
        unshared = sum(len(m.content) / 4 for request in requests for m in request.messages[request.shared :])
        return per_token * (unshared + sum(request.max_new_tokens for request in requests))

    def _rows(self, requests: Sequence[Request]) -> list[_Row]:
        """Requests as tokens; requests with the same prefix are adjacent, the longest first."""
        groups: dict[tuple[Message, ...], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(request.messages[: request.shared], []).append(place)
        result = []
        for messages, places in groups.items():
            full = [self.template.tokens(requests[place].messages) for place in places]
            for place, ids in zip(places, full, strict=True):
                self._check_length(len(ids), requests[place].max_new_tokens)
            shared = self.template.tokens(messages, generation_prompt=False) if messages and len(places) > 1 else []
            if any(ids[: len(shared)] != shared for ids in full):
                shared = []  # a template in which later turns change earlier tokens
            prefix = Prefix(tuple(shared)) if shared else None
            rows = [
                _Row(place, requests[place], prefix, ids[len(shared) :])
                for place, ids in zip(places, full, strict=True)
            ]
            result += sorted(rows, key=lambda row: -row.room)
        return result

    def _check_length(self, tokens: int, new: int) -> None:
        config = self.model.config.get_text_config()
        limit = config.max_position_embeddings
        scaling = config.rope_parameters or {}
        if scaling.get("rope_type") in (
            "dynamic",
            "longrope",
        ):  # in longer passes they rotate all rows' keys differently
            limit = min(limit, scaling.get("original_max_position_embeddings") or limit)
        self.template.check_room(tokens, new, limit)

    def _make_room(self, kept: Rows, active: Sequence[_Row], waiting: Sequence[_Row], most: int) -> None:
        """Slots for as many rows as may run at a time; more of them when only shorter rows are left."""
        slots, capacity = kept.room
        if slots >= min(most, len(active) + len(waiting)):
            return
        longest = max(row.room for row in (*active, *waiting))
        if slots and longest > capacity / 2:
            return
        config = self.model.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        size = 4 if self.placement.dtype == "float32" else 2
        groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * groups * head * size
        fit = int(free_memory(self.placement.device) / 2 // (per_token * longest))
        kept.resize(max(1, len(active), min(most, len(active) + len(waiting), fit)), longest)

    def _may_begin(self, row: _Row, kept: Rows, new: Sequence[_Row]) -> bool:
        """Whether a slot is free and the pass has room for the row's tokens."""
        read = sum(len(other.suffix) + len(other.written) for other in (*new, row))
        free = len(kept.lengths) + len(new) < kept.room[0]
        return free and (not new or len(kept.lengths) + read <= MAX_TOKENS[self.placement.device])

    def _next(self, kept: Rows, active: Sequence[_Row], new: Sequence[_Row]) -> list[int]:
        """The next token of all rows, in one pass. Rows change only if it succeeds."""
        for row in new:
            self._read(row.prefix)
        begun = [
            Segment([*row.suffix, *row.written], row.prefix, slot=len(active) + index) for index, row in enumerate(new)
        ]
        flat = Pass(kept, [row.written[-1] for row in active], begun, self.model.device)
        rows = [*active, *new]
        tokens, margins = self._draw(self._forward(flat), rows)
        for index, row in enumerate(rows):
            row.margin = min(row.margin, margins[index])
            if margins[index] < self._near_tie:
                self.near_ties += 1
                tokens[index] = self._draw(self._alone(row), [row])[0][0]
        kept.lengths = [length + 1 for length in kept.lengths] + [len(segment.tokens) for segment in begun]
        kept.prefixes += [row.prefix for row in new]
        return tokens

    def _alone(self, row: _Row) -> torch.Tensor:
        """Logits for a row's next token from a pass of its own, (1, vocabulary)."""
        first = list(row.prefix.tokens) if row.prefix else []
        whole = Segment([*first, *row.suffix, *row.written])
        return self._forward(Pass(Rows(0, 0), [], [whole], self.model.device))

    def _draw(self, logits: torch.Tensor, rows: Sequence[_Row]) -> tuple[list[int], list[float]]:
        counts = [len(row.written) for row in rows]
        width = max(counts)
        written = [row.written + row.written[:1] * (width - len(row.written)) or [0] * width for row in rows]
        for index, count in enumerate(counts):
            if count == 0:
                logits[index, self._ends] = -torch.inf  # an empty completion is not allowed
        drawn = draw(
            logits,
            torch.tensor(written, dtype=torch.long, device=logits.device),
            counts,
            [row.request.seed for row in rows],
            [row.request.sampling for row in rows],
            self._near_tie,
        )
        return drawn.tokens.tolist(), drawn.margins.tolist()

    def _read(self, prefix: Prefix | None) -> None:
        """Compute the keys and values of a prefix unless they exist."""
        if prefix and not prefix.keys:
            whole = Prefix(prefix.tokens)  # running out of memory must not leave some layers only
            self._forward(Pass(Rows(0, 0), [], [Segment(prefix.tokens, keep=whole)], self.model.device))
            prefix.keys, prefix.values = whole.keys, whole.values

    def _forward(self, flat: Pass) -> torch.Tensor:
        """Logits of the last token of each row, (rows, vocabulary)."""
        device, tokens = self.model.device, len(flat.tokens)
        whole = device.type == "cpu" and self.placement.dtype != "float32" and tokens > WHOLE
        padding = [0] * (-tokens % WHOLE if whole else 0)
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([flat.tokens + padding], device=device),
            position_ids=torch.tensor([flat.positions + padding], device=device),
            logits_to_keep=torch.tensor(flat.last, device=device),
            use_cache=False,
            flat=flat,
        ).logits[0]
        if flat.layers != self.model.config.get_text_config().num_hidden_layers:
            raise UserError(
                f"model {self.name}: not all of its layers are plain attention; serve it and use an endpoint instead"
            )
        return logits

    def _completed(self, row: _Row) -> Completed:
        reason: FinishReason = "stop" if row.ended else "length"
        length = (len(row.prefix.tokens) if row.prefix else 0) + len(row.suffix)
        return Completed(self.template.text_of(row.written), reason, length, len(row.written), row.margin)
