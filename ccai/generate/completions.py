"""From requests to completions: look up in the journal, generate what is new, keep every finished batch."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.hashing import digest, seed_for
from ccai.base.params import Generation, Hardware
from ccai.base.records import Completion, Message
from ccai.constitution.dialogue import Turns
from ccai.engines.base import Engine, Request
from ccai.generate.journal import Journal, whole
from ccai.models import catalogue, find
from ccai.models import placement as models
from ccai.models.model import Model
from ccai.models.placement import Placement

ATTEMPTS = 3
"""Times an empty completion is drawn, with a new seed each, before the run stops."""

LINE_EVERY = 20.0
"""Seconds between progress lines in a log."""

FORETOLD = 0.1
"""Share that must be finished before a line speaks of rate and time left. Nothing is known of what is half written,
and early in a run that is most of the work done."""


class Job(NamedTuple):
    """A completion wanted. `key` names it for people and seeds its sampling (prompt, principle, round …)."""

    key: tuple[str, ...]
    turns: Turns
    max_new_tokens: int


class Result(NamedTuple):
    """Completions in the order of the jobs, as the fields of `records.Completion`, what they cost, and which of them
    were generated."""

    completions: list[dict[str, Any]]
    runtime: dict[str, Any]
    new: list[bool]


class Scores(NamedTuple):
    """Probabilities of the labels after each conversation, in their order, and what they cost."""

    probabilities: list[list[float]]
    runtime: dict[str, Any]


def split(flat: Iterable[Any], asked: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """By name what came for each that was asked under it, where all were asked together, one name after the other."""
    rest = iter(flat)
    return {name: list(islice(rest, len(each))) for name, each in asked.items()}


def total(costs: Sequence[dict[str, Any]], counts: Sequence[str] = ()) -> dict[str, Any]:
    """What several calls of one kind to one engine cost together; `counts` are added up as well."""
    sums = ("generated", "reused", "generated_tokens", *counts)
    found = costs[-1] | {name: sum(cost[name] for cost in costs) for name in sums if costs[-1].get(name) is not None}
    if "generated_tokens" in found:
        rates = [(cost["generated_tokens"], cost["tokens_per_second"]) for cost in costs]
        seconds = sum(tokens / rate for tokens, rate in rates if rate)
        margins = [cost["smallest_margin"] for cost in costs if cost["smallest_margin"] is not None]
        found["tokens_per_second"] = round(found["generated_tokens"] / seconds, 1) if seconds else None
        found["smallest_margin"] = min(margins, default=None)
    return found


def load_engine(name: str, hardware: Hardware, adapter: Path | None = None) -> Engine:
    """The engine for a model name, under a LoRA adapter if one is given; prints where it runs and why.

    Without adapter_config.json the folder holds all weights, trained: they take the place of the model's.

    Raises:
        UserError: the model can't be had or does not fit, or is an endpoint's and can't take the adapter.
    """
    entry = catalogue.catalogue().get(name, {})
    if "endpoints" in entry:
        if adapter is not None:
            raise UserError(f"model {name}: an endpoint can't take {adapter}; name a model whose weights are at hand")
        from ccai.engines.endpoint import Endpoint

        return Endpoint(name, entry)
    model, placement = _placed(name, hardware)
    if adapter is not None and not (adapter / "adapter_config.json").exists():
        model, adapter = replace(model, name=f"{model.name}+tuned", pin=None, folder=adapter), None
    if hardware.engine == "vllm":
        from ccai.engines.vllm import Vllm

        return Vllm(model, placement, adapter)
    from ccai.engines.transformers import Transformers

    return Transformers(model, placement, adapter)


def complete(stage: str, engine: Engine, jobs: Sequence[Job], sampling: Generation, seed: int) -> Result:
    """Complete all jobs, reusing what the journal has; of jobs with the same journal key one is generated.

    An empty completion is not kept but drawn again; what comes of that is kept under the key of the first attempt.

    Raises:
        UserError: a completion stayed empty, or the engine could not go on. Finished ones are kept.
    """
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # greedy would write the same again
    requests = [request(job, sampling, seed) for job in jobs]
    keys = [journal_key(engine, request) for request in requests]

    def expected(missing: Sequence[int]) -> str:
        return _expected(engine, [requests[index] for index in missing])

    with closing(_Run(stage, "completions", keys, _says_something, expected)) as run:
        todo, attempt = run.missing, 0
        while todo:
            empty: list[int] = []
            for batch in engine.complete([requests[index] for index in todo]):
                said = [(todo[at], done, _says_something({"text": done.text})) for at, done in batch]
                written = [(index, done) for index, done, says in said if says]
                empty += [index for index, _, says in said if not says]
                run.keep(
                    {keys[index]: {**done._asdict(), "attempt": attempt} for index, done in written},
                    tokens=sum(done.completion_tokens for _, done in written),
                )
            todo, attempt = sorted(empty), attempt + 1
            if todo and attempt == attempts:
                raise UserError(
                    f"{stage}: {engine.name} wrote nothing for {'/'.join(jobs[todo[0]].key)} in {attempts} attempts; "
                    "take that prompt out or raise generation.temperature"
                )
            for index in todo:
                requests[index] = request(jobs[index], sampling, seed, attempt)
    values = [run.values[key] for key in keys]
    runtime = {
        "generated": run.generated,
        "reused": run.reused,
        "generated_tokens": run.tokens,
        "tokens_per_second": round(run.tokens / run.seconds, 1) if run.tokens else None,
        "smallest_margin": _smallest_margin(values),
    }
    completions = [_fields(engine, job, seed, value) for job, value in zip(jobs, values, strict=True)]
    new = set(run.missing)
    return Result(completions, runtime | engine.runtime, [place in new for place in range(len(jobs))])


def score(
    stage: str, engine: Engine, conversations: Sequence[Sequence[Message]], labels: Sequence[str], repeat: int = 0
) -> Scores:
    """Probability of each label as the next token after each conversation, reusing what the journal has.

    `repeat`: 0 as a rule; another number asks once more, whatever the journal has of the other repeats.

    Raises:
        UserError: the engine can't score these labels, or could not go on. Finished scores are kept.
    """
    common = {**engine.identity, "score": list(labels)} | ({"repeat": repeat} if repeat else {})
    keys = [digest({**common, "messages": _plain(messages)}) for messages in conversations]

    def fits(value: Mapping[str, Any]) -> bool:
        return len(value.get("probabilities", ())) == len(labels)

    with closing(_Run(stage, "label scores", keys, fits)) as run:
        wanted = [conversations[index] for index in run.missing]
        for batch in engine.score(wanted, labels) if wanted else ():
            run.keep({keys[run.missing[at]]: {"probabilities": found} for at, found in batch})
    runtime = {"generated": run.generated, "reused": run.reused}
    return Scores([run.values[key]["probabilities"] for key in keys], runtime | engine.runtime)


def journal_key(engine: Engine, request: Request) -> str:
    """sha256 over all that can change the text, and nothing that can't (batch size, paths, shared prefix)."""
    sampling = request.sampling
    return digest(
        {
            **engine.identity,
            "messages": _plain(request.messages),
            "seed": request.seed if sampling.temperature > 0 else None,
            "max_new_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "min_p": sampling.min_p if sampling.temperature > 0 else None,
            "repetition_penalty": sampling.repetition_penalty,
        }
    )


