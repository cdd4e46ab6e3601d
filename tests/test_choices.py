"""Questions with lettered options, asked in all orders."""

from __future__ import annotations

import pytest
from conftest import ROOT
from helpers.chooser import choosing, options, preferring, shipped

from ccai.constitution import principles as constitution
from ccai.engines.transformers import Transformers
from ccai.evaluate import choices
from ccai.evaluate.arms import Arm

THREE = ("The cat.", "The dog.", "Nobody.")


def test_each_option_stands_once_under_each_letter() -> None:
    texts = choices.orders("Who did it?", THREE)
    assert [[options(text)[letter] for letter in "ABC"] for text in texts] == [
        ["The cat.", "The dog.", "Nobody."],
        ["Nobody.", "The cat.", "The dog."],
        ["The dog.", "Nobody.", "The cat."],
    ]
    assert texts[0].startswith("Who did it?\n\nA) ")
    assert texts[0].endswith("Reply with one letter, A, B or C.")
    assert choices.orders("Q", THREE[:2])[1] == "Q\n\nA) The dog.\nB) The cat.\nReply with one letter, A or B."


@pytest.mark.parametrize("chosen", THREE)
def test_a_model_that_reads_is_believed_in_all_orders(chosen: str) -> None:
    with choosing(preferring(chosen)) as (server, arm):
        [letters] = choices.ask(arm, "test", [choices.orders("Who?", THREE)])
    expected = [0.8 if option == chosen else 0.1 for option in THREE]
    assert [pytest.approx(expected)] * 3 == letters
    assert choices.shares(letters) == pytest.approx(expected)
    assert {body["messages"][0]["content"] for body in server.bodies} == {choices.SYSTEM}


@pytest.mark.parametrize("always", [(0.9, 0.05), (0.02, 0.9), (0.5, 0.3)])
def test_a_model_that_always_says_one_letter_says_nothing(always: tuple[float, float]) -> None:
    with choosing(lambda text: always) as (_, arm):
        [letters] = choices.ask(arm, "test", [choices.orders("Who?", THREE[:2])])
    assert choices.shares(letters) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("mass", [0.0, 0.49])
def test_unreadable_in_one_order_is_no_answer(mass: float) -> None:
    assert choices.shares([[0.9, 0.1], [mass, 0.0]]) is None
    assert choices.shares([[0.9, 0.1], [0.5, 0.0]]) == pytest.approx([0.95, 0.05])


def test_the_prompted_arm_is_told_its_principles() -> None:
    principles = constitution.load(ROOT / "data/constitutions/contemplative.md").principles
    with choosing(preferring("The cat.")) as (server, base):
        told = Arm("prompted", base.engine, shipped(), principles)
        choices.ask(told, "test", [choices.orders("Who?", THREE)])
    assert len(server.bodies) == 3
    for body in server.bodies:
        assert choices.SYSTEM in body["messages"][0]["content"]
        assert all(one.statement in body["messages"][0]["content"] for one in principles)


def test_no_question_costs_nothing() -> None:
    with choosing(lambda text: (1.0,)) as (server, arm):
        assert choices.ask(arm, "test", []) == []
    assert not server.bodies


def test_examples_show_each_letter_once_and_rightly() -> None:
    for count, shown in choices.EXAMPLES.items():
        assert sorted(letter for *_, letter in shown) == list("ABC"[:count])
        assert {len(found) for _, found, _ in shown} == {count}
    with choosing(preferring("The cat.")) as (server, arm):
        choices.ask(arm, "test", [choices.orders("Who?", THREE[:2])])
    turns = server.bodies[0]["messages"]
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 2, "user"]
    assert options(turns[1]["content"])[turns[2]["content"]] == "An apple."


def test_a_real_model_gives_what_its_letters_have(tiny_engine: Transformers) -> None:
    """Orders are put back right: option by option the numbers of the letter that it stood under."""
    arm = Arm("base", tiny_engine, shipped())
    texts = choices.orders("Who did it?", THREE)
    [letters] = choices.ask(arm, "test", [texts])
    for found, text in zip(letters, texts, strict=True):
        [by_letter, *_] = choices.ask(arm, "test", [[text] * 3])[0]  # its first order is that of the letters
        under = {option: letter for letter, option in options(text).items()}
        assert found == pytest.approx([by_letter["ABC".index(under[option])] for option in THREE], rel=1e-4)
    assert len({round(value, 9) for found in letters for value in found}) == 9
