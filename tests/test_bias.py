"""Ambiguous scenes: whom a model names where the text does not say."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import ROOT
from helpers.chooser import choosing, options, preferring, shipped

from ccai.base.files import read
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.bias import ITEMS, UNKNOWN, Bias, Scene, capital


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Bias:
    monkeypatch.chdir(ROOT)
    return Bias(shipped())


def test_the_shipped_set() -> None:
    items = read(ROOT / ITEMS, Scene)
    assert len(items) >= 24
    axes = Counter(item.axis for item in items)
    assert len(axes) >= 8 and min(axes.values()) >= 3
    for item in items:
        scene = item.scene.format(first="<1>", second="<2>", First="<1>")
        assert scene.index("<1>") < scene.index("<2>") and scene.count("<1>") == scene.count("<2>") == 1
        assert item.question.endswith("?")


def test_a_pair_differs_in_nothing_but_who_comes_first(suite: Bias) -> None:
    with choosing(preferring(UNKNOWN)) as (server, arm):
        given = suite.ask(arm)
    assert len(given) == 2 * len(suite.items)
    assert len(server.questions) == 6 * len(suite.items)
    for item, one, other in zip(suite.items, given[::2], given[1::2], strict=True):
        assert one.item == other.item and one.question_id != other.question_id
        assert list(options(one.question).values()) == [
            f"{capital(item.stereotyped)}.",
            f"{capital(item.other)}.",
            UNKNOWN,
        ]
        assert list(options(other.question).values()) == [
            f"{capital(item.other)}.",
            f"{capital(item.stereotyped)}.",
            UNKNOWN,
        ]
        swapped = {item.stereotyped: item.other, item.other: item.stereotyped}
        first, second = sorted(swapped, key=lambda who: one.question.lower().index(who.lower()))
        assert (first, second) == (item.stereotyped, item.other)


def measured(suite: Bias, **choosers: object) -> dict[str, object]:
    answers = {}
    for name, chooser in choosers.items():
        with choosing(chooser, name=name) as (_, arm):  # type: ignore[arg-type]
            answers[name] = suite.ask(arm)
    comparison = Comparison(7, 500)
    found = suite.measure(answers, comparison, judged=False)
    comparison.adjust()
    return found


def test_a_prejudiced_model_and_a_careful_one(suite: Bias) -> None:
    prejudiced = preferring(*{f"{capital(item.stereotyped)}." for item in suite.items})
    found = measured(suite, base=prejudiced, tuned=preferring(UNKNOWN))
    answered, towards = found["answered"], found["towards_stereotype"]
    assert answered["n"] == 2 * len(suite.items)  # type: ignore[index]
    assert answered["base"]["mean"] == pytest.approx(0.9)  # type: ignore[index]
    assert answered["tuned"]["mean"] == pytest.approx(0.2)  # type: ignore[index]
    assert towards["base"]["mean"] == pytest.approx(0.7)  # type: ignore[index]
    assert towards["tuned"]["mean"] == pytest.approx(0.0)  # type: ignore[index]
    by_axis = found["by_axis"]
    assert by_axis["age"]["towards_stereotype"]["base"]["mean"] == pytest.approx(0.7)  # type: ignore[index]
    assert found["invalid"] == {"base": 0, "tuned": 0}


def test_a_letter_or_a_place_is_no_prejudice(suite: Bias) -> None:
    """Nor is naming whom the scene names first."""

    def first_named(text: str) -> list[float]:
        scene, found = text.partition("\n")[0].lower(), options(text)
        people = {letter: name for letter, name in found.items() if name != UNKNOWN}
        first = min(people, key=lambda letter: scene.index(people[letter].rstrip(".").lower()))
        return [0.8 if letter == first else 0.1 for letter in found]

    found = measured(suite, base=lambda text: (0.9, 0.05, 0.05), tuned=first_named)
    assert found["towards_stereotype"]["base"]["mean"] == pytest.approx(0, abs=1e-9)  # type: ignore[index]
    assert found["towards_stereotype"]["tuned"]["mean"] == pytest.approx(0, abs=1e-9)  # type: ignore[index]
    assert found["answered"]["base"]["mean"] == pytest.approx(2 / 3)  # type: ignore[index]


def test_both_of_a_pair_are_one_cluster(suite: Bias) -> None:
    """Whatever a model makes of a scene, it makes of both."""

    def by_scene(text: str) -> list[float]:
        [known] = [
            at
            for at, item in enumerate(suite.items)
            if item.question in text
            and {f"{capital(item.stereotyped)}.", f"{capital(item.other)}."} < {*options(text).values()}
        ]
        unknown = 0.2 + 0.6 * (known * 7 % len(suite.items)) / len(suite.items)
        return [unknown if option == UNKNOWN else (1 - unknown) / 2 for option in options(text).values()]

    found = measured(suite, base=preferring(UNKNOWN), tuned=by_scene)["answered"]
    tuned = [1 - (0.2 + 0.6 * (at * 7 % len(suite.items)) / len(suite.items)) for at in range(len(suite.items))]
    values = {"base": [0.2] * 2 * len(tuned), "tuned": [value for value in tuned for _ in range(2)]}
    scenes = [str(at) for at in range(len(tuned)) for _ in range(2)]
    expected = Comparison(7, 500).measure(values, scenes)["difference"]["tuned"]
    gap = found["difference"]["tuned"]  # type: ignore[index]
    assert {name: gap[name] for name in ("low", "high", "p")} == {
        name: pytest.approx(expected[name], rel=1e-6) for name in ("low", "high", "p")
    }


def test_what_cannot_be_read_is_counted(suite: Bias) -> None:
    found = measured(suite, base=preferring(UNKNOWN), tuned=lambda text: (0.2, 0.1, 0.1))
    assert found["answered"] == {"n": 0, "unreadable": 48}
    assert found["invalid"] == {"base": 0, "tuned": 1}
