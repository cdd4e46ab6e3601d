"""A real OpenAI-compatible server, `transformers serve`: the same texts as the local engine's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CPU, ROOT

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.constitution import dialogue
from ccai.engines.base import Completed, Request
from ccai.engines.endpoint import Endpoint
from ccai.engines.transformers import Transformers
from ccai.models import find
from ccai.prompts import sources

GREEDY = Generation(temperature=0, min_p=0, repetition_penalty=1)
LIMIT = 24


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[Endpoint]:
    """A model behind a server of its own, on a port the system chose."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name]
    command += ["--host", "127.0.0.1", "--port", "0", "--dtype", "float32", "--device", "cpu", "--log-level", "info"]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with log.open("wb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        process = subprocess.Popen(
            command, cwd=folder.parent, env=surroundings | {"HF_HUB_OFFLINE": "1"}, stdout=file, stderr=file
        )
        try:
            while not (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
            yield Endpoint("served", {"endpoints": [f"{found[1]}/v1"], "model": folder.name, "revision": "0123abcd"})
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving(tiny_model, tmp_path_factory.mktemp("serve") / "log") as endpoint:
        yield endpoint


def requests(count: int = 60, sampling: Generation = GREEDY) -> list[Request]:
    return [Request((Message(role="user", content=f"Question {n}?"),), 0, n, LIMIT, sampling) for n in range(count)]


def test_texts_are_those_of_the_local_engine(served: Endpoint, tiny_engine: Transformers) -> None:
    there = dict(item for batch in served.complete(requests()) for item in batch)
    here = dict(item for batch in tiny_engine.complete(requests()) for item in batch)
    assert sorted(there) == list(range(60))
    compare(there, here, LIMIT)


@pytest.mark.slow
def test_default_model_writes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to our own prompts, as the responses stage asks for them but greedy."""
    monkeypatch.chdir(ROOT)
    settings, limit = params.load(), 48
    model = find.find(settings.models.answer)
    turns = [dialogue.to_answer(settings.responses.system, row.text) for row in sources.load("contemplative")[:24]]
    asked = [Request(turn.messages, turn.shared, n, limit, GREEDY) for n, turn in enumerate(turns)]
    with serving(model.folder, tmp_path / "log") as endpoint:
        there = dict(item for batch in endpoint.complete(asked) for item in batch)
    here = dict(item for batch in Transformers(model, CPU).complete(asked) for item in batch)
    assert sorted(there) == list(range(24))
    compare(there, here, limit)


def compare(there: Mapping[int, Completed], here: Mapping[int, Completed], limit: int) -> None:
    """The server counts the token that ends a turn, and calls a turn that ends with the last one allowed cut."""
    assert there.keys() == here.keys()
    for place, local in here.items():
        done = there[place]
        assert done.text == local.text
        assert done.prompt_tokens == local.prompt_tokens
        assert done.completion_tokens == local.completion_tokens + (local.finish_reason == "stop")
        at_the_limit = local.finish_reason == "stop" and done.completion_tokens == limit
        assert done.finish_reason == ("length" if at_the_limit else local.finish_reason)
    assert {done.finish_reason for done in there.values()} == {"stop", "length"}


def test_it_is_greedy_unless_the_model_says_otherwise(served: Endpoint) -> None:
    """Temperature counts only where generation_config.json has `do_sample: true`; docs/ENDPOINTS.md warns of it."""
    warm = GREEDY.model_copy(update={"temperature": 1.5})
    cold, hot = ([done.text for batch in served.complete(requests(1, s)) for _, done in batch] for s in (GREEDY, warm))
    assert hot == cold


def test_it_cannot_judge(served: Endpoint) -> None:
    with pytest.raises(UserError, match="its endpoint gives no logprobs; put verdicts: json into its entry"):
        list(served.score([requests()[0].messages], ("A", "B")))


@pytest.mark.parametrize(("parameter", "neutral"), [("min_p", 0), ("repetition_penalty", 1)])
def test_it_refuses_what_it_does_not_know(served: Endpoint, parameter: str, neutral: int) -> None:
    sampling = GREEDY.model_copy(update={"temperature": 1.0, parameter: 1.0 if neutral == 0 else 1.2})
    with pytest.raises(UserError, match=rf"answered 422 .*; if it .* set generation\.{parameter} to {neutral}$"):
        list(served.complete(requests(1, sampling)))
