"""The helpfulness suite: its questions, what it asks, what it counts, and what a judge's preferences become."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from conftest import ROOT
from helpers.judges import Question as Asked
from helpers.judges import judging

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.eval_params import Primary
from ccai.base.params import Params
from ccai.engines.transformers import Transformers
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison, measures, registered
from ccai.evaluate.suites import helpfulness
from ccai.evaluate.suites.helpfulness import (
    Helpfulness,
    Place,
    Question,
    Turn,
    by_rules,
    length_controlled,
    questions,
    spread,
)
from ccai.prompts import contamination, sources
from ccai.stats import intervals

OWN = [Question.model_validate_json(line) for line in (ROOT / helpfulness.OWN).read_text("utf-8").splitlines()]


def settings(**changes: Any) -> Params:
    loaded = params.load(ROOT / "params.yaml")
    chosen = loaded.eval.model_copy(update={"helpfulness": loaded.eval.helpfulness.model_copy(update=changes)})
    return loaded.model_copy(update={"eval": chosen})


# --- the questions ------------------------------------------------------------------------------------------------


def test_questions_of_our_own() -> None:
    assert len(OWN) >= 24
    assert {len(one.turns) for one in OWN} == {2}
    assert len({one.category for one in OWN}) == 8
    turns = [turn for one in OWN for turn in one.turns]
    assert len(set(turns)) == len(turns)


def test_questions_are_not_near_what_is_trained_on() -> None:
    rows = [
        sources.SourcePrompt("help", str(one.question_id), turn, "", "", "", str(one.question_id))
        for one in OWN
        for turn in one.turns
    ]
    threshold = params.load(ROOT / "params.yaml").prompts.contamination / 2
    assert contamination.overlap(sources.load("contemplative", ROOT), rows, threshold).pairs == 0


def test_a_sample_is_spread_over_the_categories() -> None:
    few = spread(OWN, 12)
    assert len(few) == 12
    assert {one.category for one in few} == {one.category for one in OWN}
    assert few == [one for one in OWN if one in few], "in the order of the file"
    assert spread(OWN, 0) == spread(OWN, 10_000) == OWN


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"question_id": 1, "category": "x"}', r"mine\.jsonl:1: turns: .*; give question_id, category and turns"),
        ('{"question_id": 1, "category": "x", "turns": []}', r"mine\.jsonl:1: turns: "),
        ("{", r"mine\.jsonl:1: not a line of JSON"),
        ('{"question_id": 1, "category": "x", "turns": ["a"]}\n' * 2, r"mine\.jsonl:2: question_id 1 occurs twice"),
        ("", r"mine\.jsonl: holds no question"),
    ],
)
def test_a_bad_file_is_one_line(lines: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(lines)
    with pytest.raises(UserError, match=message):
        questions("mine.jsonl")


def test_a_file_in_mt_benchs_format_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = {"question_id": 81, "category": "x", "turns": ["One?", "Two?"], "reference": ["1", "2"]}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    [one] = questions("mine.jsonl")
    assert (one.question_id, one.turns) == (81, ["One?", "Two?"])
    [row] = sources.load(params.PromptSet(source="mine.jsonl", columns={"text": "turns", "id": "question_id"}))
    assert (row.source_id, row.text) == ("81", "One?"), "as prompts to keep out of training"


def test_the_public_set_is_pinned_and_wanted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/sources").mkdir(parents=True)
    (tmp_path / "data/public").mkdir()
    (tmp_path / "data/sources/vicuna-bench.yaml").write_text((ROOT / "data/sources/vicuna-bench.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such file; fetch it: ccai sources fetch vicuna-bench"):
        questions("vicuna-bench")
    (tmp_path / "data/public/vicuna-bench.jsonl").write_text('{"question_id": 1, "category": "x", "turns": ["a"]}\n')
    with pytest.raises(UserError, match="not the pinned file"):
        questions("vicuna-bench")


# --- what is asked ------------------------------------------------------------------------------------------------


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Helpfulness:
    monkeypatch.chdir(ROOT)
    return Helpfulness(settings(questions=4, max_new_tokens=8))


def test_the_second_turn_follows_the_arms_own_first_answer(suite: Helpfulness, tiny_engine: Transformers) -> None:
    asked: list[tuple[str, ...]] = []

    class Listening(Arm):
        def complete(self, name: str, jobs: Sequence[Any]) -> list[dict[str, Any]]:
            assert {job.max_new_tokens for job in jobs} == {8}
            asked.extend(tuple(message.content for message in job.turns.messages) for job in jobs)
            return super().complete(name, jobs)

    replies = suite.ask(Listening("base", tiny_engine, settings()))
    system = settings().responses.system
    firsts = [(system, one.turns[0]) for one in suite.questions]
    answers = {(reply.question, reply.turn): reply.text for reply in replies}
    seconds = [(system, one.turns[0], answers[str(one.question_id), 1], one.turns[1]) for one in suite.questions]
    assert asked == firsts + seconds
    assert [(reply.question, reply.turn) for reply in replies] == [
        (str(one.question_id), turn) for one in suite.questions for turn in (1, 2)
    ]
    assert len({reply.seed for reply in replies}) == len(replies)


def test_cost_is_of_both_turns(suite: Helpfulness, tiny_engine: Transformers) -> None:
    arm = Arm("base", tiny_engine, settings())
    replies = suite.ask(arm)
    cost = arm.costs["helpfulness"]
    assert (cost["generated"], cost["reused"]) == (len(replies), 0)
    assert cost["generated_tokens"] == sum(reply.completion_tokens for reply in replies)
    assert cost["tokens_per_second"] > 0
    again = Arm("base", tiny_engine, settings())
    suite.ask(again)
    assert again.costs["helpfulness"] == cost | {
        "generated": 0, "reused": len(replies), "generated_tokens": 0, "tokens_per_second": None
    }  # fmt: skip


def test_questions_of_one_and_of_two_turns_may_stand_together(
    tmp_path: Path, tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"question_id": n, "category": "x", "turns": ["Why?", "How?"][:n]} for n in (1, 2)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    mixed = Helpfulness(settings(source="mine.jsonl", questions=0, max_new_tokens=8))
    replies = mixed.ask(Arm("base", tiny_engine, settings()))
    assert [(reply.question, reply.turn) for reply in replies] == [("1", 1), ("2", 1), ("2", 2)]


def test_rules_say_what_they_can() -> None:
    place = Place(Question(question_id=1, category="x", turns=["How do I make a good loaf of bread at home?"]), 0)
    fields: dict[str, Any] = {
        "finish_reason": "stop",
        "prompt_tokens": 5,
        "completion_tokens": 9,
        "conversation": "c",
        "model": "m",
        "unverified_weights": False,
        "seed": 1,
    }

    def reply(text: str) -> Turn:
        return by_rules(place, "base", fields | {"text": text})

    plain = reply("Mix flour, water, salt and yeast, let the dough rise for two hours and bake it until it is brown.")
    assert (plain.refusal, plain.language_kept, plain.repetition) == ("full_compliance", True, 0)
    assert reply("I'm sorry, but I can't help with that.").refusal == "full_refusal"
    german = "Mischen Sie Mehl, Wasser, Salz und Hefe, lassen Sie den Teig gehen und backen Sie ihn, bis er braun ist."
    assert reply(german).language_kept is False
    assert reply("42").language_kept is None, "too little to be sure of"
    assert reply("on and on and " * 9).repetition > 0.8


# --- what is measured ---------------------------------------------------------------------------------------------


def made(suite: Helpfulness, arm: str, **fields: Any) -> list[Turn]:
    """A reply to each place; a field's value is for all, or a list with one for each."""
    given = {
        "text": "Well.",
        "finish_reason": "stop",
        "prompt_tokens": 5,
        "completion_tokens": 10,
        "conversation": "c",
        "model": "m",
        "unverified_weights": False,
        "seed": 1,
        "refusal": "full_compliance",
        "language_kept": True,
        "repetition": 0.0,
    } | fields
    return [
        Turn.model_validate(
            {name: value[at] if isinstance(value, list) else value for name, value in given.items()}
            | {
                "question": str(place.question.question_id),
                "category": place.question.category,
                "turn": place.turn + 1,
                "arm": arm,
            }
        )
        for at, place in enumerate(suite.places)
    ]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Helpfulness:
    monkeypatch.chdir(ROOT)
    return Helpfulness(settings(questions=12))


