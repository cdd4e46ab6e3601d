"""Verdicts from endpoints without probabilities: one label as JSON, from a real server that is asked for just that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from helpers.endpoint import EDITS, Handler, Server, serving

from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.engines.endpoint import Endpoint
from ccai.generate import completions

GOOD = '{"verdict": "A"}'


class Structured(Server):
    """Writes what `says` gives for the text of the last message."""

    def __init__(self, says: Callable[[str], str | None], **options: Any) -> None:
        super().__init__(**options)
        self.says, self.RequestHandlerClass = says, Asked


class Asked(Handler):
    server: Structured

    def completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        completion = super().completion(body, fault)
        if fault is None:
            completion["choices"][0]["message"]["content"] = self.server.says(body["messages"][-1]["content"])
            completion["choices"][0]["finish_reason"] = "stop"
        return completion


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("ccai.engines.endpoint.RETRIES", 1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def judge(
    says: Callable[[str], str | None] = lambda text: GOOD, verdicts: str = "json", **options: Any
) -> Iterator[tuple[Structured, Endpoint]]:
    with serving(server := Structured(says, **options)):
        entry = {"endpoints": [server.url], "model": "org/j", "revision": "r", "timeout": 30, "verdicts": verdicts}
        yield server, Endpoint("judge", entry)


def scores(engine: Endpoint, texts: Sequence[str]) -> list[list[float]]:
    conversations = [[Message(role="user", content=text)] for text in texts]
    return completions.score("test", engine, conversations, ("A", "B")).probabilities


def test_a_label_is_asked_for_by_a_schema_and_is_certain() -> None:
    with judge(lambda text: json.dumps({"verdict": text[-1]})) as (server, engine):
        assert scores(engine, ["say A", "say B"]) == [[1.0, 0.0], [0.0, 1.0]]
    body = server.bodies[0]
    asked = body["response_format"]
    assert (asked["type"], asked["json_schema"]["strict"]) == ("json_schema", True)
    assert asked["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": ["A", "B"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    assert body["temperature"] == 0
    assert "logprobs" not in body


MALFORMED = [
    "",
    "A",
    "The answer is A.",
    '{"verdict": "C"}',
    '{"verdict": ["A"]}',
    '{"answer": "A"}',
    '["A"]',
    "{",
    "1",
]


@pytest.mark.parametrize("content", [*MALFORMED, None])
def test_what_is_no_label_is_no_verdict_and_stops_nothing(content: str | None) -> None:
    with judge(lambda text: content if text == "odd" else GOOD) as (server, engine):
        assert scores(engine, ["odd", "even"]) == [[0.0, 0.0], [1.0, 0.0]]
    assert len(server.bodies) == 2, "a bad verdict is not asked for again: the worst judge would be asked the most"


@pytest.mark.parametrize(
    "fault", ["content filter", "tool calls", "missing content", "missing usage", "null finish reason"]
)
def test_a_judge_that_declines_gave_no_verdict(fault: str) -> None:
    """A filter in front of a judge stops just the answers that are worth judging."""
    assert fault in EDITS
    with judge(faults={"odd": [fault] * 9}) as (_, engine):
        assert scores(engine, ["odd", "even"]) == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("fault", ["429", "500", "empty body", "no choices", "closed", "cut body"])
def test_what_is_no_reply_is_asked_for_again(fault: str) -> None:
    with judge(faults={"odd": [fault]}) as (server, engine):
        assert scores(engine, ["odd", "even"]) == [[1.0, 0.0], [1.0, 0.0]]
    assert len(server.bodies) == 3


def test_an_endpoint_that_knows_no_schema_is_one_line() -> None:
    with (
        judge(always="400") as (_, engine),
        pytest.raises(UserError, match=r"take verdicts: json out of conf/models") as e,
    ):
        scores(engine, ["odd"])
    assert len(str(e.value).splitlines()) == 1


def test_an_endpoint_without_logprobs_is_told_what_to_write() -> None:
    with (
        judge(verdicts="logprobs") as (_, engine),
        pytest.raises(UserError, match="gives no logprobs; put verdicts: json"),
    ):
        scores(engine, ["odd"])


def test_verdicts_and_probabilities_are_kept_apart() -> None:
    with judge() as (_, one), judge(verdicts="logprobs", probabilities={"A": -0.5}) as (_, other):
        assert scores(one, ["odd"]) == [[1.0, 0.0]]
        assert scores(other, ["odd"]) != [[1.0, 0.0]]


def test_a_wrong_way_of_asking_is_one_line() -> None:
    with pytest.raises(UserError, match=r"conf/models\.yaml: judge: verdicts: input should be 'logprobs' or 'json'"):
        Endpoint("judge", {"endpoints": ["http://127.0.0.1:1/v1"], "model": "m", "revision": "r", "verdicts": "xml"})


def test_template_variables_are_sent_and_tell_texts_apart() -> None:
    with serving(server := Server(probabilities={"A": -0.5})):
        entry = {"endpoints": [server.url], "model": "org/j", "revision": "r", "template": {"enable_thinking": False}}
        engine = Endpoint("judge", entry)
        scores(engine, ["odd"])
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert engine.identity["template"] == {"enable_thinking": False}
