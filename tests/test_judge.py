"""Verdicts from label probabilities; the engine here has nothing but `score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, cast

import pytest
from test_evaluation import answer

from ccai.engines.transformers import Transformers
from ccai.judge import HARMFUL, HARMLESS, Judged, judge
from ccai.records import Answer, Message, Prompt

Scorer = Callable[[str], list[float]]
NUMBERS = count()


class Scores:
    """An engine that reads the question and gives [P(A), P(B)], the last question's first."""

    runtime = {"device": "cpu"}

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.asked = scorer, list[str]()
        self.identity = {"engine": next(NUMBERS)}  # or one would find the other's scores in the journal

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        assert tuple(labels) == ("A", "B")
        texts = [message.content for [message] in conversations]
        self.asked += texts
        for place in reversed(range(len(texts))):
            yield [(place, self.scorer(texts[place]))]


def verdicts(scorer: Scorer, texts: Sequence[str] = ("Well.",)) -> list[float | None]:
    return [given.harmful for given in asked(scorer, texts)[1]]


def asked(scorer: Scorer, texts: Sequence[str]) -> tuple[list[str], list[Answer]]:
    engine = Scores(scorer)
    return engine.asked, judged(engine, texts).answers


def judged(engine: Scores, texts: Sequence[str]) -> Judged:
    answers = [answer("base", place, text=text) for place, text in enumerate(texts)]
    return judge("test", cast(Any, engine), [prompt(place) for place in range(len(texts))], answers)


def prompt(place: int) -> Prompt:
    return Prompt(
        prompt_id=f"p{place}",
        text=f"Question {place} with {{braces}}?",
        source="ours",
        source_id=str(place),
        hazard="none",
        persona="normal",
        principle="care",
        split="eval",
    )


def harmful_is_a(question: str) -> bool:
    return f"A) {HARMFUL}" in question and f"B) {HARMLESS}" in question


@pytest.mark.parametrize("always", [[0.9, 0.05], [0.02, 0.9], [0.5, 0.5]])
def test_a_model_that_always_says_one_letter_says_nothing(always: list[float]) -> None:
    assert verdicts(lambda question: always) == [pytest.approx(0.5)]


def test_a_model_that_reads_is_believed_in_both_orders() -> None:
    def reads(question: str) -> list[float]:
        harmful = 0.8 if "poison" in question else 0.1
        return [harmful, 0.9 - harmful] if harmful_is_a(question) else [0.9 - harmful, harmful]

    assert verdicts(reads, ["poison it", "be kind"]) == [pytest.approx(8 / 9), pytest.approx(1 / 9)]


def test_both_orders_are_asked_with_prompt_and_answer_as_they_are() -> None:
    questions, answers = asked(lambda question: [0.6, 0.3], ["costs {x}", "B) Yes"])
    assert [harmful_is_a(question) for question in questions] == [True, True, False, False]
    for question, (place, text) in zip(questions, [(0, "costs {x}"), (1, "B) Yes")] * 2, strict=True):
        assert f"A user wrote:\nQuestion {place} with {{braces}}?\n" in question
        assert f"An assistant answered:\n{text}\n" in question
    assert [given.prompt_id for given in answers] == ["p0", "p1"]
    assert [given.text for given in answers] == ["costs {x}", "B) Yes"]


@pytest.mark.parametrize("unsure_at", [True, False])
def test_unreadable_in_either_order_is_none(unsure_at: bool) -> None:
    def mumbles(question: str) -> list[float]:
        return [0.3, 0.19] if harmful_is_a(question) == unsure_at else [0.6, 0.3]

    assert verdicts(mumbles) == [None]
    assert verdicts(lambda question: [0.0, 0.0]) == [None]
    assert verdicts(lambda question: [0.3, 0.21]) != [None]


def test_what_was_asked_before_is_not_asked_again() -> None:
    engine = Scores(lambda question: [0.6, 0.3])
    first = judged(engine, ["one", "two"])
    assert first.runtime == {"generated": 4, "reused": 0, "device": "cpu"}
    more = judged(engine, ["one", "two", "three"])
    assert more.runtime == {"generated": 2, "reused": 4, "device": "cpu"}
    assert more.answers[:2] == first.answers
    assert len(engine.asked) == 6


def test_real_engine_that_cannot_judge_is_unreadable(tiny_engine: Transformers) -> None:
    """Random weights spread their probability over all tokens."""
    given = answer("base", 0)
    done = judge("test", tiny_engine, [prompt(0)], [given])
    assert done.answers == [given]
    assert given.harmful is None
    assert done.runtime["generated"] == 2
