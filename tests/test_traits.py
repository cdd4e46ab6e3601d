"""Questionnaires by label probability: the shipped set, the public format, the measures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers.chooser import choosing, options, shipped

from ccai.base.errors import UserError
from ccai.evaluate.comparison import Comparison, measures
from ccai.evaluate.suites.traits import TraitChoice, Traits, load
from ccai.prompts import contamination, sources
from ccai.prompts.sources import SourcePrompt

SHIPPED = ROOT / "data/eval_sets/traits.jsonl"
LINES = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]


def test_the_shipped_set_is_balanced() -> None:
    items = load(SHIPPED)
    assert len(items) >= 8
    assert {len(of_trait) for of_trait in items.values()} == {10}
    matching = Counter((line["trait"], line["answer_matching_behavior"].strip()) for line in LINES)
    assert {matching[trait, letter] for trait in items for letter in ("(A)", "(B)")} == {5}
    answers = [answer for of_trait in items.values() for item in of_trait for answer in (item.matching, item.other)]
    assert len(set(answers)) == len(answers)
    for of_trait in items.values():
        longer = sum(len(item.matching) > len(item.other) for item in of_trait)
        assert 2 <= longer <= 8, "length must not give the matching answer away"


@pytest.mark.parametrize("name", ["traits", "bias", "calibration"])
def test_own_sets_are_not_near_the_training_prompts(name: str) -> None:
    lines = (ROOT / f"data/eval_sets/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines]
    texts = [f"{item.get('scene', '')} {item['question']}".strip() for item in asked]
    assert len(set(texts)) == len(texts)
    rows = [
        SourcePrompt(text=text, source=name, place=str(at), source_id=str(at), hazard="", persona="", principle="")
        for at, text in enumerate(texts)
    ]
    training = sources.load("contemplative", ROOT)
    assert contamination.overlap(training, rows, 0.7).pairs == 0
    assert contamination.overlap(training, [rows[0]._replace(text=training[0].text)], 0.7).pairs > 0


def written(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def line(**fields: Any) -> dict[str, Any]:
    return {
        "question": "Rain or sun?\n\nChoices:\n (A) Rain, of course\n (B) Sun",
        "answer_matching_behavior": " (B)",
        "answer_not_matching_behavior": " (A)",
    } | fields


def test_the_public_format_with_choices_and_with_yes_and_no(tmp_path: Path) -> None:
    statement = {"question": 'Would you say this?\n"I like rain"', "statement": "I like rain", "label_confidence": 0.9}
    path = written(
        tmp_path / "likes-sun.jsonl",
        line(),
        statement | {"answer_matching_behavior": " No", "answer_not_matching_behavior": " Yes"},
        line(trait="other", question="Tea?\n(A) Yes, and\nmore\n(B) No"),
    )
    found = load(path)
    assert [tuple(item) for item in found["likes-sun"]] == [
        ("likes-sun", "Rain or sun?", "Sun", "Rain, of course"),
        ("likes-sun", 'Would you say this?\n"I like rain"', "No", "Yes"),
    ]
    assert [tuple(item) for item in found["other"]] == [("other", "Tea?", "No", "Yes, and\nmore")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(answer_matching_behavior=" (C)"), "not one of"),
        (line(answer_matching_behavior=" (A)"), "not one of"),
        (line(answer_matching_behavior="Sun"), "not one of"),
        (line(question=line()["question"] + "\n (C) Snow"), "more than two"),
        (line(question=5), "question: missing"),
        ({"question": "Rain?"}, "answer_matching_behavior: missing"),
        (line(question="Rain?", answer_matching_behavior="Yes", answer_not_matching_behavior=" Yes"), "two different"),
        (line(trait="by_day"), "trait"),
        (line(trait="a.b"), "trait"),
        (line(trait="invalid"), "trait"),
        (line(), "same as"),
        ("[1]", "not a JSON object"),
        ("{", "not a line of JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, bad: Any, message: str) -> None:
    path = written(tmp_path / "sun.jsonl", line(), bad)
    with pytest.raises(UserError, match=rf"sun\.jsonl:2.*{message}"):
        load(path)


def test_no_file_and_no_items(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no items"):
        load(written(tmp_path / "empty.jsonl", ""))


def asked_with(path: Path, items: int = 0, seed: int = 7) -> Traits:
    settings = shipped(traits={"items": items}).model_copy(update={"seed": seed})
    traits = settings.eval.traits.model_copy(update={"set": path})
    return Traits(settings.model_copy(update={"eval": settings.eval.model_copy(update={"traits": traits})}))


def test_a_model_with_a_trait_is_told_from_one_that_likes_a_letter(tmp_path: Path) -> None:
    """Which letter matches is no clue: both orders are asked."""
    path = written(tmp_path / "sun.jsonl", line(), line(question="Sea?\n (A) Sun\n (B) Rain", trait="sea"))
    suite = asked_with(path)

    def sunny(text: str) -> tuple[float, float]:
        return (0.8, 0.1) if options(text)["A"] == "Sun" else (0.1, 0.8)

    with choosing(sunny) as (server, arm):
        given = suite.ask(arm)
    assert [choice.matching for choice in given] == [pytest.approx(8 / 9), pytest.approx(1 / 9)]
    assert len(server.questions) == 4
    with choosing(lambda text: (0.9, 0.05)) as (_, arm):
        assert [choice.matching for choice in suite.ask(arm)] == [pytest.approx(0.5)] * 2


def test_some_items_of_each_trait_by_hash(tmp_path: Path) -> None:
    lines = [line(question=f"Rain {at}?\n (A) Rain\n (B) Sun", trait=f"t{at % 2}") for at in range(12)]
    forth, back = (
        asked_with(written(tmp_path / "a.jsonl", *lines), 4),
        asked_with(written(tmp_path / "b.jsonl", *lines[::-1]), 4),
    )
    assert Counter(item.trait for item in forth.items) == {"t0": 4, "t1": 4}
    assert set(forth.items) == set(back.items)
    other = asked_with(tmp_path / "a.jsonl", 4, seed=8)
    assert set(other.items) != set(forth.items), "the run's seed draws them"


def choice(arm: str, place: int, matching: float, mass: float = 0.9, trait: str = "honesty") -> TraitChoice:
    letters = [[matching * mass, (1 - matching) * mass]] * 2
    return TraitChoice(question_id=f"{trait}{place}", arm=arm, model="m", question="?", letters=letters, trait=trait)


def test_measures_by_hand() -> None:
    base = [choice("base", at, 0.5) for at in range(10)] + [choice("base", at, 0.2, trait="power") for at in range(10)]
    tuned = [choice("tuned", at, 0.6 + at / 100) for at in range(10)]
    tuned += [choice("tuned", at, 0.9, mass=0.4 if at < 5 else 0.9, trait="power") for at in range(10)]
    comparison = Comparison(7, 500)
    found = asked_with(SHIPPED).measure({"base": base, "tuned": tuned}, comparison, judged=False)
    comparison.adjust()
    assert [path for path, _ in measures(found)] == [("honesty",), ("power",)]
    gap = found["honesty"]["difference"]["tuned"]
    assert gap["mean"] == pytest.approx(0.145)
    assert 0.1 < gap["low"] < 0.145 < gap["high"] < 0.2
    assert found["power"]["n"] == 5, "what can't be read is left out, not taken for a no"
    assert found["power"]["tuned"]["mean"] == pytest.approx(0.9)
    assert found["invalid"] == {"base": 0, "tuned": 0.25}
