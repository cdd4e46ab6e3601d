"""Which pairs are kept, by gate; and the split, which no order and no principle may cross."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from ccai import pairs
from ccai.errors import UserError
from ccai.pairs import Built, build
from ccai.params import Pairs
from ccai.records import Prompt, Response, Revision

PARAMS = Pairs(validation_share=0.2, min_words=4, max_similarity=0.95)
REJECTED = "Just forget it and move on, nobody will care about that anyway."
CHOSEN = "That sounds painful. Would it help to talk it through with a friend tonight?"


def prompt(name: str, hazard: str = "none") -> Prompt:
    return Prompt(
        prompt_id=name,
        text=f"Question {name}?",
        source="ours",
        source_id=name,
        hazard=hazard,
        persona="normal",
        principle="care",
        split="train",
    )


def completion(text: str, **fields: Any) -> dict[str, Any]:
    given = {"finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 10, "conversation": "c", "seed": 1}
    return given | {"text": text, "model": "org/tiny", "unverified_weights": False} | fields


def response(name: str, text: str = REJECTED, **fields: Any) -> Response:
    return Response(prompt_id=name, **completion(text, **fields))


def revision(name: str, text: str = CHOSEN, principle: str = "care", **fields: Any) -> Revision:
    step = {"principle": principle, "round": 1, "principle_sha256": "s", "parent": "c"}
    return Revision(prompt_id=name, **step, **completion(text, **fields))


NAMES = [f"p{number:02}" for number in range(20)]


def built(
    extra: Sequence[Revision] = (),
    changed: Sequence[Response] = (),
    params: Pairs = PARAMS,
    system: str = "Be brief.",
    seed: int = 7,
) -> Built:
    """Twenty good pairs, and what a test adds."""
    responses = [response(name) for name in NAMES]
    revisions = [revision(name, f"{CHOSEN} ({name})") for name in NAMES]
    return build([prompt(name) for name in NAMES], [*responses, *changed], [*revisions, *extra], params, system, seed)


def reasons(result: Built) -> list[tuple[str, str]]:
    return [(pair.principle, pair.reason) for pair in result.dropped]


def test_good_pairs_are_kept_with_where_they_came_from() -> None:
    result = built()
    assert result.dropped == []
    [pair] = [pair for pair in [*result.train, *result.validation] if pair.prompt_id == "p03"]
    assert [(m.role, m.content) for m in pair.prompt] == [("system", "Be brief."), ("user", "Question p03?")]
    assert [(m.role, m.content) for m in pair.chosen] == [("assistant", f"{CHOSEN} (p03)")]
    assert [(m.role, m.content) for m in pair.rejected] == [("assistant", REJECTED)]
    assert (pair.principle, pair.hazard, pair.round, pair.chosen_model) == ("care", "none", 1, "org/tiny")


def test_without_a_system_message_there_is_none() -> None:
    result = built(system="")
    assert [message.role for message in result.train[0].prompt] == ["user"]


GATED = [
    ("chosen_truncated", {"finish_reason": "length"}),
    ("too_short", {"text": "Please ask her."}),
    ("repetitive", {"text": "I am here for you. " * 6}),
    ("meta_talk", {"text": "Here is the revised response: talk to her about it tonight."}),
    ("meta_talk", {"text": "**\"Here's a better version of it: talk to her tonight."}),
    ("meta_talk", {"text": "The previous answer was too harsh, so talk to her tonight."}),
    ("meta_talk", {"text": "Revision: talk to her about it tonight."}),
    ("meta_talk", {"text": "This response lacks any warmth, so here is more of it."}),
    ("unchanged", {"text": REJECTED.upper() + "!!"}),
]


@pytest.mark.parametrize(("gate", "fields"), GATED)
def test_gate(gate: str, fields: dict[str, Any]) -> None:
    result = built([revision("p00", principle="extra", **{"text": CHOSEN} | fields)])
    assert reasons(result) == [("extra", gate)]
    assert pairs.summary(result)["dropped_by"][gate] == 1
    assert pairs.summary(result)["kept"] == 20


@pytest.mark.parametrize(
    "text",
    [
        "Please do ask her.",  # four words are enough
        "There is a new friend waiting for you out there, and the answer may be time.",
        "Here are three ways to begin: call her, write to her, or wait a while.",
        "I hear you. I hear you and I care about what comes next for you.",
        f"{REJECTED} And yet, call one friend today.",
    ],
)
def test_no_gate_for(text: str) -> None:
    assert reasons(built([revision("p00", text, principle="extra")])) == []


def test_cut_first_answer_takes_all_its_revisions() -> None:
    cut = response("p00", finish_reason="length")
    result = built([revision("p00", CHOSEN, principle="extra")], changed=[cut])
    assert reasons(result) == [("care", "rejected_truncated"), ("extra", "rejected_truncated")]


def test_first_gate_that_applies_is_recorded() -> None:
    everything = revision("p00", "Revision: no.", principle="extra", finish_reason="length")
    assert reasons(built([everything])) == [("extra", "chosen_truncated")]
    short = revision("p00", "Revision: no.", principle="extra")
    assert reasons(built([short])) == [("extra", "too_short")]
    assert list(pairs.summary(built([short]))["dropped_by"]) == list(pairs.GATES)


def test_same_revision_by_two_principles_counts_once_but_not_for_two_prompts() -> None:
    again = revision("p00", f"{CHOSEN} (p00)", principle="extra")
    elsewhere = revision("p01", f"{CHOSEN} (p00)", principle="extra")
    assert reasons(built([again, elsewhere])) == [("extra", "duplicate")]


def test_thresholds_are_the_parameters() -> None:
    near = revision("p00", REJECTED.replace("care", "worry"), principle="extra")
    assert reasons(built([near])) == []
    assert reasons(built([near], params=PARAMS.model_copy(update={"max_similarity": 0.9}))) == [("extra", "unchanged")]
    short = revision("p00", "Ask her.", principle="extra")
    assert reasons(built([short], params=PARAMS.model_copy(update={"min_words": 2}))) == []


# --- split --------------------------------------------------------------------------------------------------


def several() -> list[Revision]:
    return [
        revision(name, f"{CHOSEN} {principle} {name}", principle) for name in NAMES for principle in ("a", "b", "c")
    ]


def test_no_prompt_is_on_both_sides_and_all_its_pairs_are_together() -> None:
    result = built(several())
    train, validation = ({pair.prompt_id for pair in side} for side in (result.train, result.validation))
    assert train.isdisjoint(validation)
    assert len(validation) == 4  # a fifth of twenty
    assert (len(result.train), len(result.validation)) == (64, 16)


def test_order_means_nothing() -> None:
    prompts, responses = [prompt(name) for name in NAMES], [response(name) for name in NAMES]
    expected = build(prompts, responses, several(), PARAMS, "", 7)
    for seed in range(5):
        shuffled = [random.Random(seed).sample(rows, len(rows)) for rows in (prompts, responses, several())]
        result = build(*shuffled, PARAMS, "", 7)  # type: ignore[arg-type]
        for side, wanted in ((result.train, expected.train), (result.validation, expected.validation)):
            assert sorted(side, key=lambda pair: pair.pair_id) == sorted(wanted, key=lambda pair: pair.pair_id)


def test_split_is_by_seed() -> None:
    held_out = {pair.prompt_id for pair in built().validation}
    assert held_out == {pair.prompt_id for pair in built(system="Another.").validation}
    assert held_out != {pair.prompt_id for pair in built(seed=8).validation}


@pytest.mark.parametrize(
    ("count", "share", "validation"), [(2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2), (20, 0.15, 3), (20, 0.01, 1)]
)
def test_neither_side_is_ever_empty(count: int, share: float, validation: int) -> None:
    names = NAMES[:count]
    result = build(
        [prompt(name) for name in names],
        [response(name) for name in names],
        [revision(name) for name in names],
        PARAMS.model_copy(update={"validation_share": share}),
        "",
        7,
    )
    assert (len(result.validation), len(result.train)) == (validation, count - validation)


@pytest.mark.parametrize("good", [0, 1])
def test_too_few_is_one_line_with_the_gates(good: int) -> None:
    names = NAMES[:4]
    revisions = [revision(name) if at < good else revision(name, "No.") for at, name in enumerate(names)]
    with pytest.raises(UserError) as error:
        build([prompt(n) for n in names], [response(n) for n in names], revisions, PARAMS, "", 7)
    assert str(error.value).startswith(
        f"pairs: {good} of 4 pairs passed the gates (too_short {4 - good}), too few to train and validate"
    )


@pytest.mark.parametrize("missing", ["prompt", "response"])
def test_records_that_do_not_belong_together(missing: str) -> None:
    prompts = [prompt(name) for name in NAMES if (name, missing) != ("p05", "prompt")]
    responses = [response(name) for name in NAMES if (name, missing) != ("p05", "response")]
    with pytest.raises(UserError, match=r"data/revisions\.jsonl: prompt p05 has no prompt or response; run dvc repro"):
        build(prompts, responses, [revision(name) for name in NAMES], PARAMS, "", 7)


# --- counts -------------------------------------------------------------------------------------------------


def test_summary_counts_by_hand() -> None:
    prompts = [prompt("a", "privacy"), prompt("b"), prompt("c")]
    revisions = [
        revision("a", CHOSEN, "care", completion_tokens=30),
        revision("a", f"{CHOSEN} Or write.", "openness", completion_tokens=10),
        revision("b", CHOSEN, "care", completion_tokens=20),
        revision("c", "No.", "care"),
    ]
    responses = [response("a"), response("b", completion_tokens=20), response("c")]
    counts = pairs.summary(build(prompts, responses, revisions, PARAMS, "", 7))
    assert (counts["kept"], counts["dropped"], counts["train"] + counts["validation"]) == (3, 1, 3)
    assert counts["dropped_by"] == dict.fromkeys(pairs.GATES, 0) | {"too_short": 1}
    assert counts["kept_by_principle"] == {"care": 2, "openness": 1}
    assert counts["kept_by_hazard"] == {"none": 1, "privacy": 2}
    assert counts["length_ratio"] == 60 / 40


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three four", 0.0),
        ("", 0.0),
        ("a b c", 0.0),
        ("a b c a b c a b c", 4 / 7),  # abc bca cab abc bca cab abc
        ("A b C, a B c!", 1 / 4),  # abc bca cab abc
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert pairs.repetition(text) == pytest.approx(share)


def test_similarity() -> None:
    assert pairs.similarity("The cat sat.", "the CAT sat") == 1.0
    assert pairs.similarity("a b c d", "w x y z") == 0.0
    assert pairs.similarity("a b c d", "a b x d") == pytest.approx(0.75)  # 2 * 3 of 8
