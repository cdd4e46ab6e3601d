"""Verdicts from label probabilities, from a judge behind real HTTP and from the default engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.judges import Judge, Question, Reader, judging, yes_or_no

from ccai.base.records import Answer, Message, Verdict
from ccai.constitution.principles import Principle
from ccai.engines.transformers import Transformers
from ccai.generate import completions
from ccai.judge import judge


def violations(reads: Reader, texts: Sequence[str] = ("Well.",)) -> list[float | None]:
    return asked(reads, texts)[1]


def asked(reads: Reader, texts: Sequence[str]) -> tuple[Judge, list[float | None]]:
    with judging(reads) as (server, engine):
        prompts = [f"Question {place} with {{braces}}?" for place in range(len(texts))]
        return server, judge.violations("test", engine, ["Be kind."] * len(texts), prompts, texts).values


def answer(place: int, text: str) -> Answer:
    return Answer(
        text=text,
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=10,
        conversation="c",
        model="org/tiny",
        unverified_weights=False,
        seed=1,
        prompt_id=f"p{place}",
        arm="base",
        hazard="none",
        refusal="full_compliance",
        scores={},
        harmful=None,
    )


def principle(slug: str, statement: str) -> Principle:
    return Principle(slug, slug.title(), statement, ("One criterion.", "Another."), "Criticise.", "Revise.", ())


@pytest.mark.parametrize("always", [(0.9, 0.05), (0.02, 0.9), (0.5, 0.5)])
def test_a_model_that_always_says_one_letter_says_nothing(always: tuple[float, float]) -> None:
    assert violations(lambda text: always) == [pytest.approx(0.5)]


def test_a_model_that_reads_is_believed_in_both_orders() -> None:
    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        return yes_or_no(question, 8 / 9 if "poison" in question.answers[0] else 1 / 9, readable=0.9)

    assert violations(reads, ["poison it", "be kind"]) == [pytest.approx(8 / 9), pytest.approx(1 / 9)]


def test_both_orders_are_asked_with_rule_prompt_and_answer_as_they_are() -> None:
    server, _ = asked(lambda text: (0.6, 0.3), ["costs {x}", "B) Yes"])
    questions = [Question(text) for text in server.questions]
    assert sorted((*question.answers, question.a_is) for question in questions) == sorted(
        (text, option) for text in ("costs {x}", "B) Yes") for option in (judge.VIOLATES, judge.KEEPS)
    )
    assert {question.rule for question in questions} == {"Be kind."}
    assert sum("A user wrote:\nQuestion 0 with {braces}?\n" in text for text in server.questions) == 2


def test_both_orders_share_all_but_the_options() -> None:
    """An engine that keeps prefixes reads rule, prompt and answer once."""
    server, _ = asked(lambda text: (0.6, 0.3), ["Well."])
    one, other = server.questions
    assert one[: one.index("\nA) ")] == other[: other.index("\nA) ")]


@pytest.mark.parametrize("unsure_at", [True, False])
def test_unreadable_in_either_order_is_none(unsure_at: bool) -> None:
    def mumbles(text: str) -> tuple[float, float]:
        return (0.3, 0.19) if (Question(text).a_is == judge.VIOLATES) == unsure_at else (0.6, 0.3)

    assert violations(mumbles) == [None]
    assert violations(lambda text: (0.3, 0.21)) != [None]


def preferences(reads: Reader) -> list[float | None]:
    with judging(reads) as (_, engine):
        return judge.preferences("test", engine, ["Be kind."], ["Well?"], ["one"], ["two"]).values


def test_preference_needs_both_orders() -> None:
    def prefers(text: str) -> tuple[float, float]:
        return (0.7, 0.2) if Question(text).answers == ["one", "two"] else (0.3, 0.6)

    assert preferences(prefers) == [1.0]
    assert preferences(lambda text: prefers(text)[::-1]) == [0.0]
    assert preferences(lambda text: (0.9, 0.1)) == [0.5], "the first place wins in both orders: a tie"
    assert preferences(lambda text: (0.45, 0.45)) == [0.5]
    assert preferences(lambda text: (0.9, 0.1) if Question(text).answers[0] == "one" else (0.2, 0.2)) == [None]


KIND, PLAIN = principle("kindness", "Be kind."), principle("plainness", "Be plain.")

UPRIGHT = {"violation": 0.5, "addresses": 0.5}
"""The cuts of a judge that does not lean."""


def by_words(text: str) -> tuple[float, float]:
    """Reads rule and answer: `cruel` is unkind, `opaque` is not plain, `elsewhere` is off the topic."""
    question = Question(text)
    if question.kind == "addresses":
        return yes_or_no(question, 0.1 if "elsewhere" in question.answers[0] else 0.9)
    assert question.rule is not None
    word = "cruel" if question.rule.startswith("Be kind.\n- One criterion.\n- Another.") else "opaque"
    breaks = [0.75 if word in given else 0.25 for given in question.answers]
    if question.kind == "violation":
        return yes_or_no(question, breaks[0])
    return (0.5, 0.5) if breaks[0] == breaks[1] else (0.8, 0.2) if breaks[0] < breaks[1] else (0.2, 0.8)


def test_verdicts_come_in_the_order_of_the_pairs() -> None:
    principles = [KIND, PLAIN, KIND, PLAIN]
    responses = ["cruel", "cruel", "fine", "fine"]
    revisions = ["gentle", "clear", "cruel elsewhere", "opaque"]
    with judging(by_words) as (server, engine):
        prompts = ["One?", "One?", "Two?", "Two?"]
        found, cost = judge.verdicts("test", engine, principles, prompts, responses, revisions, UPRIGHT)
        again, free = judge.verdicts(
            "test", engine, principles[::-1], prompts[::-1], responses[::-1], revisions[::-1], UPRIGHT
        )

    assert [(verdict.preference, round(verdict.addresses or 0, 6)) for verdict in found] == [
        ("chosen", 0.9),
        ("tie", 0.9),
        ("rejected", 0.1),
        ("rejected", 0.9),
    ]
    assert [verdict.rejected_violation for verdict in found] == pytest.approx([0.75, 0.25, 0.25, 0.25])
    assert [verdict.chosen_violation for verdict in found] == pytest.approx([0.25, 0.25, 0.75, 0.75])
    # Of each pair two answers, a preference and the topic, each in two orders.
    assert (cost["generated"], cost["reused"]) == (len(server.bodies), 0) == (32, 0)
    assert (free["generated"], free["reused"]) == (0, 32)
    assert again == found[::-1]


def test_verdicts_are_read_at_the_judges_own_cuts() -> None:
    """Probabilities are shifted so that a half is where its verdict turns; preferences have no cut."""
    asked = [KIND] * 2, ["One?"] * 2, ["cruel", "fine"], ["gentle", "cruel elsewhere"]
    with judging(by_words) as (_, engine):
        upright = judge.verdicts("test", engine, *asked, UPRIGHT).verdicts
        leaning = judge.verdicts("test", engine, *asked, {"violation": 0.75, "addresses": 0.1}).verdicts
    assert [verdict.rejected_violation for verdict in leaning] == pytest.approx([0.5, 0.1])
    assert [verdict.chosen_violation for verdict in leaning] == pytest.approx([0.1, 0.5])
    assert [verdict.addresses for verdict in leaning] == pytest.approx([81 / 82, 0.5])
    assert [verdict.preference for verdict in leaning] == [verdict.preference for verdict in upright]


def test_harm_is_read_at_the_judges_own_cut() -> None:
    given = {"base": [answer(place, text) for place, text in enumerate(["cruel", "gentle", "mumbled"])]}

    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        return (0.1, 0.1) if question.answers == ["mumbled"] else yes_or_no(question, by_word[question.answers[0]])

    by_word = {"cruel": 0.8, "gentle": 0.6}
    with judging(reads) as (_, engine):
        by_arm, _ = judge.harm("test", engine, ["One?", "Two?", "Three?"], given, 0.7)
    cruel, gentle, mumbled = (one.harmful for one in by_arm["base"])
    assert cruel == pytest.approx(4 / (4 + 7 / 3))
    assert gentle == pytest.approx(1.5 / (1.5 + 7 / 3))
    assert mumbled is None


def test_an_answer_is_asked_about_once_for_each_principle() -> None:
    """Rounds share their first answer."""
    with judging(by_words) as (_, engine):
        _, cost = judge.verdicts("test", engine, [KIND] * 3, ["One?"] * 3, ["cruel"] * 3, ["a", "b", "c"], UPRIGHT)
    assert (cost["generated"], cost["reused"]) == (2 + 6 + 6 + 6, 4)


def test_principle_without_a_statement_is_what_its_critic_is_told() -> None:
    """As in the JSON format."""
    told = Principle("p", "P", "", (), "Say where it is unkind.", "Revise.", ())
    assert judge.rule(told).endswith(": Say where it is unkind.")
    with judging(lambda text: (0.8, 0.1)) as (server, engine):
        judge.verdicts("test", engine, [told], ["Well?"], ["one"], ["two"], UPRIGHT)
    assert sum(Question(text).rule == judge.rule(told) for text in server.questions) == 6


def test_no_pairs_no_verdicts() -> None:
    with judging(by_words) as (server, engine):
        assert judge.verdicts("test", engine, [], [], [], [], UPRIGHT).verdicts == []
    assert server.bodies == []


def test_harm_is_the_violation_of_a_rule_of_our_own() -> None:
    given = [answer(place, text) for place, text in enumerate(["cruel", "gentle"])]

    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        assert question.rule == judge.HARM
        return yes_or_no(question, 0.75 if "cruel" in question.answers[0] else 0.25)

    with judging(reads) as (_, engine):
        by_arm, cost = judge.harm("test", engine, ["Question 0?", "Question 1?"], {"base": given}, 0.5)
    judged = by_arm["base"]
    assert [one.harmful for one in judged] == [pytest.approx(0.75), pytest.approx(0.25)]
    assert [one.model_copy(update={"harmful": None}) for one in judged] == given
    assert (cost["generated"], cost["reused"], cost["device"]) == (4, 0, "endpoint")


def test_each_arms_answers_are_judged_with_their_own_prompts() -> None:
    texts = {"base": ["cruel", "gentle"], "tuned": ["clear", "opaque"]}
    given = {arm: [answer(place, text) for place, text in enumerate(both)] for arm, both in texts.items()}
    with judging(lambda text: (0.6, 0.3)) as (server, engine):
        judge.harm("test", engine, ["Question 0?", "Question 1?"], given, 0.5)
    asked = {tuple(re.findall(r"Question (\d)\?|answered:\n(\w+)", text)) for text in server.questions}
    assert {(prompt, said) for ((prompt, _), (_, said)) in asked} == {
        (str(place), text) for both in texts.values() for place, text in enumerate(both)
    }


def test_real_engine_that_cannot_judge_is_unreadable(tiny_engine: Transformers) -> None:
    """Random weights spread their probability over all tokens."""
    [verdict], runtime = judge.verdicts("test", tiny_engine, [KIND], ["Well?"], ["No."], ["Yes."], UPRIGHT)
    assert verdict == Verdict(rejected_violation=None, chosen_violation=None, preference=None, addresses=None)
    assert (runtime["generated"], runtime["device"]) == (8, "cpu")


# --- helpfulness --------------------------------------------------------------------------------------------------


def said(*turns: str) -> list[Message]:
    roles = ("system", "user", "assistant", "user", "assistant")
    return [Message(role=role, content=turn) for role, turn in zip(roles, turns, strict=False)]  # type: ignore[arg-type]


def test_helpfulness_shows_both_conversations_whole_and_needs_both_orders() -> None:
    one = said("Be brief.", "First {x}?", "one", "Then?", "more")
    other = said("Be brief.", "First {x}?", "two", "Then?", "less")

    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        assert question.kind == "helpful"
        return (0.8, 0.1) if question.answers[0] == "more" else (0.1, 0.8)

    with judging(reads) as (server, engine):
        found, cost, orders = judge.helpfulness("test", engine, [one, other, one], [other, one, one])
    assert found == [1.0, 0.0, 0.5]
    assert orders == [pytest.approx(both) for both in ((8 / 9, 8 / 9), (1 / 9, 1 / 9), (8 / 9, 1 / 9))]
    assert (cost["verdicts"], cost["unreadable"], cost["flipped"]) == (3, 0, 1)
    shown = "User: First {x}?\n\nAssistant: one\n\nUser: Then?\n\nAssistant: more"
    assert all(shown in text for text in server.questions)
    assert not any("Be brief." in text for text in server.questions)


# --- what is counted ----------------------------------------------------------------------------------------------


def test_flips_and_unreadable_verdicts_are_counted_and_summed() -> None:
    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        kind = question.answers[0]
        return (0.9, 0.1) if kind == "letter" else (0.1, 0.1) if kind == "mumbled" else yes_or_no(question, 0.9)

    with judging(reads) as (_, engine):
        first = judge.violations("test", engine, ["R"] * 3, ["Q"] * 3, ["letter", "mumbled", "read"]).runtime
        second = judge.violations("test", engine, ["R"], ["Q"], ["letter again"]).runtime
    assert [first[name] for name in judge.COUNTS] == [3, 1, 1]
    together = completions.total([first, second], judge.COUNTS)
    assert [together[name] for name in judge.COUNTS] == [4, 1, 1]
    assert together["generated"] == 8


# --- who is of one family -----------------------------------------------------------------------------------------


CATALOGUE = """\
qwen2.5-7b: {hub: Qwen/Qwen2.5-7B-Instruct, revision: a, licence: x}
served: {endpoints: ["http://127.0.0.1:1/v1"], model: Qwen/Qwen2.5-72B-Instruct, revision: b}
renamed: {endpoints: ["http://127.0.0.1:1/v1"], model: judge-of-ours, revision: c, family: Qwen2.5}
"""


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("qwen2.5-7b", "qwen2.5"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5"),
        ("Qwen/Qwen2.5-0.5B@0123", "qwen2.5"),
        ("served", "qwen2.5"),
        ("renamed", "qwen2.5"),
        ("smollm2-135m-q4_1", "smollm2"),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1"),
        ("local/my-model", "my-model"),
        ("local/bb-8bit", "bb-8bit"),
    ],
)
def test_family_is_declared_or_the_name_up_to_the_size(
    name: str, stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/models.yaml").write_text(CATALOGUE)
    monkeypatch.chdir(tmp_path)
    assert judge.family(name) == stem


def test_relatives_are_of_the_same_weights_or_family(
    tiny_engine: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/models.yaml").write_text(CATALOGUE)
    monkeypatch.chdir(tmp_path)
    judged = {"local/copy": tiny_engine.revision, "other/tiny-3b": "x", "Qwen/Qwen2.5-7B-Instruct": "y"}
    assert judge.relatives("eval", tiny_engine, judged) == ["local/copy", "other/tiny-3b"]
    assert judge.relatives("eval", tiny_engine, {"Qwen/Qwen2.5-7B-Instruct": "y"}) == []
