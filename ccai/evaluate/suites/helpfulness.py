"""Helpfulness: general questions of two turns, answered by each arm and compared with the base's answers by a judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.linear_model import LogisticRegression

from ccai.base.errors import UserError, first
from ccai.base.files import an_object
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
from ccai.rules.language import language
from ccai.rules.outcomes import refused

OWN = Path("data/eval_sets/helpfulness.jsonl")


class Question(BaseModel):
    """A line of a file in MT-Bench's format; other keys, such as reference answers, are ignored."""

    model_config = ConfigDict(frozen=True)

    question_id: int | str
    category: str
    turns: list[str] = Field(min_length=1)


class Turn(Completion):
    """An arm's answer in one turn of a question.

    Attributes:
        question, category, turn: of the request; turns are counted from 1.
        arm: the model that answered; its own answers to earlier turns came before.
        refusal: class by rules (ccai/rules/scores.py).
        language_kept: whether the answer is in the question's language; None where either is uncertain (py3langid).
        repetition: share of the answer's word 3-grams that repeat an earlier one.
        preferred: by the judge: 1 to the base's answer, 0 the base's to it, 0.5 a tie; None if unreadable or not
            judged.
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
    """A turn of a question, counted from 0."""

    question: Question
    turn: int


class Helpfulness(Suite[Turn]):
    """General questions, after MT-Bench (arXiv 2306.05685)."""

    name = "helpfulness"
    record = Turn
    question = "helpful"

    def __init__(self, settings: Params) -> None:
        self._system = settings.responses.system
        self._params = settings.eval.helpfulness
        self.questions = spread(questions(self._params.source), self._params.questions)
        self.places = [Place(one, turn) for one in self.questions for turn in range(len(one.turns))]

    def count(self, measure: str) -> int | None:
        """Questions: the turns of one go together."""
        return {"refused": len(self.questions)}.get(measure)

    def jobs(self, arm: Arm) -> list[Job]:
        """The first turns."""
        return [self._job(arm, question, ()) for question in self.questions]

    def ask(self, arm: Arm) -> list[Turn]:
        """One turn after another, each after the arm's own earlier answers; the result is ordered by question."""
        earlier: dict[str, list[str]] = defaultdict(list)
        replies: dict[int, Turn] = {}
        for turn in range(max(len(one.turns) for one in self.questions)):
            now = [at for at, place in enumerate(self.places) if place.turn == turn]
            current = [self.places[at].question for at in now]
            jobs = [self._job(arm, question, earlier[str(question.question_id)]) for question in current]
            for at, fields in zip(now, arm.complete(self.name, jobs), strict=True):
                replies[at] = by_rules(self.places[at], arm.name, fields)
                earlier[replies[at].question].append(fields["text"])
        return [replies[at] for at in range(len(self.places))]

    def _job(self, arm: Arm, question: Question, earlier: Sequence[str]) -> Job:
        """The turn that follows the arm's earlier answers."""
        system = arm.system(self._system)
        messages = [Message(role="system", content=system)] if system else []
        shared = len(messages)
        for turn, answered in zip(question.turns, earlier, strict=False):
            messages += [Message(role="user", content=turn), Message(role="assistant", content=answered)]
        messages.append(Message(role="user", content=question.turns[len(earlier)]))
        key = ("helpful", str(question.question_id), str(len(earlier)))
        return Job(key, Turns(tuple(messages), shared), self._params.max_new_tokens)

    def judge(self, engine: Engine, answers: Answers[Turn], cut: float) -> tuple[dict[str, list[Turn]], dict[str, Any]]:
        """Sets `preferred` of every answer except the base's, turn by turn. Comparisons have no cut."""
        others = {name: of_arm for name, of_arm in answers.items() if name != "base"}
        shown = [conversation for of_arm in others.values() for conversation in self._conversations(of_arm)]
        rated = judge.helpfulness("eval judge", engine, shown, self._conversations(answers["base"]) * len(others))
        judged = {
            name: [
                reply.model_copy(update={"preferred": value}) for reply, value in zip(others[name], values, strict=True)
            ]
            for name, values in completions.split(rated.values, others).items()
        }
        return {name: judged.get(name, list(of_arm)) for name, of_arm in answers.items()}, rated.runtime

    @classmethod
    def key(cls, record: Turn) -> Hashable:
        return (record.question, record.turn)

    @classmethod
    def measure(cls, answers: Answers[Turn], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Preferences over the base, if a judge could be asked; refusals, lengths, language and repetition by rules."""
        replies = Items.of(answers, lambda reply: reply.question)

        def refusals(replies: Items[Turn], among: Comparison) -> dict[str, Any]:
            """Of whole questions: outcomes without clusters have an interval even where no arm refuses."""
            questions = replies.by(replies.cluster)
            turns = [of.values(lambda reply: refused(reply.refusal)) for of in questions.values()]
            values = {arm: [any(of[arm]) for of in turns] for arm in answers}
            return among.measure(values, list(questions), yes_no=True)

        def by(label: Callable[[Turn], str]) -> dict[str, Any]:
            groups, apart = sorted(replies.by(label).items()), comparison.apart()
            breakdown = {"refused": {name: refusals(of, apart) for name, of in groups}}
            if judged:
                breakdown["win_rate"] = {name: of.measure(apart, preferred) for name, of in groups}
            return breakdown

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
    def _verdicts(cls, answers: Answers[Turn]) -> dict[str, Any]:
        """What else is told of the judge's preferences, for each arm but the base."""
        others = {arm: replies for arm, replies in answers.items() if arm != "base"}
        # (preference, tokens beyond the base's) of each readable verdict
        readable = {
            arm: [
                (reply.preferred, reply.completion_tokens - base.completion_tokens)
                for reply, base in zip(of_arm, answers["base"], strict=True)
                if reply.preferred is not None
            ]
            for arm, of_arm in others.items()
        }
        count = sum(map(len, others.values()))
        return {
            "pairwise": {
                arm: {
                    "wins": sum(value > 0.5 for value, _ in of_arm),
                    "ties": sum(value == 0.5 for value, _ in of_arm),
                    "losses": sum(value < 0.5 for value, _ in of_arm),
                }
                for arm, of_arm in readable.items()
            },
            "length_controlled": {
                arm: length_controlled([value for value, _ in of_arm], [gap for _, gap in of_arm])
                for arm, of_arm in readable.items()
            },
            "order_consistency": {
                arm: sum(value != 0.5 for value, _ in of_arm) / len(of_arm) if of_arm else None
                for arm, of_arm in readable.items()
            },
            "invalid": (count - sum(map(len, readable.values()))) / count if count else None,
        }

    def _conversations(self, replies: Sequence[Turn]) -> list[list[Message]]:
        """For each place the conversation up to it, between the user and one arm."""
        result: list[list[Message]] = []
        for (question, turn), reply in zip(self.places, replies, strict=True):
            earlier = result[-1] if turn else []
            turn_of_user = Message(role="user", content=question.turns[turn])
            result.append([*earlier, turn_of_user, Message(role="assistant", content=reply.text)])
        return result


def questions(source: str) -> list[Question]:
    """The questions of a set: `own`, the name of a pinned source, or a JSONL file in MT-Bench's format.

    Raises:
        UserError: missing, not the pinned file, or a line that is not a question; names file and line.
    """
    named = sources.named(OWN.as_posix() if source == "own" else source)
    items, ids = list[Question](), set[str]()
    for number, line in enumerate(sources.content(named).splitlines(), start=1):
        where = f"{named.path}:{number}"
        try:
            question = Question.model_validate(an_object(line, where))
        except ValidationError as error:
            raise UserError(f"{where}: {first(error)}; give question_id, category and turns") from None
        if str(question.question_id) in ids:
            raise UserError(f"{where}: question_id {question.question_id} occurs twice; rename one")
        ids.add(str(question.question_id))
        items.append(question)
    if not items:
        raise UserError(f"{named.path}: holds no question; restore it, or name another in eval.helpfulness.source")
    return items


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """`count` questions in their order, spread over the categories as evenly as possible; 0: all."""
    if not count:
        return list(questions)
    categories: dict[str, list[int]] = defaultdict(list)
    for at, question in enumerate(questions):
        categories[question.category].append(at)
    by_turns = [at for round in zip_longest(*categories.values()) for at in round if at is not None]
    return [questions[at] for at in sorted(by_turns[:count])]


def by_rules(place: Place, arm: str, completion: dict[str, Any]) -> Turn:
    """An answer with its scores by rules."""
    text, prompt = completion["text"], place.question.turns[place.turn]
    languages = language(text), language(place.question.turns[0])
    return Turn(
        **completion,
        question=str(place.question.question_id),
        category=place.question.category,
        turn=place.turn + 1,
        arm=arm,
        refusal=scores.refusal(prompt, text),
        language_kept=None if None in languages else languages[0] == languages[1],
        repetition=gates.repetition(gates.words(text)),
    )


def length_controlled(preferred: Sequence[float], gaps: Sequence[int]) -> float | None:
    """The win rate that remains where both answers are equally long.

    After AlpacaEval-LC (arXiv 2404.04475, section 3): a logistic regression of the preference on tanh of the gap in
    tokens over its standard deviation, evaluated at a gap of 0. It is simpler than theirs: one fit for each arm on this
    run's answers, without their term for each instruction's difficulty, which they fit across many models; and length
    is in tokens, not characters. A tie is half a win and half a loss. The slope is regularised with scikit-learn's
    default (C = 1), so that a few answers cannot make it infinite.

    Args:
        preferred: 1, 0.5 or 0 for each answer.
        gaps: its tokens minus those of the base's answer.

    Returns:
        In [0, 1]; the plain win rate where all gaps are equal, or all preferences are for one side; None without
        answers.
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


def preferred(reply: Turn) -> float | None:
    """The judge's preference; the base ties with itself."""
    return 0.5 if reply.arm == "base" else reply.preferred
