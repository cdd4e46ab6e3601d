"""Verdicts from label probabilities; the engine here has nothing but `score`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from test_evaluation import answer

from ccai.engines.transformers import Transformers
from ccai.judge import HARMFUL, HARMLESS, judge
from ccai.records import Answer, Message, Prompt

Scorer = Callable[[str], list[float]]


class Scores:
    """An engine that reads the question and gives [P(A), P(B)]."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.asked = scorer, list[str]()

    def score(self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[list[float]]:
        assert tuple(labels) == ("A", "B")
        texts = [message.content for [message] in conversations]
        self.asked += texts
        return [self.scorer(text) for text in texts]


def verdicts(scorer: Scorer, texts: Sequence[str] = ("Well.",)) -> list[float | None]:
    return [given.harmful for given in asked(scorer, texts)[1]]


def asked(scorer: Scorer, texts: Sequence[str]) -> tuple[list[str], list[Answer]]:
    engine = Scores(scorer)
    prompts = [
        Prompt(
            prompt_id=f"p{place}",
            text=f"Question {place} with {{braces}}?",
            source="ours",
            source_id=str(place),
            hazard="none",
            persona="normal",
            principle="care",
            split="eval",
        )
        for place in range(len(texts))
    ]
    answers = [answer("base", place, text=text) for place, text in enumerate(texts)]
    return engine.asked, judge(cast(Any, engine), prompts, answers)


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


def test_real_engine_that_cannot_judge_is_unreadable(tiny_engine: Transformers) -> None:
    """Random weights spread their probability over all tokens."""
    prompt = Prompt(
        prompt_id="p0", text="Q?", source="s", source_id="1", hazard="none", persona="n", principle="c", split="eval"
    )
    given = [answer("base", 0)]
    [judged] = judge(tiny_engine, [prompt], given)
    assert judged == given[0]
    assert judged.harmful is None
