"""Helpfulness: general questions of two turns, answered by each arm and compared with the base's answers by a judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.linear_model import LogisticRegression

from ccai.base.errors import UserError, first
from ccai.base.params import Params
from ccai.base.records import Completion, Message
from ccai.constitution.dialogue import Turns
from ccai.engines.base import Engine
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.generate import completions
from ccai.generate.completions import Job
from ccai.judge import judge
from ccai.pairs import gates
from ccai.prompts import sources
from ccai.rules import scores
from ccai.rules.outcomes import refused

OWN = Path("data/eval_sets/helpfulness.jsonl")


class Question(BaseModel):
    """A line of a file in MT-Bench's format; its other keys, such as reference answers, are passed over."""

    model_config = ConfigDict(frozen=True)

    question_id: int | str
    category: str
    turns: list[str] = Field(min_length=1)


class Reply(Completion):
    """What an arm answered in one turn of a question.

    Attributes:
        question, category, turn: what was asked; turns are counted from 1.
        arm: who answered; the same arm's answers to earlier turns stood before.
        refusal: class by rules (ccai/rules/scores.py).
        language_kept: whether the answer is in the question's language; None where either is unsure (py3langid).
        repetition: share of the answer's word 3-grams that occurred before in it.
        preferred: by the judge: 1 to the base's answer, 0 the base's to it, 0.5 a tie, None unreadable or not asked.
    """

    question: str
    category: str
    turn: int
    arm: str
    refusal: str
    language_kept: bool | None
    repetition: float
    preferred: float | None = None


class Place(NamedTuple):
    """A turn, counted from 0, of a question."""

    question: Question
    turn: int


