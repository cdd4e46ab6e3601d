"""Judges behind real HTTP: a server on loopback whose probabilities of A and B follow from the text of the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from math import log
from typing import Any

from conftest import ROOT

from ccai.base.files import read
from ccai.engines.endpoint import Endpoint
from ccai.judge import exam, judge
from helpers.endpoint import Handler, Server, serving

Reader = Callable[[str], tuple[float, float]]
"""Probabilities of A and B, by the text of a question."""

REVISIONS = count()


class Judge(Server):
    def __init__(self, reads: Reader, port: int = 0) -> None:
        super().__init__(port=port)
        self.reads, self.RequestHandlerClass = reads, Asked

    @property
    def questions(self) -> list[str]:
        """All that it was asked, sorted: requests arrive in any order."""
        return sorted(body["messages"][-1]["content"] for body in self.bodies)


class Asked(Handler):
    server: Judge

    def completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        if not body.get("logprobs"):  # no question to a judge: the doctor's greeting
            return super().completion(body, fault)
        given = self.server.reads(body["messages"][-1]["content"])
        top = [{"token": letter, "logprob": log(value)} for letter, value in zip("AB", given, strict=True) if value > 0]
        completion = super().completion(body, fault)
        completion["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": 0, "top_logprobs": top}]}
        return completion


@contextmanager
def judging(reads: Reader, **entry: Any) -> Iterator[tuple[Judge, Endpoint]]:
    """A judge and the engine that asks it, under a revision of its own: none finds another's scores in the journal."""
    with serving(Judge(reads)) as server:
        served = {"endpoints": [server.url], "model": "org/judge", "revision": f"r{next(REVISIONS)}", "timeout": 30}
        yield server, Endpoint("judge", served | entry)


class Question:
    """What stands in a question, read back from its text: the wording in `ccai.judge.judge` is what is tried.

    Attributes:
        kind: `violation`, `preference`, `addresses` or `helpful`.
        rule: None where the question has none.
        answers: one, or Answer A and Answer B; the last ones of two conversations.
        a_is: the option that letter A stands for.
    """

    def __init__(self, text: str) -> None:
        rule = re.search(r"answers by this rule:\n(.*?)\n\nA user wrote:\n", text, re.DOTALL)
        self.rule = rule and rule[1]
        if pair := re.search(r"\n\nAnswer A:\n(.*?)\n\nAnswer B:\n(.*?)\n\nThe better answer", text, re.DOTALL):
            self.kind, self.answers, self.a_is = "preference", [pair[1], pair[2]], ""
            return
        if both := re.search(
            r"assistant A:\n(.*?)\n\nConversation of assistant B:\n(.*?)\n\nThe more", text, re.DOTALL
        ):
            self.kind, self.a_is = "helpful", ""
            self.answers = [said.rpartition("\n\nAssistant: ")[2] for said in both.groups()]
            return
        one = re.search(r"The assistant answered:\n(.*)\n\nWhich is true\?\nA\) (.*)\nB\) ", text, re.DOTALL)
        assert one, text
        self.answers, self.a_is = [one[1]], one[2]
        self.kind = "violation" if self.rule else "addresses"


def yes_or_no(question: Question, yes: float, readable: float = 1.0) -> tuple[float, float]:
    """Probabilities of the letters for a probability of yes, which is A in one order and B in the other."""
    first = yes if question.a_is in (judge.VIOLATES, judge.ON_TOPIC) else 1 - yes
    return first * readable, (1 - first) * readable


class Scholar:
    """Knows the labels of the exam, and is wrong about a share of the answers; of others it says that they are fine.

    Attributes:
        wrong: share of answers about which it errs, the same ones each time.
    """

    def __init__(self, wrong: float = 0.0) -> None:
        self.wrong = wrong
        self._violates, self._addresses = dict[str, bool](), dict[str, bool]()
        for item in read(ROOT / exam.RULES, exam.ByRule):
            self._violates |= {item.violating: True, item.keeping: False}
        for topic in read(ROOT / exam.TOPICS, exam.OnTopic):
            self._addresses |= {topic.addressing: True, topic.evading: False}
        self._helps = dict[str, bool]()
        for helpful in read(ROOT / exam.HELPFUL, exam.Helpful):
            self._helps |= {helpful.helpful: True, helpful.unhelpful: False}

    def errs(self, text: str) -> bool:
        return int(sha256(text.encode()).hexdigest()[:8], 16) < self.wrong * 16**8

    def violation(self, answer: str) -> float:
        """Its probability that an answer breaks its rule."""
        told = self._violates.get(answer, False) != self.errs(answer)
        return 0.8 if told else 0.1

    def __call__(self, text: str) -> tuple[float, float]:
        question = Question(text)
        if question.kind == "preference":
            first, second = map(self.violation, question.answers)
            return (0.5, 0.5) if first == second else (0.9, 0.1) if first < second else (0.1, 0.9)
        if question.kind == "helpful":
            helps = [self._helps.get(answer, False) != self.errs(answer) for answer in question.answers]
            return (0.5, 0.5) if helps[0] == helps[1] else (0.9, 0.1) if helps[0] else (0.1, 0.9)
        [answer] = question.answers
        if question.kind == "violation":
            return yes_or_no(question, self.violation(answer))
        return yes_or_no(question, 0.9 if self._addresses.get(answer, True) != self.errs(answer) else 0.2)


class Lenient(Scholar):
    """A scholar that leans to harm: of answers that keep their rule it is not sure. Its own cut lies at 0.75."""

    def violation(self, answer: str) -> float:
        return 0.9 if super().violation(answer) > 0.5 else 0.6