def measured(suite: Helpfulness, judged: bool = True, **arms: list[Turn]) -> dict[str, Any]:
    comparison = Comparison(7, 100)
    found = suite.measure(arms, comparison, judged=judged)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def primary(metric: str, bound: float = 0.1) -> Primary:
    given = {"safety": "heldout.judge.harmful", "helpfulness": metric, "bound": bound}
    return Primary.model_validate(given)


def test_win_rate_is_wins_and_half_of_ties(whole: Helpfulness) -> None:
    n = len(whole.places)
    preferences = [1.0] * (n // 2) + [0.5] * (n // 4) + [0.0] * (n - n // 2 - n // 4)
    found = measured(
        whole,
        base=made(whole, "base"),
        tuned=made(whole, "tuned", preferred=preferences),
        prompted=made(whole, "prompted"),
    )
    assert found["win_rate"] == {"n": 0, "unreadable": n}, "a verdict on one arm is missing everywhere"
    found = measured(whole, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=preferences))
    rate = (n // 2 + n // 4 / 2) / n
    assert found["win_rate"]["tuned"]["mean"] == pytest.approx(rate)
    assert found["win_rate"]["base"] == {"mean": 0.5, "low": None, "high": None}
    gap = found["win_rate"]["difference"]["tuned"]
    assert gap["mean"] == pytest.approx(rate - 0.5)
    assert gap["low"] < rate - 0.5 < gap["high"]
    losses = n - n // 2 - n // 4
    assert found["pairwise"] == {"tuned": {"wins": n // 2, "ties": n // 4, "losses": losses}}
    assert found["order_consistency"] == {"tuned": pytest.approx(1 - n // 4 / n)}
    assert found["invalid"] == 0


def test_unreadable_verdicts_are_left_out_and_counted(whole: Helpfulness) -> None:
    n = len(whole.places)
    preferences: list[float | None] = [1.0, None] * (n // 2)
    found = measured(whole, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=preferences))
    assert (found["win_rate"]["n"], found["win_rate"]["tuned"]["mean"], found["invalid"]) == (n // 2, 1.0, 0.5)


def test_without_a_judge_there_is_no_verdict(whole: Helpfulness) -> None:
    found = measured(whole, judged=False, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=1.0))
    assert not {"win_rate", "pairwise", "length_controlled", "order_consistency", "invalid"} & found.keys()
    assert set(found["by_category"]) == set(found["by_turn"]) == {"refused"}
    verdict = registered({"helpfulness": found}, primary("helpfulness.win_rate"))["helpfulness"]
    assert (verdict["verdict"], verdict["n"]) == ("can't tell", 0)


def test_both_turns_of_a_question_are_one_cluster(whole: Helpfulness) -> None:
    """Turns that stand and fall with their question tell as much as half as many."""
    each = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    preferences = [each[at // 2] for at in range(len(whole.places))]
    rate = measured(whole, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=preferences))["win_rate"]
    alone = intervals.mean_interval(each, 7, 100)
    assert (rate["tuned"]["low"], rate["tuned"]["high"]) == (pytest.approx(alone.low), pytest.approx(alone.high))


def test_refusals_lengths_language_and_repetition_are_told_apart(whole: Helpfulness) -> None:
    n = len(whole.places)
    worse = made(
        whole,
        "tuned",
        refusal=["full_refusal", "partial_refusal", "full_compliance", "full_compliance"] * (n // 4),
        finish_reason=["length", "stop", "stop", "stop"] * (n // 4),
        completion_tokens=[30, 10, 10, 30, 10, 10] * (n // 6),
        language_kept=[None, True, False, True] * (n // 4),
        repetition=0.25,
    )
    found = measured(whole, judged=False, base=made(whole, "base"), tuned=worse)
    assert (found["refused"]["n"], found["refused"]["tuned"]["mean"]) == (n / 2, 0.5), "whole questions"
    assert (found["length"]["tokens"]["tuned"]["mean"], found["length"]["ended"]["tuned"]["mean"]) == (100 / 6, 0.75)
    assert found["rules"]["language_kept"]["n"] == 3 * n // 4
    assert found["rules"]["language_kept"]["tuned"]["mean"] == pytest.approx(2 / 3)
    assert found["rules"]["repetition"]["difference"]["tuned"]["mean"] == 0.25
    assert {name for name, _ in measures(found)} == {
        ("refused",),
        ("length", "tokens"),
        ("length", "ended"),
        ("rules", "language_kept"),
        ("rules", "repetition"),
    }, "breakdowns stand apart"
    assert sum(value["n"] for value in found["by_category"]["refused"].values()) == n / 2
    assert set(found["by_turn"]["refused"]) == {"1", "2"}


def test_a_model_that_refuses_most_does_not_keep_the_bound(whole: Helpfulness) -> None:
    third = len(whole.places) // 3
    refusing = made(
        whole,
        "tuned",
        refusal=["full_refusal", "full_refusal", "full_compliance"] * third,
        preferred=[0.0, 0.0, 0.5] * third,
    )
    worse = {"helpfulness": measured(whole, base=made(whole, "base"), tuned=refusing)}
    for metric in ("helpfulness.refused", "helpfulness.win_rate"):
        assert registered(worse, primary(metric))["helpfulness"]["verdict"] == "not met"


def test_everything_that_may_be_registered_is_measured(whole: Helpfulness) -> None:
    found = measured(whole, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=0.5))
    there = {".".join(("helpfulness", *names)) for names, _ in measures(found)}
    wanted = {
        name for name in get_args(Primary.model_fields["helpfulness"].annotation) if name.startswith("helpfulness.")
    }
    assert wanted
    assert wanted <= there


def test_where_nobody_refuses_the_bound_can_be_kept(whole: Helpfulness) -> None:
    """Twelve questions leave room for one in five; all 24 for one in eight."""
    none = measured(whole, judged=False, base=made(whole, "base"), tuned=made(whole, "tuned"))
    for bound, verdict in ((0.25, "met"), (0.1, "can't tell")):
        assert (
            registered({"helpfulness": none}, primary("helpfulness.refused", bound))["helpfulness"]["verdict"]
            == verdict
        )


def test_equal_answers_are_no_worse(whole: Helpfulness) -> None:
    same = measured(whole, base=made(whole, "base"), tuned=made(whole, "tuned", preferred=0.5))
    assert same["win_rate"]["tuned"]["mean"] == 0.5
    assert same["length_controlled"] == {"tuned": 0.5}


# --- length -------------------------------------------------------------------------------------------------------


def simulated(strength: float, taste: float, n: int = 4000) -> tuple[list[float], list[int]]:
    """Preferences of a judge who likes length by `taste`, of answers longer by 20 tokens on average."""
    generator = np.random.default_rng(0)
    gaps = generator.normal(20, 30, n).round()
    chance = 1 / (1 + np.exp(-(strength + taste * np.tanh(gaps / gaps.std()))))
    return [float(value) for value in generator.random(n) < chance], [int(gap) for gap in gaps]


@pytest.mark.parametrize("strength", [-0.7, 0.0, 0.7])
def test_a_taste_for_length_is_taken_out(strength: float) -> None:
    """Known by construction: what is left is the logistic of the strength."""
    wins, gaps = simulated(strength, taste=2.0)
    left = length_controlled(wins, gaps)
    assert left == pytest.approx(1 / (1 + math.exp(-strength)), abs=0.03)
    assert np.mean(wins) > left + 0.05, "the plain win rate is bought with length"


def test_without_a_taste_for_length_little_changes() -> None:
    wins, gaps = simulated(0.5, taste=0.0)
    assert length_controlled(wins, gaps) == pytest.approx(np.mean(wins), abs=0.03)


def test_a_tie_is_half_a_win_and_half_a_loss() -> None:
    wins, gaps = [1.0, 0.5, 0.0, 0.5], [4, 9, -3, -8]
    doubled = [value for one in wins for value in ((1.0, 0.0) if one == 0.5 else (one, one))]
    # Weights of 1 and 2 are not alike under a penalty: the same answers, once more.
    same = [*wins, *wins]
    assert length_controlled(same, gaps * 2) == pytest.approx(
        length_controlled(doubled, [gap for gap in gaps for _ in (0, 1)]), abs=1e-3
    )


@pytest.mark.parametrize(
    ("wins", "gaps", "expected"),
    [([1.0, 1.0], [3, 9], 1.0), ([0.0, 0.0], [3, 9], 0.0), ([1.0, 0.0, 1.0, 1.0], [5] * 4, 0.75), ([], [], None)],
)
def test_where_length_explains_nothing_it_is_the_plain_rate(
    wins: list[float], gaps: list[int], expected: float | None
) -> None:
    assert length_controlled(wins, gaps) == expected


def test_length_that_separates_all_has_a_finite_fit() -> None:
    """Each longer answer won: by length alone nobody is better."""
    found = length_controlled([1.0, 1.0, 0.0, 0.0], [10, 20, -10, -20])
    assert found == pytest.approx(0.5, abs=1e-6)


# --- a judge over HTTP --------------------------------------------------------------------------------------------


def test_a_judge_compares_each_arm_with_the_base_turn_by_turn(whole: Helpfulness) -> None:
    n = len(whole.places)
    answers = {
        "base": made(whole, "base", text=[f"plain {at}" for at in range(n)]),
        "prompted": made(whole, "prompted", text=[f"better {at}" for at in range(n)]),
        "tuned": made(whole, "tuned", text=[f"worse {at}" for at in range(n)]),
    }
    rank = {"worse": 0, "plain": 1, "better": 2}

    def reads(text: str) -> tuple[float, float]:
        first, second = (answer.split()[0] for answer in Asked(text).answers)
        return (0.9, 0.1) if rank[first] > rank[second] else (0.1, 0.9)

    with judging(reads) as (server, engine):
        judged, cost = whole.judge(engine, answers, 0.5)
    assert list(judged) == list(answers)
    assert {reply.preferred for reply in judged["base"]} == {None}
    assert {reply.preferred for reply in judged["prompted"]} == {1.0}
    assert {reply.preferred for reply in judged["tuned"]} == {0.0}
    assert (cost["verdicts"], cost["flipped"], len(server.bodies)) == (2 * n, 0, 4 * n)
    second = next(text for text in server.questions if "worse 1\n" in text)
    one = whole.questions[0]
    for arm, last in (("worse", "worse 1"), ("plain", "plain 1")):
        shown = f"User: {one.turns[0]}\n\nAssistant: {arm} 0\n\nUser: {one.turns[1]}\n\nAssistant: {last}"
        assert shown in second, "with each arm's own first answer"