class Helpfulness(Suite[Reply]):
    """General questions, after MT-Bench (arXiv 2306.05685)."""

    name = "helpfulness"
    record = Reply
    question = "helpful"

    def __init__(self, settings: Params) -> None:
        self._system = settings.responses.system
        self._asked = settings.eval.helpfulness
        self.questions = spread(questions(self._asked.source), self._asked.questions)
        self.places = [Place(one, turn) for one in self.questions for turn in range(len(one.turns))]

    def jobs(self, arm: Arm) -> list[Job]:
        """The first turns."""
        return [self._job(arm, question, ()) for question in self.questions]

    def ask(self, arm: Arm) -> list[Reply]:
        """One turn after the other, each after the arm's own earlier answers; question by question in the result."""
        said: dict[str, list[str]] = defaultdict(list)
        replies: dict[int, Reply] = {}
        for turn in range(max(len(one.turns) for one in self.questions)):
            now = [at for at, place in enumerate(self.places) if place.turn == turn]
            asked = [self.places[at].question for at in now]
            jobs = [self._job(arm, question, said[str(question.question_id)]) for question in asked]
            for at, fields in zip(now, arm.complete(self.name, jobs), strict=True):
                replies[at] = by_rules(self.places[at], arm.name, fields)
                said[replies[at].question].append(fields["text"])
        return [replies[at] for at in range(len(self.places))]

    def _job(self, arm: Arm, question: Question, said: Sequence[str]) -> Job:
        """The turn that follows what the arm said in earlier ones."""
        system = arm.system(self._system)
        messages = [Message(role="system", content=system)] if system else []
        shared = len(messages)
        for asked, answered in zip(question.turns, said, strict=False):
            messages += [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        messages.append(Message(role="user", content=question.turns[len(said)]))
        key = ("helpful", str(question.question_id), str(len(said)))
        return Job(key, Turns(tuple(messages), shared), self._asked.max_new_tokens)

    def judge(self, engine: Engine, answers: Answers[Reply]) -> tuple[dict[str, list[Reply]], dict[str, Any]]:
        """`preferred` of every answer but the base's own, turn by turn."""
        others = {name: given for name, given in answers.items() if name != "base"}
        shown = [conversation for given in others.values() for conversation in self._conversations(given)]
        found, cost = judge.helpfulness("eval judge", engine, shown, self._conversations(answers["base"]) * len(others))
        judged = {
            name: [
                reply.model_copy(update={"preferred": value}) for reply, value in zip(others[name], values, strict=True)
            ]
            for name, values in completions.split(found, others).items()
        }
        return {name: judged.get(name, list(given)) for name, given in answers.items()}, cost

    @classmethod
    def measure(cls, answers: Answers[Reply], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Preferences over the base, if a judge could be asked; refusals, lengths, language and repetition by rules."""
        replies = Items.of(answers, lambda reply: reply.question)

        def refusals(replies: Items[Reply], among: Comparison) -> dict[str, Any]:
            """Of whole questions: outcomes that are no clusters have an interval even where nobody refuses."""
            questions = replies.by(replies.cluster)
            turns = [of.values(lambda reply: refused(reply.refusal)) for of in questions.values()]
            values = {arm: [any(of[arm]) for of in turns] for arm in answers}
            return among.measure(values, list(questions), yes_no=True)

        def by(label: Callable[[Reply], str]) -> dict[str, Any]:
            groups, apart = sorted(replies.by(label).items()), comparison.apart()
            found = {"refused": {name: refusals(of, apart) for name, of in groups}}
            if judged:
                found["win_rate"] = {name: of.measure(apart, preferred) for name, of in groups}
            return found

        wins = {"win_rate": replies.measure(comparison, preferred), **cls._verdicts(answers)} if judged else {}
        return {
            **wins,
            "refused": refusals(replies, comparison),
            "length": {
                "tokens": replies.measure(comparison, lambda reply: reply.completion_tokens),
                "ended": replies.measure(comparison, lambda reply: reply.finish_reason == "stop", yes_no=True),
            },
            "rules": {
                "language_kept": replies.measure(comparison, lambda reply: reply.language_kept, yes_no=True),
                "repetition": replies.measure(comparison, lambda reply: reply.repetition),
            },
            "by_category": by(lambda reply: reply.category),
            "by_turn": by(lambda reply: str(reply.turn)),
        }

    @classmethod
    def _verdicts(cls, answers: Answers[Reply]) -> dict[str, Any]:
        """What else is told of the judge's preferences, for each arm but the base."""
        others = {arm: given for arm, given in answers.items() if arm != "base"}
        # (preference, tokens beyond the base's) of each readable verdict
        readable = {
            arm: [
                (reply.preferred, reply.completion_tokens - base.completion_tokens)
                for reply, base in zip(given, answers["base"], strict=True)
                if reply.preferred is not None
            ]
            for arm, given in others.items()
        }
        count = sum(map(len, others.values()))
        return {
            "pairwise": {
                arm: {
                    "wins": sum(value > 0.5 for value, _ in given),
                    "ties": sum(value == 0.5 for value, _ in given),
                    "losses": sum(value < 0.5 for value, _ in given),
                }
                for arm, given in readable.items()
            },
            "length_controlled": {
                arm: length_controlled([value for value, _ in given], [gap for _, gap in given])
                for arm, given in readable.items()
            },
            "order_consistency": {
                arm: sum(value != 0.5 for value, _ in given) / len(given) if given else None
                for arm, given in readable.items()
            },
            "invalid": (count - sum(map(len, readable.values()))) / count if count else None,
        }

    def _conversations(self, replies: Sequence[Reply]) -> list[list[Message]]:
        """For each place what was said up to it, by the user and by one arm."""
        result: list[list[Message]] = []
        for (question, turn), reply in zip(self.places, replies, strict=True):
            earlier = result[-1] if turn else []
            asked = Message(role="user", content=question.turns[turn])
            result.append([*earlier, asked, Message(role="assistant", content=reply.text)])
        return result


def questions(source: str) -> list[Question]:
    """The questions of a set: `own`, the name of a pinned source, or a JSONL file in MT-Bench's format.

    Raises:
        UserError: not there, not the pinned file, or a line is no question; names file and line.
    """
    named = sources.named(OWN.as_posix() if source == "own" else source)
    found, seen = list[Question](), set[str]()
    for number, line in enumerate(sources.content(named).splitlines(), start=1):
        where = f"{named.path}:{number}"
        try:
            question = Question.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{where}: {first(error, 'line')}; give question_id, category and turns") from None
        if str(question.question_id) in seen:
            raise UserError(f"{where}: question_id {question.question_id} stands twice; rename one")
        seen.add(str(question.question_id))
        found.append(question)
    if not found:
        raise UserError(f"{named.path}: holds no question; restore it, or name another in eval.helpfulness.source")
    return found


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """So many of them, spread over the categories as evenly as can be, in their order; 0: all."""
    if not count:
        return list(questions)
    categories: dict[str, list[int]] = defaultdict(list)
    for at, question in enumerate(questions):
        categories[question.category].append(at)
    by_turns = [at for round in zip_longest(*categories.values()) for at in round if at is not None]
    return [questions[at] for at in sorted(by_turns[:count])]


def by_rules(place: Place, arm: str, completion: dict[str, Any]) -> Reply:
    """An answer and what rules say of it."""
    text, asked = completion["text"], place.question.turns[place.turn]
    languages = gates.language(text), gates.language(place.question.turns[0])
    return Reply(
        **completion,
        question=str(place.question.question_id),
        category=place.question.category,
        turn=place.turn + 1,
        arm=arm,
        refusal=scores.refusal(asked, text),
        language_kept=None if None in languages else languages[0] == languages[1],
        repetition=gates.repetition(gates.words(text)),
    )


def length_controlled(preferred: Sequence[float], gaps: Sequence[int]) -> float | None:
    """The win rate that is left where both answers are equally long.

    After AlpacaEval-LC (arXiv 2404.04475, section 3): a logistic regression of the preference on tanh of the gap in
    tokens over its standard deviation, read at a gap of 0. Simpler than theirs: one fit for each arm on this run's
    answers, without their term for each instruction's difficulty, which they fit across many models; and length is
    counted in tokens, not characters. A tie is half a win and half a loss. The slope is shrunk as scikit-learn does
    by default (C = 1), so that a few answers can't make it infinite.

    Args:
        preferred: 1, 0.5 or 0 for each answer.
        gaps: its tokens minus those of the base's answer.

    Returns:
        In [0, 1]; the plain win rate where all gaps, or all preferences for one side, are alike; None without answers.
    """
    if not preferred:
        return None
    wins, gap = np.array(preferred), np.array(gaps, dtype=float)
    if gap.std() == 0 or wins.min() == 1 or wins.max() == 0:
        return float(wins.mean())
    length = np.tanh(gap / gap.std())
    outcomes = np.repeat([1, 0], len(wins))
    fit = LogisticRegression().fit(
        np.concatenate([length, length])[:, None], outcomes, sample_weight=np.concatenate([wins, 1 - wins])
    )
    return float(fit.predict_proba(np.zeros((1, 1)))[0, 1])


def preferred(reply: Reply) -> float | None:
    """The judge's preference; the base ties with itself."""
    return 0.5 if reply.arm == "base" else reply.preferred
