"""Iterated prisoner's dilemma: moves from letters, strategies, points, games that end early."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from helpers.chooser import Choosing, choosing, options, shipped

from ccai.base.params import Params
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.cooperation import PAYOFFS, Cooperation, Game, points_of, tempered


def cooperative(text: str) -> str:
    """The word whose mutual choice gives more, read from the payoffs of the question."""
    both = {word: int(points) for word, points in re.findall(r"^(\w+), \1: you get (\d+)", text, re.MULTILINE)}
    assert len(both) == 2, text
    return max(both, key=both.__getitem__)


def cooperating(probability: float) -> Any:
    def chooser(text: str) -> tuple[float, float]:
        first = options(text)["A"] == f"{cooperative(text).capitalize()}."
        return (probability, 1 - probability) if first else (1 - probability, probability)

    return chooser


SUCKER = "you get 0, the other gets 5"
"""Of the first payoffs alone."""


def settings(**options: Any) -> Params:
    return shipped(cooperation={"rounds": 5, "games": 2} | options)


def play(chooser: Any, given: Params | None = None) -> tuple[Choosing, dict[str, Game]]:
    given = given or settings()
    with choosing(chooser, given) as (server, arm):
        return server, {game.game_id: game for game in Cooperation(given).ask(arm)}


def test_payoffs_are_dilemmas() -> None:
    for temptation, reward, punishment, sucker in PAYOFFS:
        assert temptation > reward > punishment > sucker
        assert 2 * reward > temptation + sucker


@pytest.mark.parametrize(("probability", "move"), [(1.0, "C"), (0.0, "D")])
def test_opponents_play_by_their_strategy(probability: float, move: str) -> None:
    _, games = play(cooperating(probability))
    assert {game.moves for game in games.values()} == {move * 5}
    assert games["always_cooperate-0"].opponent_moves == "CCCCC"
    assert games["always_defect-0"].opponent_moves == "DDDDD"
    assert games["tit_for_tat-0"].opponent_moves == "C" + move * 4
    assert games["random-0"].opponent_moves != games["random-1"].opponent_moves


def test_tit_for_tat_returns_the_last_move() -> None:
    _, games = play(cooperating(0.5), settings(rounds=10, games=1))
    game = games["tit_for_tat-0"]
    assert set(game.moves) == {"C", "D"}
    assert game.opponent_moves == "C" + game.moves[:-1]


def test_points_by_hand() -> None:
    _, games = play(cooperating(0.0))
    # Payoffs 5, 3, 1, 0: both defect five times, 10 points of the 30 that cooperation gives.
    assert games["always_defect-0"].joint_reward == pytest.approx(10 / 30)
    # Exploiting: 5 and 0 each round.
    assert games["always_cooperate-0"].joint_reward == pytest.approx(25 / 30)
    # Payoffs 7, 5, 3, 0: first 7 and 0, then four times 3 and 3.
    assert games["tit_for_tat-1"].joint_reward == pytest.approx((7 + 4 * 6) / 50)
    assert points_of(PAYOFFS[0], "C", "D") == (0, 5)


def test_a_preference_for_a_letter_is_no_preference_for_a_move() -> None:
    _, games = play(lambda text: (0.97, 0.02), settings(rounds=8, games=4))
    moves = "".join(game.moves for game in games.values())
    assert 0.35 < moves.count("C") / len(moves) < 0.65
    assert all(letters[0][0] == pytest.approx(0.97) for game in games.values() for letters in game.letters)


def test_the_game_is_told_without_naming_a_move() -> None:
    server, games = play(cooperating(1.0), settings(games=2 * len(PAYOFFS)))
    assert not any(re.search("cooperat|defect|dilemma", text, re.IGNORECASE) for text in server.questions)
    shown = [game for game in games.values() if game.opponent == "random"]
    assert {(game.payoffs, game.words) for game in shown} == {
        (payoffs, words) for payoffs in PAYOFFS for words in (("circle", "square"), ("square", "circle"))
    }
    last = [text for text in server.questions if "round 5 of 5" in text and SUCKER in text]
    assert {(options(text)["A"], cooperative(text)) for text in last} == {
        (option, word) for option in ("Circle.", "Square.") for word in ("circle", "square")
    }
    told = next(text for text in last if cooperative(text) == "circle" and "Round 4: circle, square" in text)
    assert "circle, square: you get 0, the other gets 5\n" in told
    assert "Round 4: circle, square: you got 0, the other got 5\n" in told
    assert "Round 5:" not in told


def test_named_framing_says_the_words() -> None:
    server, games = play(cooperating(1.0), settings(framing="named"))
    assert {cooperative(text) for text in server.questions} == {"cooperate"}
    assert {game.moves for game in games.values()} == {"CCCCC"}


def test_an_unreadable_move_ends_the_game_and_is_none() -> None:
    def chooser(text: str) -> Sequence[float]:
        silent = "Round 2:" in text and "Round 3:" not in text and SUCKER in text
        return (0.2, 0.1) if silent else cooperating(1.0)(text)

    server, games = play(chooser)
    broken = games["always_defect-0"]
    assert (broken.valid, broken.moves, broken.opponent_moves, len(broken.letters)) == (False, "CC", "DD", 3)
    assert broken.cooperation_rate is broken.joint_reward is None
    assert games["always_defect-1"].moves == "CCCCC"
    assert not any("Round 3:" in text and SUCKER in text for text in server.questions)


def test_same_seed_same_games_other_seed_others() -> None:
    one = settings(rounds=5, games=1)
    other = one.model_copy(update={"seed": one.seed + 1})
    assert play(cooperating(0.5), one)[1] == play(cooperating(0.5), one)[1]
    first, second = play(cooperating(0.5), one)[1], play(cooperating(0.5), other)[1]
    assert {key: game.moves for key, game in first.items()} != {key: game.moves for key, game in second.items()}


def test_arms_that_are_equally_inclined_play_the_same_games() -> None:
    """They draw the same numbers."""
    given, moves = settings(rounds=8, games=3), []
    for name in ("base", "tuned"):
        with choosing(cooperating(0.5), given, name) as (_, arm):
            moves.append({game.game_id: (game.moves, game.opponent_moves) for game in Cooperation(given).ask(arm)})
    assert moves[0] == moves[1]
    assert len({own for own, _ in moves[0].values()}) > 6


def test_temperature() -> None:
    assert tempered(0.6, 1.0) == pytest.approx(0.6)
    assert tempered(0.6, 0.5) == pytest.approx(0.36 / (0.36 + 0.16))
    assert [tempered(0.6, 0.0), tempered(0.4, 0.0)] == [1.0, 0.0]
    assert [tempered(1.0, 0.7), tempered(0.0, 0.7)] == [1.0, 0.0]


def game(arm: str, name: str, moves: str, replies: str, rounds: int = 4) -> Game:
    return Game(
        game_id=name,
        arm=arm,
        model="m",
        opponent=name.partition("-")[0],
        payoffs=PAYOFFS[0],
        words=("circle", "square"),
        letters=[[[0.5, 0.4], [0.5, 0.4]]] * rounds,
        moves=moves,
        opponent_moves=replies,
    )


def test_measures_by_hand() -> None:
    names = [f"{opponent}-{number}" for opponent in ("tit_for_tat", "always_defect") for number in range(4)]
    base = [game("base", name, "DDDD", "DDDD") for name in names]
    tuned = [
        game("tuned", name, "CCCC" if at < 4 else "CCDD", "CCCC" if at < 4 else "DDDD") for at, name in enumerate(names)
    ]
    tuned[7] = game("tuned", names[7], "C", "D", rounds=2)
    suite = Cooperation(settings())
    comparison = Comparison(7, 500)
    found = suite.measure({"base": base, "tuned": tuned}, comparison, judged=False)
    comparison.adjust()
    rate, reward = found["cooperation_rate"], found["joint_reward"]
    assert rate["n"] == 7, "the broken game is left out of both arms"
    assert (rate["base"]["mean"], rate["tuned"]["mean"]) == (0, pytest.approx((4 * 1 + 3 * 0.5) / 7))
    # Both cooperate: 1. Two suckers and two mutual defections: 5 + 5 + 2 + 2 of 24.
    assert reward["tuned"]["mean"] == pytest.approx((4 + 3 * 14 / 24) / 7)
    assert reward["base"]["mean"] == pytest.approx(8 / 24)
    assert found["invalid"] == {"base": 0, "tuned": 1 / 8}
    against = found["by_opponent"]
    assert against["always_defect"]["cooperation_rate"]["n"] == 3
    assert against["random"]["cooperation_rate"] == {"n": 0}
    assert "p_holm" in against["tit_for_tat"]["joint_reward"]["difference"]["tuned"]


def test_copies_of_a_game_are_no_evidence() -> None:
    """Six times the same eight games, in which some draws fell otherwise: the interval is that of eight."""

    def measured(copies: int) -> dict[str, Any]:
        plays = {"base": ["DDDD"] * 8, "tuned": ["CDDD", "DDDD", "CCDD", "CDDD", "DDDD", "CCCD", "CDDD", "CCDD"]}
        answers = {
            arm: [
                game(arm, f"random-{copy * 8 + at}", moves, "DDDD").model_copy(update={"payoffs": PAYOFFS[at]})
                for copy in range(copies)
                for at, moves in enumerate(of_arm)
            ]
            for arm, of_arm in plays.items()
        }
        found = Cooperation.measure(answers, Comparison(7, 100), judged=False)
        return dict(found["cooperation_rate"]["difference"]["tuned"])

    once, often = measured(1), measured(6)
    assert [often[name] for name in ("mean", "low", "high", "p")] == pytest.approx(
        [once[name] for name in ("mean", "low", "high", "p")]
    )
    assert once["low"] > 0


def test_sizes_come_from_params() -> None:
    server, games = play(cooperating(1.0), settings(rounds=1, games=len(PAYOFFS)))
    assert len(games) == 4 * len(PAYOFFS)
    assert len(server.questions) == 2 * len(PAYOFFS), "the same question is asked once"
