"""Ways to do the same work, each in a process of its own; called by bench.generation.

Names: `naive` is transformers' `generate`, one prompt at a time; `fixed-N` is `generate` on N prompts as they come,
padded on the left, until all N are done; `sorted-N` the same with prompts of like length together; `continuous-N`
is transformers' continuous batching, N prompts handed over at a time; `llama.cpp` its server, one request at a time,
with the weights of `--gguf`; `ours` is the engine.

`naive`, `fixed`, `sorted` and `ours` draw every token by the same rule, from the same seeds. In float32 they write the
same texts, and time is the only difference. `continuous` and `llama.cpp` have sampling of their own: their texts
differ, and so do their lengths.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import requests as http
import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, LogitsProcessor
from transformers.utils import logging

from bench import machine, work
from bench.prepare import Tokenizer
from bench.work import STAGES, Item
from ccai.base.files import write_text
from ccai.base.hashing import digest, seed_for
from ccai.base.params import Hardware
from ccai.engines.base import Completed, Request
from ccai.engines.sampling import draw
from ccai.engines.transformers import Transformers
from ccai.models import find, placement
from ccai.models.model import Model

LEAST = 18
"""Completions that are done at least. Lengths differ so much that three put the naive loop's time a third too high."""

PAGE = 256
"""Tokens in a page of continuous batching's keys and values."""


class Batch(NamedTuple):
    """Completions that were asked for together.

    `positions` are the tokens, padding among them, that went through the model; None where it runs in another
    process. `outcomes` are (item, digest of its text, completion tokens, finish reason).
    """

    stage: str
    seconds: float
    positions: int | None
    prompt_tokens: int
    completion_tokens: int
    outcomes: list[tuple[int, str, int, str]]


class Contender(Protocol):
    """Something that completes requests. `rows`: how many at a time; None: all of a stage."""

    rows: int | None
    positions: int | None

    def complete(self, requests: Sequence[Request]) -> list[Completed]:
        """Completions in the order of the requests, all with the same token limit."""
        ...

    def close(self) -> int:
        """Stop; returns the most bytes held."""
        ...


class Ours:
    """The engine, handed all of a stage."""

    rows: int | None = None

    def __init__(self, model: Model, dtype: str) -> None:
        hardware = Hardware.model_validate(
            {"engine": "transformers", "device": "cpu", "dtype": dtype, "quantization": "none"}
        )
        self._engine = Transformers(model, placement.place(model, hardware))
        self.positions: int | None = 0
        _count_positions(self._engine.model, self)

    def complete(self, requests: Sequence[Request]) -> list[Completed]:
        done = dict(pair for batch in self._engine.complete(requests) for pair in batch)
        return [done[index] for index in range(len(requests))]

    def close(self) -> int:
        return machine.peak_memory()


class Generate:
    """transformers' `generate` on a padded batch."""

    def __init__(self, model: Model, dtype: str, rows: int) -> None:
        self.rows: int | None = rows
        self._tokenizer, self._model = _load(model, dtype)
        self._ends = _ends(self._model)
        self.positions: int | None = 0
        _count_positions(self._model, self)

    @torch.inference_mode()
    def complete(self, requests: Sequence[Request]) -> list[Completed]:
        turns = [[message.model_dump() for message in request.messages] for request in requests]
        inputs = self._tokenizer.own.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        width = inputs["input_ids"].shape[1]
        written = self._model.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=1,  # as ours: a completion of nothing is no completion
            max_new_tokens=requests[0].max_new_tokens,
            pad_token_id=self._tokenizer.own.pad_token_id,
            logits_processor=[Drawn(requests, width, self._ends)],
        )[:, width:].tolist()
        lengths = inputs["attention_mask"].sum(-1).tolist()
        return [_completed(self._tokenizer, ids, self._ends, n) for ids, n in zip(written, lengths, strict=True)]

    def close(self) -> int:
        return machine.peak_memory()


