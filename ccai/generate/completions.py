"""Completions for jobs: looked up in the journal, generated if new, and kept batch by batch."""

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
from ccai.rules.sentences import said

ATTEMPTS = 3
"""Number of times an empty completion is drawn, each with a new seed, before the run stops."""

LINE_EVERY = 20.0
"""Seconds between progress lines in a log."""

FORETOLD = 0.1
"""Share that must be finished before a progress line gives rate and time left. Unfinished completions are not counted,
and early in a run they are most of the work done.
"""


class Job(NamedTuple):
    """One completion to generate. `key` names it in messages and seeds its sampling (prompt, principle, round …)."""

    key: tuple[str, ...]
    turns: Turns
    max_new_tokens: int


class Result(NamedTuple):
    """Completions in the order of the jobs, as the fields of `records.Completion`.

    `runtime` holds their costs, and `new` says which of them were generated.
    """

    completions: list[dict[str, Any]]
    runtime: dict[str, Any]
    new: list[bool]


class Scores(NamedTuple):
    """Probabilities of the labels after each conversation, in the labels' order, and their costs."""

    probabilities: list[list[float]]
    runtime: dict[str, Any]


def split(flat: Iterable[Any], groups: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Split a flat list of results by name: as many for each name as `groups` has under it, in order."""
    rest = iter(flat)
    return {name: list(islice(rest, len(each))) for name, each in groups.items()}


def total(costs: Sequence[dict[str, Any]], counts: Sequence[str] = ()) -> dict[str, Any]:
    """The costs of several calls to one engine, added up; `counts` are further keys to add."""
    sums = ("generated", "reused", "generated_tokens", *counts)
    result = costs[-1] | {name: sum(cost[name] for cost in costs) for name in sums if costs[-1].get(name) is not None}
    if "generated_tokens" in result:
        rates = [(cost["generated_tokens"], cost["tokens_per_second"]) for cost in costs]
        seconds = sum(tokens / rate for tokens, rate in rates if rate)
        margins = [cost["smallest_margin"] for cost in costs if cost["smallest_margin"] is not None]
        result["tokens_per_second"] = round(result["generated_tokens"] / seconds, 1) if seconds else None
        result["smallest_margin"] = min(margins, default=None)
    return result


def load_engine(name: str, hardware: Hardware, adapter: Path | None = None) -> Engine:
    """The engine for a model name, with a LoRA adapter if one is given; prints its placement and the reason.

    A folder without adapter_config.json holds all weights of a trained model, which replace the model's.

    Raises:
        UserError: the model is not available or does not fit, or is behind an endpoint and cannot take the adapter.
    """
    entry = catalogue.catalogue().get(name, {})
    if "endpoints" in entry:
        if adapter is not None:
            raise UserError(f"model {name}: an endpoint can't take {adapter}; name a model with local weights")
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
    """Complete all jobs, reusing the journal's completions; jobs with the same journal key are generated once.

    A completion that is empty or only thinks is not kept but drawn again; the result is kept under the key of the first
    attempt.

    Raises:
        UserError: a completion stayed empty, or the engine failed. Finished completions are kept.
    """
    attempts = ATTEMPTS if sampling.temperature > 0 else 1  # greedy gives the same text again
    requests = [request(job, sampling, seed) for job in jobs]
    keys = [journal_key(engine, request) for request in requests]

    def expected(missing: Sequence[int]) -> str:
        return _expected(engine, [requests[index] for index in missing])

    with closing(_Run(stage, "completions", keys, _says_something, expected)) as run:
        todo, attempt = run.missing, 0
        while todo:
            empty: list[int] = []
            for batch in engine.complete([requests[index] for index in todo]):
                checked = [(todo[at], done, _says_something({"text": done.text})) for at, done in batch]
                written = [(index, done) for index, done, says in checked if says]
                empty += [index for index, _, says in checked if not says]
                run.keep(
                    {keys[index]: {**done._asdict(), "attempt": attempt} for index, done in written},
                    tokens=sum(done.completion_tokens for _, done in written),
                )
            todo, attempt = sorted(empty), attempt + 1
            if todo and attempt == attempts:
                raise UserError(
                    f"{stage}: {engine.name} wrote nothing for {'/'.join(jobs[todo[0]].key)} in {attempts} attempts; "
                    "take that prompt out, raise generation.temperature, or turn off its thinking"
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
    """Probability of each label as the next token after each conversation, reusing the journal's scores.

    `repeat` is normally 0; another number scores again, independently of the journal's other repeats.

    Raises:
        UserError: the engine cannot score these labels, or failed. Finished scores are kept.
    """
    common = {**engine.identity, "score": list(labels)} | ({"repeat": repeat} if repeat else {})
    keys = [digest({**common, "messages": _plain(messages)}) for messages in conversations]

    def fits(value: Mapping[str, Any]) -> bool:
        return len(value.get("probabilities", ())) == len(labels)

    with closing(_Run(stage, "label scores", keys, fits)) as run:
        missing = [conversations[index] for index in run.missing]
        for batch in engine.score(missing, labels) if missing else ():
            run.keep({keys[run.missing[at]]: {"probabilities": probabilities} for at, probabilities in batch})
    runtime = {"generated": run.generated, "reused": run.reused}
    return Scores([run.values[key]["probabilities"] for key in keys], runtime | engine.runtime)


def journal_key(engine: Engine, request: Request) -> str:
    """sha256 over everything that can change the text, and nothing else (no batch size, path or shared prefix)."""
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
    """Metrics of a stage's completions: only figures that are the same on every run."""
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
    """One call's jobs by journal key: looked up at the start, kept as they finish, with progress.

    Attributes:
        values: the journal's values for the keys so far.
        missing: positions in `keys` without a value at the start, one for each key.
        reused: number of jobs that cost nothing.
        generated, tokens: number of values kept since, and their length.
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
        """Seconds since generation began."""
        return time.monotonic() - self._start

    def keep(self, values: Mapping[str, dict[str, Any]], tokens: int = 0) -> None:
        """Keep finished values and show progress: a bar on a terminal, a line now and then in a log."""
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
        """Close progress bar and journal."""
        self._bar.close()
        self._journal.close()

    def _pace(self) -> str:
        seconds, remainder = self.seconds, len(self.missing) - self.generated
        if self.generated < FORETOLD * len(self.missing):
            return ""
        rate = f", {self.tokens / seconds:.0f} tokens/s" if self.tokens else ""
        if remainder:
            return f"{rate}, about {_long(seconds / self.generated * remainder)} left"
        return f"{rate}, {_long(seconds)}"


@functools.cache
def _placed(name: str, hardware: Hardware) -> tuple[Model, Placement]:
    """A model and its placement, once per process: both arms of eval run alike, however much memory is free later."""
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
    return any(character.isalnum() for character in said(value.get("text", "")))


def request(job: Job, sampling: Generation, seed: int, attempt: int = 0) -> Request:
    """The engine's request for a job; each attempt has its own seed."""
    return Request(job.turns.messages, job.turns.shared, _seed(job, seed, attempt), job.max_new_tokens, sampling)


def _seed(job: Job, seed: int, attempt: int) -> int:
    return seed_for(seed, *job.key, f"attempt {attempt}") if attempt else seed_for(seed, *job.key)


def _fields(engine: Engine, job: Job, seed: int, value: Mapping[str, Any]) -> dict[str, Any]:
    """A journal's value as fields of a record, without the margin, whose last digits depend on the batch."""
    return {
        **{name: value[name] for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens")},
        "conversation": digest(_plain(job.turns.messages)),
        "model": engine.name,
        "unverified_weights": engine.unverified_weights,
        "seed": _seed(job, seed, value.get("attempt", 0)),  # missing in older journals
    }


def _smallest_margin(values: Sequence[Mapping[str, Any]]) -> float | None:
    """The smallest finite margin (a single candidate's is infinite); None if the engine reports none."""
    margins = [value["margin"] for value in values if value.get("margin") is not None]
    return min(filter(math.isfinite, margins), default=None)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.model_dump() for message in messages]
