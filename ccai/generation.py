"""From requests to completions: look up in the journal, generate what is new, keep every finished batch."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from ccai import cache, models
from ccai.conversation import Turns
from ccai.engines.request import Completed, Request
from ccai.engines.transformers import Transformers
from ccai.errors import UserError
from ccai.journal import Journal
from ccai.params import Generation, Hardware
from ccai.records import Completion, digest, seed_for

ATTEMPTS = 3
"""Times an empty completion is drawn, with a new seed each, before the run stops."""

LINE_EVERY = 20.0
"""Seconds between progress lines in a log."""


class Job(NamedTuple):
    """A completion wanted. `key` names it for people and seeds its sampling (prompt, principle, round …)."""

    key: tuple[str, ...]
    turns: Turns
    max_new_tokens: int


class Result(NamedTuple):
    """Completions in the order of the jobs, as the fields of `records.Completion`, and what they cost."""

    completions: list[dict[str, Any]]
    runtime: dict[str, Any]


def load_engine(name: str, hardware: Hardware) -> Transformers:
    """The engine for a model name; prints where it runs and why.

    Raises:
        UserError: the model can't be had or does not fit.
    """
    model = models.find(name)
    placement = models.place(model, hardware)
    print(f"model: {placement.reason}", flush=True)
    return Transformers(model, placement)


def complete(stage: str, engine: Transformers, jobs: Sequence[Job], sampling: Generation, seed: int) -> Result:
    """Complete all jobs, reusing what the journal has.

    Raises:
        UserError: a completion stayed empty, or the engine could not go on. Finished ones are kept.
    """
    journal = Journal(cache.folder("journal"))
    if journal.damaged:
        print(f"{stage}: the journal has {journal.damaged} damaged lines; passed over", flush=True)
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # greedy would write the same again
    requests = [_request(job, sampling, seed, attempt=0) for job in jobs]
    results: dict[int, tuple[Request, Completed]] = {}
    for index, job in enumerate(jobs):
        for attempt in range(attempts):  # an earlier run may have found something to say at the second only
            request = _request(job, sampling, seed, attempt)
            found = journal.get(journal_key(engine, request))
            if found is not None:
                results[index] = request, Completed(**found)
                break
    reused = len(results)
    todo = [index for index in range(len(jobs)) if index not in results]
    progress = Progress(stage, engine, [requests[index] for index in todo], reused)
    try:
        for attempt in range(attempts):
            asked = [requests[index] for index in todo]
            empty = []
            for batch in engine.complete(asked):
                good = {todo[at]: (asked[at], done) for at, done in batch if _says_something(done)}
                journal.put({journal_key(engine, request): done._asdict() for request, done in good.values()})
                results |= good
                empty += [todo[at] for at, done in batch if not _says_something(done)]
                progress.update([done for _, done in good.values()])
            todo = empty
            if not todo:
                break
            for index in todo:
                requests[index] = _request(jobs[index], sampling, seed, attempt + 1)
        if todo:
            raise UserError(
                f"{stage}: {engine.name} wrote nothing for {'/'.join(jobs[todo[0]].key)} in {attempts} attempts; "
                "take that prompt out or raise generation.temperature"
            )
    finally:
        progress.close()
        journal.close()
    completions = [_fields(engine, *results[index]) for index in range(len(jobs))]
    return Result(completions, progress.runtime())


def journal_key(engine: Transformers, request: Request) -> str:
    """sha256 over all that can change the text, and nothing that can't (batch size, paths, shared prefix)."""
    sampling = request.sampling
    return digest(
        {
            **engine.identity,
            "messages": [message.model_dump() for message in request.messages],
            "seed": request.seed if sampling.temperature > 0 else None,
            "max_new_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "min_p": sampling.min_p if sampling.temperature > 0 else None,
            "repetition_penalty": sampling.repetition_penalty,
        }
    )


def metrics(completions: Sequence[Completion], engine: Transformers, seed: int) -> dict[str, Any]:
    """What a stage's completions are: counts and shares that do not depend on the machine's mood."""
    count = len(completions)
    return {
        "model": engine.name,
        "revision": engine.revision,
        "seed": seed,
        "completions": count,
        "ended": sum(done.finish_reason == "stop" for done in completions) / count,
        "tokens_mean": sum(done.completion_tokens for done in completions) / count,
    }


class Progress:
    """What is about to run, how far it is, and what it took."""

    def __init__(self, stage: str, engine: Transformers, requests: Sequence[Request], reused: int) -> None:
        self._stage, self._engine, self._reused = stage, engine, reused
        self._total = len(requests)
        self._done = self._tokens = 0
        most = sum(request.max_new_tokens for request in requests)
        estimate = engine.estimate(requests) / 60 if requests else 0.0
        about = f", up to {most:,} tokens, about {estimate:.1f} minutes" if requests else ""
        print(f"{stage}: {self._total} completions to generate ({reused} reused){about}", flush=True)
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=self._total, desc=stage, unit="completion", disable=not sys.stderr.isatty() or not requests
        )

    def update(self, finished: Sequence[Completed]) -> None:
        """Count a finished batch; a bar on a terminal, now and then a line in a log."""
        self._done += len(finished)
        self._tokens += sum(done.completion_tokens for done in finished)
        now = time.monotonic()
        rate = self._tokens / (now - self._start)
        self._bar.update(len(finished))
        self._bar.set_postfix_str(f"{rate:.0f} tokens/s")
        if self._bar.disable and (now - self._last_line > LINE_EVERY or self._done == self._total):
            left = (now - self._start) / max(self._done, 1) * (self._total - self._done)
            print(
                f"{self._stage}: {self._done}/{self._total}, {rate:.0f} tokens/s, {left / 60:.1f} minutes left",
                flush=True,
            )
            self._last_line = now

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bar.close()

    def runtime(self) -> dict[str, Any]:
        """For metrics/runtime."""
        seconds = time.monotonic() - self._start
        placement = self._engine.placement
        return {
            "generated": self._done,
            "reused": self._reused,
            "generated_tokens": self._tokens,
            "tokens_per_second": round(self._tokens / seconds, 1) if self._tokens else None,
            "device": placement.device,
            "dtype": placement.dtype,
            "quantization": placement.quantization,
            "placement": placement.reason,
        }


def _says_something(done: Completed) -> bool:
    return any(character.isalnum() for character in done.text)


def _request(job: Job, sampling: Generation, seed: int, attempt: int) -> Request:
    key = (*job.key, f"attempt {attempt}") if attempt else job.key
    return Request(
        messages=job.turns.messages,
        shared=job.turns.shared,
        seed=seed_for(seed, *key),
        max_new_tokens=job.max_new_tokens,
        sampling=sampling,
    )


def _fields(engine: Transformers, request: Request, done: Completed) -> dict[str, Any]:
    messages = [message.model_dump() for message in request.messages]
    return {**done._asdict(), "conversation": digest(messages), "model": engine.name, "seed": request.seed}
