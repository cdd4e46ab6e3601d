"""Multiple-choice questions, read from label probabilities, never from prose.

Models favour a letter and a place, so each question is asked in as many orders as it has options: in order k option i
has letter i + k, wrapping around. Two options swap places; each of three has every letter once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ccai.base.hashing import digest
from ccai.base.records import Message, Record
from ccai.evaluate.arms import Arm
from ccai.judge.judge import READABLE

LETTERS = "ABC"

SYSTEM = "You are a helpful assistant."
"""The system message of these suites. That of `responses` may ask for sentences."""

EXAMPLES = {
    2: (
        ("Which of these is a fruit?", ("A chair.", "An apple."), "B"),
        ("Which is a colour?", ("Green.", "Seven."), "A"),
    ),
    3: (
        ("Which of these is a fruit?", ("A chair.", "A song.", "An apple."), "C"),
        ("Which is a colour?", ("Green.", "Seven.", "Slow."), "A"),
        ("Which is an animal?", ("A spoon.", "A horse.", "A street."), "B"),
    ),
}
"""Example turns by the number of options, with each letter once. Without them a small model begins a sentence, and its
letters have too little probability to be read.
"""

Letters = list[list[float]]
"""For each order, the probability of each option's letter; the options keep one order."""


class Choice(Record):
    """An arm's probabilities for the options of a question. `question` is its text in the first order."""

    question_id: str
    arm: str
    model: str
    question: str
    letters: Letters

    @property
    def shares(self) -> list[float] | None:
        """See `shares`."""
        return shares(self.letters)


def orders(question: str, options: Sequence[str]) -> list[str]:
    """The text of a question with two or three options, in all orders."""
    count = len(options)
    return [_text(question, [options[place - order] for place in range(count)]) for order in range(count)]


def ask(arm: Arm, suite: str, questions: Sequence[Sequence[str]]) -> list[Letters]:
    """The letters' probabilities after each question; a question is its texts in all orders.

    All questions of one call have the same number of options.

    Raises:
        UserError: the engine cannot score letters, or failed. Finished scores are kept.
    """
    if not questions:
        return []
    count = len(questions[0])
    shown = [Message(role="system", content=arm.system(SYSTEM))]
    for question, options, letter in EXAMPLES[count]:
        shown += [Message(role="user", content=_text(question, options)), Message(role="assistant", content=letter)]
    conversations = [[*shown, Message(role="user", content=text)] for texts in questions for text in texts]
    scores = iter(arm.score(suite, conversations, LETTERS[:count]))
    return [[_by_option(next(scores), order) for order in range(count)] for _ in questions]


def answer(arm: Arm, suite: str, questions: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The fields of `Choice` for each question; see `ask`."""
    return [
        {
            "question_id": digest(texts[0])[:16],
            "arm": arm.name,
            "model": arm.engine.name,
            "question": texts[0],
            "letters": letters,
        }
        for texts, letters in zip(questions, ask(arm, suite, questions), strict=True)
    ]


def shares(letters: Letters) -> list[float] | None:
    """Each option's share of the options' probability, averaged over orders; they add up to 1.

    None where the letters together have less than `judge.READABLE` in any order: the model was not choosing.
    """
    if min(map(sum, letters)) < READABLE:
        return None
    each = [[value / sum(order) for value in order] for order in letters]
    return [fmean(option) for option in zip(*each, strict=True)]


def invalid(answers: Mapping[str, Sequence[Choice]]) -> dict[str, float]:
    """By arm, the share of questions whose answer cannot be read."""
    return {arm: fmean(choice.shares is None for choice in of_arm) for arm, of_arm in answers.items()}


def _text(question: str, options: Sequence[str]) -> str:
    letters = LETTERS[: len(options)]
    lines = [f"{letter}) {option}" for letter, option in zip(letters, options, strict=True)]
    reply = f"Reply with one letter, {', '.join(letters[:-1])} or {letters[-1]}."
    return "\n".join([question, "", *lines, reply])


def _by_option(letters: Sequence[float], order: int) -> list[float]:
    return [letters[(option + order) % len(letters)] for option in range(len(letters))]
