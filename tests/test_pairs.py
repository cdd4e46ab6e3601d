"""Which pairs are kept and which gate takes the others; the split, which no order and no principle may cross."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.pairs import CHOSEN, NAMES, PARAMS, REJECTED, build, built, prompt, response, revision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from ccai.base import files
from ccai.base.errors import UserError
from ccai.base.params import Pairs
from ccai.base.records import Demonstration, DroppedPair, Message, Pair, Response, Revision, Verdict
from ccai.pairs import build as pairs
from ccai.pairs.gates import GATES


def with_params(**changes: Any) -> Pairs:
    return PARAMS.model_copy(update=changes)


def test_good_pairs_are_kept_with_where_they_came_from() -> None:
    result = built()
    assert result.dropped == []
    [pair] = [pair for pair in [*result.train, *result.validation] if pair.prompt_id == "p03"]
    assert [(m.role, m.content) for m in pair.prompt] == [("system", "Be brief."), ("user", "Question p03?")]
    assert [(m.role, m.content) for m in pair.chosen] == [("assistant", f"{CHOSEN} (p03)")]
    assert [(m.role, m.content) for m in pair.rejected] == [("assistant", REJECTED)]
    assert (pair.principle, pair.hazard, pair.round, pair.chosen_model) == ("care", "none", 1, "org/tiny")


def test_models_and_tokens_are_those_of_their_sides() -> None:
    first = response("p00", model="org/answers", completion_tokens=31)
    [pair] = [
        pair
        for side in built([revision("p00", CHOSEN, "extra", model="org/revises", completion_tokens=17)], [first])[:2]
        for pair in side
        if pair.principle == "extra"
    ]
    assert (pair.chosen_model, pair.rejected_model) == ("org/revises", "org/answers")
    assert (pair.chosen_tokens, pair.rejected_tokens) == (17, 31)


def test_without_a_system_message_there_is_none() -> None:
    result = built(system="")
    assert [message.role for message in result.train[0].prompt] == ["user"]


def test_a_gate_takes_a_pair_and_is_counted() -> None:
    result = built([revision("p00", "Please ask her.", principle="extra")])
    assert result.dropped == [("extra", "too_short")]
    assert result.metrics["dropped_by"] == dict.fromkeys(GATES, 0) | {"too_short": 1}
    assert result.metrics["dropped_by_principle"] == {"extra": {"too_short": 1}}
    assert result.metrics["kept"] == 20


def test_cut_first_answer_takes_all_its_revisions() -> None:
    cut = response("p00", finish_reason="length")
    result = built([revision("p00", CHOSEN, principle="extra")], changed=[cut])
    assert result.dropped == [("care", "rejected_truncated"), ("extra", "rejected_truncated")]


def test_first_gate_that_applies_is_recorded() -> None:
    everything = revision("p00", "Revision: no.", principle="extra", finish_reason="length")
    assert built([everything]).dropped == [("extra", "chosen_truncated")]
    short = revision("p00", "Revision: no.", principle="extra")
    assert built([short]).dropped == [("extra", "too_short")]


def test_same_words_by_two_principles_count_once_but_not_for_two_prompts() -> None:
    again = revision("p00", f"{CHOSEN.upper()} (p00)", principle="extra")
    elsewhere = revision("p01", f"{CHOSEN} (p00)", principle="extra")
    assert [gate for _, gate in built([again, elsewhere]).dropped] == ["duplicate"]


def test_which_duplicate_stays_is_not_a_matter_of_order() -> None:
    same = [revision("p00", CHOSEN, principle=name) for name in ("a", "b", "c", "d", "e")]
    kept = {
        pair.principle
        for order in (same, same[::-1])
        for side in built(order)[:2]
        for pair in side
        if pair.prompt_id == "p00" and pair.principle != "care"
    }
    assert len(kept) == 1


def test_pairs_too_long_for_training_are_dropped() -> None:
    result = built([revision("p00", f"{CHOSEN} And endless.", principle="extra")], long="endless")
    assert result.dropped == [("extra", "over_length")]


VERDICT = Verdict(rejected_violation=0.9, chosen_violation=0.1, preference="chosen", addresses=0.9)


@pytest.mark.parametrize(
    ("changes", "require", "gate"),
    [
        ({}, True, None),
        ({"rejected_violation": 0.4}, True, "no_violation"),
        ({"rejected_violation": 0.4}, False, None),
        ({"preference": "rejected"}, False, "prefers_original"),
        ({"preference": "tie"}, False, None),
        ({"addresses": 0.4}, False, "off_topic"),
        ({"rejected_violation": None, "preference": None, "addresses": None}, True, None),
    ],
)
def test_gates_of_the_judge(changes: dict[str, Any], require: bool, gate: str | None) -> None:
    verdict = VERDICT.model_copy(update=changes)
    params = with_params(judge=True, require_violation=require)
    revisions = [
        revision(name, f"{CHOSEN} {principle}", principle) for name in NAMES for principle in ("care", "extra")
    ]
    verdicts = [verdict if (r.prompt_id, r.principle) == ("p00", "extra") else None for r in revisions]
    result = build(
        [prompt(name) for name in NAMES], [response(name) for name in NAMES], revisions, params, verdicts=verdicts
    )
    assert result.dropped == ([("extra", gate)] if gate else [])
    if not gate:
        [kept] = [pair for side in result[:2] for pair in side if pair.verdict is not None]
        assert kept.verdict == verdict


@pytest.mark.parametrize("by", ["principle", "hazard"])
def test_balance_leaves_all_the_same_number_whatever_the_order(by: str) -> None:
    prompts = [prompt(name, "prv" if name < "p05" else "none") for name in NAMES]
    revisions = [revision(name, f"{CHOSEN} {name}", "care") for name in NAMES]
    revisions += [revision(name, f"{CHOSEN} Or {name}", "openness") for name in NAMES[:4]]
    results = [
        build(prompts, [response(name) for name in NAMES], order, with_params(balance=by))
        for order in (revisions, revisions[::-1])
    ]
    wanted = {"care": 4, "openness": 4} if by == "principle" else {"none": 9, "prv": 9}
    assert results[0].metrics[f"kept_by_{by}"] == wanted
    ids = [{pair.pair_id for side in result[:2] for pair in side} for result in results]
    assert ids[0] == ids[1]
    assert results[0].metrics["dropped_by"]["balance"] == len(revisions) - results[0].metrics["kept"]


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
    expected = build(prompts, responses, several())
    for seed in range(5):
        shuffled = [random.Random(seed).sample(rows, len(rows)) for rows in (prompts, responses, several())]
        result = build(*shuffled)  # type: ignore[arg-type]
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
        with_params(validation_share=share),
    )
    assert (len(result.validation), len(result.train)) == (validation, count - validation)


@pytest.mark.parametrize("good", [0, 1])
def test_too_few_is_one_line_with_the_gates(good: int) -> None:
    names = NAMES[:4]
    revisions = [revision(name) if at < good else revision(name, "No.") for at, name in enumerate(names)]
    with pytest.raises(UserError) as error:
        build([prompt(n) for n in names], [response(n) for n in names], revisions)
    assert str(error.value).startswith(
        f"pairs: {good} of 4 pairs passed the gates (too_short {4 - good}), too few to train and validate"
    )


@pytest.mark.parametrize("missing", ["prompt", "response"])
def test_records_that_do_not_belong_together(missing: str) -> None:
    prompts = [prompt(name) for name in NAMES if (name, missing) != ("p05", "prompt")]
    responses = [response(name) for name in NAMES if (name, missing) != ("p05", "response")]
    with pytest.raises(UserError, match=r"data/revisions\.jsonl: .*p05"):
        build(prompts, responses, [revision(name) for name in NAMES])


# --- counts -------------------------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    prompts = [prompt("a", "privacy"), prompt("b"), prompt("c")]
    revisions = [
        revision("a", CHOSEN, "care", completion_tokens=30),
        revision("a", f"{CHOSEN} Or write.", "openness", completion_tokens=10),
        revision("b", CHOSEN, "care", completion_tokens=20),
        revision("c", "No.", "care"),
    ]
    responses = [response("a"), response("b", completion_tokens=20), response("c")]
    counts = build(prompts, responses, revisions).metrics
    assert (counts["kept"], counts["dropped"], counts["train"] + counts["validation"]) == (3, 1, 3)
    assert counts["kept_by_principle"] == {"care": 2, "openness": 1}
    assert counts["kept_by_hazard"] == {"none": 1, "privacy": 2}
    assert counts["kept_by_source"] == {"ours": 3}
    assert counts["length_ratio"] == 60 / 40


# --- files --------------------------------------------------------------------------------------------------


def test_files_hold_each_pair_once_and_the_chosen_answers_to_imitate(tmp_path: Path) -> None:
    by_id = {name: prompt(name) for name in NAMES}
    answers = {name: response(name) for name in NAMES}
    revisions = [revision(name, f"{CHOSEN} {name}" if name > "p02" else "No.") for name in NAMES]
    found = list(pairs.candidates(pairs.joined(by_id, answers, revisions), "Be brief."))
    fates = pairs.decide(found, PARAMS, 7, lambda asked: [False] * len(asked))
    extra = Demonstration(
        messages=[Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")],
        prompt_id="h",
        source="mine.jsonl",
        principle="none",
        pair_id=None,
    )
    tally = pairs.write(tmp_path, found, fates, {"train": [extra], "validation": []})
    kept = {side: files.read(tmp_path / f"{side}.jsonl", Pair) for side in pairs.SIDES}
    dropped = files.read(tmp_path / "dropped.jsonl", DroppedPair)
    assert [pair.reason for pair in dropped] == ["too_short"] * 3
    assert sorted(pair.prompt_id for side in (*kept.values(), dropped) for pair in side) == NAMES
    assert tally.metrics()["demonstrations"] == {"train": 1, "validation": 0}
    for side, there in kept.items():
        sft = files.read(tmp_path / f"sft/{side}.jsonl", Demonstration)
        assert [one.messages for one in sft if one.pair_id] == [[*pair.prompt, *pair.chosen] for pair in there]
        assert [one for one in sft if not one.pair_id] == ([extra] if side == "train" else [])


def test_index_reads_what_it_is_asked_for(tmp_path: Path) -> None:
    rows = [response(name, f"Ä {name}\u2028!") for name in NAMES]
    files.write(tmp_path / "rows.jsonl", rows)
    index = files.Index(tmp_path / "rows.jsonl", Response)
    assert [index[name] for name in reversed(NAMES)] == rows[::-1]
    assert "p05" in index
    assert "p99" not in index
    (tmp_path / "rows.jsonl").write_bytes(files.line(rows[0]) + b"{}\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: text: field required"):
        files.Index(tmp_path / "rows.jsonl", Response)


# --- whatever the models write ------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "?!",
    "好的，我明白了。",
    "\u202e\u0000",
    "a" * 500,
    "no no no no no no",
    REJECTED,
    CHOSEN,
    "x\n\nHuman: y",
]
TEXTS = some.one_of(some.sampled_from(ODD), some.text(max_size=60), some.text("ab ", max_size=40))
ROWS = some.lists(
    some.tuples(some.integers(0, 4), some.sampled_from(["a", "b", "c"]), TEXTS, some.booleans()), max_size=25
)
VERDICTS = some.none() | some.builds(
    Verdict,
    rejected_violation=some.none() | some.floats(0, 1),
    chosen_violation=some.none() | some.floats(0, 1),
    preference=some.sampled_from(["chosen", "rejected", "tie", None]),
    addresses=some.none() | some.floats(0, 1),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    answers=some.lists(some.tuples(TEXTS, TEXTS, some.booleans()), min_size=5, max_size=5),
    rows=ROWS,
    balance=some.sampled_from(["none", "principle", "hazard"]),
    verdicts=some.dictionaries(some.sampled_from(["a", "b", "c"]), VERDICTS),
    random_order=some.randoms(use_true_random=False),
)
def test_every_revision_is_kept_or_dropped_by_name_whatever_the_order(
    answers: list[tuple[str, str, bool]],
    rows: list[tuple[int, str, str, bool]],
    balance: str,
    verdicts: dict[str, Verdict | None],
    random_order: random.Random,
) -> None:
    by_id = {f"p{at}": prompt(f"p{at}").model_copy(update={"text": text}) for at, (text, _, _) in enumerate(answers)}
    firsts = {
        f"p{at}": response(f"p{at}", text, finish_reason="length" if cut else "stop")
        for at, (_, text, cut) in enumerate(answers)
    }
    revisions = [
        revision(f"p{at}", text, principle, finish_reason="length" if cut else "stop")
        for at, principle, text, cut in rows
    ]
    params = with_params(min_words=1, balance=balance, judge=True, require_violation=True)

    def fates(order: Sequence[Revision]) -> Counter[tuple[str, str]]:
        judged = [verdicts.get(one.principle) for one in order]
        found = list(pairs.candidates(pairs.joined(by_id, firsts, order), "", judged))
        decided = pairs.decide(found, params, 7, lambda asked: ["b b b" in p.chosen[0].content for p in asked])
        assert len(decided) == len(order)
        assert set(decided) <= {*pairs.SIDES, *GATES}
        tally = pairs.Tally()
        for candidate, fate in zip(found, decided, strict=True):
            tally.add(candidate.pair, candidate.source, fate)
        counts = tally.metrics()
        assert counts["kept"] + sum(counts["dropped_by"].values()) == len(order)
        assert counts["train"] + counts["validation"] == counts["kept"] == sum(counts["kept_by_principle"].values())
        assert counts["train"] > 0 < counts["validation"]
        return Counter((files.line(c.pair), fate) for c, fate in zip(found, decided, strict=True))

    shuffled = random_order.sample(revisions, len(revisions))
    try:
        expected = fates(revisions)
    except UserError as error:
        assert "too few to train and validate" in str(error)
        with pytest.raises(UserError, match="too few"):
            fates(shuffled)
    else:
        assert fates(shuffled) == expected