class Drawn(LogitsProcessor):  # type: ignore[misc]
    """Makes the token that our sampling draws the greedy choice. Rows that have ended cost nothing here."""

    def __init__(self, requests: Sequence[Request], width: int, ends: Sequence[int]) -> None:
        self._requests, self._width, self._ends = requests, width, ends
        self._active = list(range(len(requests)))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written = input_ids[:, self._width :]
        if written.shape[1]:
            last = written[:, -1].tolist()
            self._active = [row for row in self._active if last[row] not in self._ends]
        rows = self._active
        asked = [self._requests[row] for row in rows]
        drawn = draw(
            scores[rows],
            written[rows],
            [written.shape[1]] * len(rows),
            [request.seed for request in asked],
            [request.sampling for request in asked],
        )
        scores[rows, drawn.tokens] = torch.inf
        return scores


class Continuous:
    """transformers' continuous batching, with its own sampling: temperature and min_p, one seed for all, no penalty
    (its penalty would touch the prompt's tokens as well)."""

    def __init__(self, model: Model, dtype: str, rows: int) -> None:
        self.rows: int | None = rows
        self._tokenizer, self._model = _load(model, dtype)
        self._ends = _ends(self._model)
        self.positions: int | None = 0
        _count_positions(self._model, self)

    def complete(self, requests: Sequence[Request]) -> list[Completed]:
        prompts = [self._tokenizer.prompt(request) for request in requests]
        sampling, limit = requests[0].sampling, requests[0].max_new_tokens
        drawn: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "min_p": sampling.min_p, "top_k": 0}
        pages = sum((len(prompt) + limit) // PAGE + 1 for prompt in prompts)
        done = self._model.generate_batch(
            inputs=prompts,
            generation_config=GenerationConfig(
                **drawn,
                max_new_tokens=limit,
                eos_token_id=self._ends,
                pad_token_id=self._tokenizer.own.pad_token_id,
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=pages + 1,
                max_batch_tokens=max(512, len(prompts)),
                max_requests_per_batch=len(prompts),
                seed=requests[0].seed % 2**31,
            ),
            warmup=False,
        )
        if len(done) != len(prompts):
            raise RuntimeError(f"continuous batching finished {len(done)} of {len(prompts)} requests")
        return [
            _completed(self._tokenizer, output.generated_tokens, self._ends, len(prompt))
            for output, prompt in zip(done.values(), prompts, strict=True)
        ]

    def close(self) -> int:
        return machine.peak_memory()


class LlamaCpp:
    """llama.cpp's server, one request at a time, with its own sampling."""

    rows: int | None = 1
    positions: int | None = None

    def __init__(self, gguf: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/v1"
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--port", str(port)]
        command += ["--n_ctx", "4096", "--n_threads", str(machine.threads()), "--verbose", "false"]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with suppress(http.ConnectionError):
                http.get(f"{self._url}/models", timeout=10).raise_for_status()
                return
            if self._server.poll() is not None:
                raise SystemExit(f"llama.cpp: the server ended with {self._server.returncode}")
            time.sleep(0.2)

    def complete(self, requests: Sequence[Request]) -> list[Completed]:
        [request] = requests
        body: dict[str, Any] = {
            "messages": [message.model_dump() for message in request.messages],
            "max_tokens": request.max_new_tokens,
            "temperature": request.sampling.temperature,
            "min_p": request.sampling.min_p,
            "repeat_penalty": request.sampling.repetition_penalty,
            "seed": request.seed % 2**31,
        }
        answer = http.post(f"{self._url}/chat/completions", json=body, timeout=600)
        answer.raise_for_status()
        [choice], used = answer.json()["choices"], answer.json()["usage"]
        text, reason = choice["message"]["content"].strip(), choice["finish_reason"]
        return [Completed(text, reason, used["prompt_tokens"], used["completion_tokens"])]

    def close(self) -> int:
        self._server.terminate()
        self._server.wait()
        return machine.peak_memory(children=True)


def load(name: str, model: Model, dtype: str, gguf: Path | None) -> Contender:
    """The contender of that name."""
    kind, _, rows = name.partition("-")
    if kind == "ours":
        return Ours(model, dtype)
    if kind == "continuous":
        return Continuous(model, dtype, int(rows))
    if kind == "llama.cpp" and gguf:
        return LlamaCpp(gguf)
    return Generate(model, dtype, int(rows or 1))


def plan(name: str, rows: int | None, items: Sequence[Item], seed: int) -> Iterator[list[int]]:
    """Batches of items in the order in which they are done.

    Batches are cut out of a stage in its own order (or by length, for `sorted`), then taken at random, always from
    the stage of which the smallest share is done: whenever time is up, the sample is a fair one.
    """
    order = random.Random(seed)
    waiting: dict[str, list[list[int]]] = {}
    for stage in STAGES:
        there = [index for index, item in enumerate(items) if item.stage == stage]
        if name.startswith("sorted"):
            there.sort(key=lambda index: items[index].prompt_tokens)
        width = rows or len(there)
        waiting[stage] = [there[start : start + width] for start in range(0, len(there), width)]
        order.shuffle(waiting[stage])
    totals = {stage: len(batches) for stage, batches in waiting.items()}
    if rows is None:
        yield from (batch for stage in STAGES for batch in waiting[stage])
        return
    while left := [stage for stage in STAGES if waiting[stage]]:
        yield waiting[max(left, key=lambda stage: len(waiting[stage]) / totals[stage])].pop()


def measure(contender: Contender, items: Sequence[Item], batches: Iterator[list[int]], seconds: float) -> list[Batch]:
    """Do batches until the time is up, but `LEAST` completions and some of each stage; all of them where the contender
    takes all."""
    done: list[Batch] = []
    begin = time.monotonic()
    for batch in batches:
        if (
            contender.rows is not None
            and time.monotonic() - begin > seconds
            and sum(len(batch.outcomes) for batch in done) >= LEAST
            and {item.stage for item in items} == {batch.stage for batch in done}
        ):
            break
        before, start = contender.positions, time.monotonic()
        completions = contender.complete([items[index].request for index in batch])
        taken = time.monotonic() - start
        done.append(
            Batch(
                items[batch[0]].stage,
                taken,
                None if contender.positions is None or before is None else contender.positions - before,
                sum(done.prompt_tokens for done in completions),
                sum(done.completion_tokens for done in completions),
                [
                    (index, digest(done.text)[:16], done.completion_tokens, done.finish_reason)
                    for index, done in zip(batch, completions, strict=True)
                ],
            )
        )
    return done


def _load(model: Model, dtype: str) -> tuple[Tokenizer, Any]:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loaded = AutoModelForCausalLM.from_pretrained(model.folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    return Tokenizer(model.folder), loaded.eval()


def _ends(model: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def _completed(tokenizer: Tokenizer, ids: list[int], ends: Sequence[int], prompt_tokens: int) -> Completed:
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    text = tokenizer.own.decode(ids[:stop], skip_special_tokens=True).strip()
    return Completed(text, "length" if stop is None else "stop", prompt_tokens, len(ids[:stop]))


def _count_positions(model: Any, contender: Ours | Generate | Continuous) -> None:
    """Count what the model embeds: rows times columns of every call."""

    def count(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        contender.positions = (contender.positions or 0) + inputs[0].numel()

    model.get_input_embeddings().register_forward_pre_hook(count)


def main() -> None:
    """Command line, called by bench.generation."""
    parser = argparse.ArgumentParser(prog="python -m bench.contenders", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument(
        "--longest", action="store_true", help="only the batch with the longest prompts, for its memory"
    )
    parser.add_argument("--gguf", type=Path)
    options = parser.parse_args()
    todo = work.read(options.work)
    contender = load(options.name, find.find(todo.model), options.dtype, options.gguf)
    first = todo.items[0].request
    contender.complete([Request(first.messages, 0, first.seed, 8, first.sampling)])  # first calls allocate
    if contender.positions is not None:
        contender.positions = 0
    batches = plan(options.name, contender.rows, todo.items, seed_for(todo.seed, "bench", options.round))
    if options.longest:
        batches = iter([max(batches, key=lambda batch: max(_span(todo.items[index]) for index in batch) * len(batch))])
    try:
        done = measure(contender, todo.items, batches, options.seconds)
    finally:
        memory = contender.close()
    write_text(options.out, json.dumps({"batches": [batch._asdict() for batch in done], "peak_memory": memory}))


def _span(item: Item) -> int:
    return item.prompt_tokens + item.request.max_new_tokens


if __name__ == "__main__":
    from ccai.base.errors import run

    run(main)
