"""Trait drift: A/B questionnaires by label probability, one trait at a time."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Params
from ccai.evaluate import choices
from ccai.evaluate.arms import Arm
from ccai.evaluate.choices import Choice
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.pairs import user_files

_OPTIONS = re.compile(r"\s*(?:Choices:)?\s*^\s*\(A\)(.*?)^\s*\(B\)(.*)\Z", re.DOTALL | re.MULTILINE)
_THIRD = re.compile(r"^\s*\(C\)", re.MULTILINE)
_NAME = re.compile(r"(?!by_|invalid$)[A-Za-z0-9_-]+")
"""A trait is a key of metrics/eval.json beside `invalid`; a name that begins with `by_` would be a breakdown."""

MATCHING, OTHER = "answer_matching_behavior", "answer_not_matching_behavior"


class TraitQuestion(NamedTuple):
    """A question with the answer of somebody who has the trait, and the other answer."""

    trait: str
    question: str
    matching: str
    other: str


class TraitChoice(Choice):
    """The first option is the answer that matches the trait."""

    trait: str

    @property
    def matching(self) -> float | None:
        """Probability of the answer that matches the trait; None where it cannot be read."""
        return None if self.shares is None else self.shares[0]


class Traits(Suite[TraitChoice]):
    """Questionnaires in the format of model-written evaluations (arXiv 2212.09251)."""

    name = "traits"
    record = TraitChoice

    def __init__(self, settings: Params) -> None:
        options = settings.eval.traits
        self.items = [
            item
            for of_trait in load(options.set).values()
            for item in (chosen(of_trait, options.items, settings.seed) if options.items else of_trait)
        ]

    def ask(self, arm: Arm) -> list[TraitChoice]:
        """Each item with either answer first."""
        questions = [choices.orders(item.question, (item.matching, item.other)) for item in self.items]
        answers = choices.answer(arm, self.name, questions)
        return [TraitChoice(**fields, trait=item.trait) for item, fields in zip(self.items, answers, strict=True)]

    @classmethod
    def key(cls, record: TraitChoice) -> Hashable:
        return record.question_id

    @classmethod
    def measure(cls, answers: Answers[TraitChoice], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """By trait, the mean probability of the matching answer."""
        by_trait = Items.of(answers, lambda choice: choice.question_id).by(lambda choice: choice.trait)
        measured = {trait: of.measure(comparison, lambda choice: choice.matching) for trait, of in by_trait.items()}
        return {**measured, "invalid": choices.invalid(answers)}


def load(path: Path) -> dict[str, list[TraitQuestion]]:
    """Items by trait, from JSON lines with `question`, `answer_matching_behavior` and `answer_not_matching_behavior`.

    The answers are options that the question lists, `(A) …` and `(B) …` on their own lines, or texts such as `Yes` and
    `No`. `trait` names the trait; without it the file's name does. Other fields are ignored.

    Raises:
        UserError: no such file, a line that is not such an item, a repeated item, or none at all.
    """
    items: dict[str, list[TraitQuestion]] = {}
    distinct = set()
    for row in user_files.rows(str(path)):
        item = _item(row, path.stem)
        if item in distinct:
            raise row.error("question", "the same as on an earlier line")
        distinct.add(item)
        items.setdefault(item.trait, []).append(item)
    if not items:
        raise UserError(f"{path}: no items; name a file that has some in eval.traits.set")
    return items


def chosen(items: list[TraitQuestion], count: int, seed: int) -> list[TraitQuestion]:
    """At most `count` items, chosen by hash, so that a file's order has no effect."""
    return sorted(items, key=lambda item: digest(["traits", seed, item.question, item.matching]))[:count]


def _item(row: user_files.FileRow, name: str) -> TraitQuestion:
    trait = _text(row, "trait") if "trait" in row.fields else name
    if not _NAME.fullmatch(trait):
        raise row.error("trait", "not a name of letters, digits, - and _, or one that is taken (by_…, invalid)")
    question, matching, other = (_text(row, column) for column in ("question", MATCHING, OTHER))
    if _THIRD.search(question):
        raise row.error("question", "more than two choices")
    if listed := _OPTIONS.search(question):
        options = {"(A)": listed[1].strip(), "(B)": listed[2].strip()}
        if {matching, other} != options.keys() or not all(options.values()):
            raise row.error(MATCHING, f"not one of (A) and (B), and {OTHER} the other")
        question, matching, other = question[: listed.start()], options[matching], options[other]
    if matching == other or not question:
        raise row.error("question", "no question with two different answers")
    return TraitQuestion(trait, question, matching, other)


def _text(row: user_files.FileRow, column: str) -> str:
    value = row.fields.get(column)
    if not isinstance(value, str) or not value.strip():
        raise row.error(column, "missing, or not a text")
    return value.strip()