def metrics(completions: Sequence[Completion], engine: Engine, seed: int) -> dict[str, Any]:
    """What a stage's completions are: counts and shares that do not depend on the machine's mood."""
    count = len(completions)
    return {
        "model": engine.name,
        "revision": engine.revision,
        "unverified_weights": engine.unverified_weights,
        "seed": seed,
        "completions": count,
        "ended": sum(done.finish_reason == "stop" for done in completions) / count,
        "tokens_mean": sum(done.completion_tokens for done in completions) / count,
    }


class _Run:
    """What is wanted, by journal key: looked up at the start, kept as it comes, with a word on how far it is.

    Attributes:
        values: what the journal has under each of the keys by now.
        missing: places in `keys` of what it did not have at the start, one of each key.
        reused: how many of the wanted cost nothing.
        generated, tokens: what was kept since, and its length.
    """

    def __init__(
        self,
        stage: str,
        things: str,
        keys: Sequence[str],
        fits: Callable[[Mapping[str, Any]], bool],
        expected: Callable[[Sequence[int]], str] = lambda missing: "",
    ) -> None:
        self._stage = stage
        self._journal = Journal(cache.folder("journal"), whole)
        self.values: dict[str, Mapping[str, Any]] = {}
        for key in dict.fromkeys(keys):
            if (value := self._journal.get(key)) is not None:
                if fits(value):
                    self.values[key] = value
                else:
                    self._journal.reject(key)
        if self._journal.damaged:
            print(f"{stage}: the journal has {self._journal.damaged} damaged lines; passed over", flush=True)
        self.missing = list({key: place for place, key in enumerate(keys) if key not in self.values}.values())
        self.reused = len(keys) - len(self.missing)
        self.generated = self.tokens = 0
        about = expected(self.missing) if self.missing else ""
        print(f"{stage}: {len(self.missing)} {things} to generate ({self.reused} reused){about}", flush=True)
        hidden = not self.missing or not sys.stderr.isatty()
        self._bar = tqdm(total=len(self.missing), desc=stage, unit=" " + things, disable=hidden)
        self._start = self._last_line = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since generation began."""
        return time.monotonic() - self._start

    def keep(self, values: Mapping[str, dict[str, Any]], tokens: int = 0) -> None:
        """Keep what has finished; then a bar on a terminal, now and then a line in a log."""
        self._journal.put(values)
        self.values.update(values)
        self.generated += len(values)
        self.tokens += tokens
        self._bar.update(len(values))
        now = time.monotonic()
        last = bool(values) and self.generated == len(self.missing)
        if self._bar.disable and (last or now - self._last_line >= LINE_EVERY):
            self._last_line = now
            print(f"{self._stage}: {self.generated}/{len(self.missing)}{self._pace()}", flush=True)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bar.close()
        self._journal.close()

    def _pace(self) -> str:
        seconds, left = self.seconds, len(self.missing) - self.generated
        if self.generated < FORETOLD * len(self.missing):
            return ""
        rate = f", {self.tokens / seconds:.0f} tokens/s" if self.tokens else ""
        if left:
            return f"{rate}, about {_long(seconds / self.generated * left)} left"
        return f"{rate}, {_long(seconds)}"


@functools.cache
def _placed(name: str, hardware: Hardware) -> tuple[Model, Placement]:
    """Found and placed once a process: both arms of eval are held alike, however much memory is free by then."""
    model = find.find(name)
    placement = models.place(model, hardware)
    print(f"model: {placement.reason}", flush=True)
    return model, placement


def _expected(engine: Engine, requests: Sequence[Request]) -> str:
    most = sum(request.max_new_tokens for request in requests)
    seconds = engine.estimate(requests)
    return f", up to {most:,} tokens" + ("" if seconds is None else f", about {_long(seconds)}")


def _long(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds" if seconds >= 1 else "a second"


def _says_something(value: Mapping[str, Any]) -> bool:
    return any(character.isalnum() for character in value.get("text", ""))


def request(job: Job, sampling: Generation, seed: int, attempt: int = 0) -> Request:
    """What the engine is asked for a job; each attempt has a seed of its own."""
    return Request(job.turns.messages, job.turns.shared, _seed(job, seed, attempt), job.max_new_tokens, sampling)


def _seed(job: Job, seed: int, attempt: int) -> int:
    return seed_for(seed, *job.key, f"attempt {attempt}") if attempt else seed_for(seed, *job.key)


def _fields(engine: Engine, job: Job, seed: int, value: Mapping[str, Any]) -> dict[str, Any]:
    """A journal's value as fields of a record: without the margin, whose last digits depend on the batch."""
    return {
        **{name: value[name] for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens")},
        "conversation": digest(_plain(job.turns.messages)),
        "model": engine.name,
        "unverified_weights": engine.unverified_weights,
        "seed": _seed(job, seed, value.get("attempt", 0)),  # none in journals of before it was kept
    }


def _smallest_margin(values: Sequence[Mapping[str, Any]]) -> float | None:
    """None where no engine gave one; infinite ones (a single candidate each time) don't count."""
    margins = [value["margin"] for value in values if value.get("margin") is not None]
    return min(filter(math.isfinite, margins), default=None)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.model_dump() for message in messages]
