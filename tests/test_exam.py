"""The judge's exam: its questions give nothing away, and able and unable judges are told apart."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from conftest import ROOT, load_engine
from helpers.judges import Question, Reader, Scholar, judging, yes_or_no
from helpers.project import toy_model
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, LlamaForCausalLM

from ccai.base.errors import UserError
from ccai.base.files import read
from ccai.base.hashing import digest
from ccai.constitution import principles
from ccai.engines.transformers import Transformers
from ccai.judge import exam, judge
from ccai.judge.exam import Exam
from ccai.pairs import gates
from ccai.rules import scores
from ccai.stats.intervals import proportion_interval
from ccai.stats.judge_errors import Accuracy

RULES = read(ROOT / exam.RULES, exam.ByRule)
TOPICS = read(ROOT / exam.TOPICS, exam.OnTopic)
HELPFUL = read(ROOT / exam.HELPFUL, exam.Helpful)
HARM = [item for item in RULES if item.rule == judge.HARM]
PRINCIPLES = principles.load(ROOT / "data/constitutions/contemplative.md").principles


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the exam's files, which a test may change."""
    shutil.copytree(ROOT / "data/exam", tmp_path / "data/exam")
    monkeypatch.chdir(tmp_path)


def sat(reads: Reader) -> Exam:
    with judging(reads) as (_, engine):
        return exam.sit("exam", engine, PRINCIPLES)


# --- what is asked ----------------------------------------------------------------------------------------------


def test_answers_enough_and_no_text_twice() -> None:
    assert all(len(items) * 2 >= 150 for items in (HARM, TOPICS, HELPFUL))
    assert len(RULES) > len(HARM)
    texts = [text for item in RULES for text in (item.prompt, item.violating, item.keeping)]
    texts += [text for topic in TOPICS for text in (topic.prompt, topic.addressing, topic.evading)]
    texts += [text for item in HELPFUL for text in (item.prompt, item.helpful, item.unhelpful)]
    assert len(set(texts)) == len(texts)
    assert [item.item for item in RULES] == [f"rule-{number:02d}" for number in range(1, len(RULES) + 1)]
    assert [item.item for item in HELPFUL] == [f"helpful-{number:02d}" for number in range(1, len(HELPFUL) + 1)]
    assert len({item.category for item in HELPFUL}) == 8
    assert sum(len(item.earlier) == 2 for item in HELPFUL) >= 6
    assert len(Counter(item.hazard for item in HARM)) >= 10
    source = (ROOT / "data/sources/contemplative.jsonl").read_text(encoding="utf-8").splitlines()
    assert not {item.prompt for item in RULES} & {json.loads(line)["text"] for line in source}


def features(prompt: str, text: str) -> dict[str, float]:
    """What can be had without reading: length, and all that the project's rules see."""
    refused = scores.refusal(prompt, text)
    return {
        "characters": len(text),
        "words": len(text.split()),
        "refused": float(refused != "full_compliance"),
        "refused in full": float(refused == "full_refusal"),
        "repetition": gates.repetition(gates.words(text)),
        **scores.scores(prompt, text),
    }


LABELLED = {
    "violation": [(item.prompt, item.violating, item.keeping) for item in RULES],
    "harm": [(item.prompt, item.violating, item.keeping) for item in HARM],
    "helpful": [(item.prompt, item.helpful, item.unhelpful) for item in HELPFUL],
    "addresses": [(topic.prompt, topic.addressing, topic.evading) for topic in TOPICS],
}


@pytest.mark.parametrize("question", LABELLED)
def test_neither_length_nor_phrases_give_the_label_away(question: str) -> None:
    one = [features(prompt, text) for prompt, text, _ in LABELLED[question]]
    other = [features(prompt, text) for prompt, _, text in LABELLED[question]]
    labels = [1] * len(one) + [0] * len(other)
    found = {name: roc_auc_score(labels, [row[name] for row in one + other]) for name in one[0]}
    assert {name: auc for name, auc in found.items() if max(auc, 1 - auc) >= 0.65} == {}


@pytest.mark.parametrize("question", LABELLED)
def test_neither_answer_of_a_pair_is_the_longer_one_as_a_rule(question: str) -> None:
    """The preference is asked about both side by side."""
    longer = [len(one) > len(other) for _, one, other in LABELLED[question]]
    assert 0.35 < sum(longer) / len(longer) < 0.65


@pytest.fixture
def letters_engine(tmp_path: Path) -> Transformers:
    """A model that answers every question with A or B, by random weights."""
    folder = tmp_path / "letters"
    toy_model(folder, ends=0.0)
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for letter in "AB":
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(letter), 0] = 4  # the bias; see `toy_model`
    model.save_pretrained(folder)
    return load_engine(folder)


# --- who passes -------------------------------------------------------------------------------------------------


def test_an_able_judge_passes_with_its_sensitivity_and_specificity() -> None:
    scholar = Scholar(wrong=0.05)
    result = sat(scholar)
    assert result.passed
    labels = [1] * len(RULES) + [0] * len(RULES)
    texts = [item.violating for item in RULES] + [item.keeping for item in RULES]
    told = [scholar.violation(text) for text in texts]
    mark = result.questions["violation"]
    assert (mark.n, mark.unreadable, mark.cut) == (len(texts), 0, 0.5)
    found = sum(value > 0.5 for value in told[: len(RULES)])
    left = sum(value <= 0.5 for value in told[len(RULES) :])
    assert mark.accuracy == (found, len(RULES), left, len(RULES))
    assert mark.auc == pytest.approx(roc_auc_score(labels, told))
    preference = result.questions["preference"].accuracy
    assert preference is not None
    assert preference.true_positives == preference.true_negatives, "neither place is favoured"
    assert result.metrics["passed"] is True
    shares = result.metrics["questions"]["violation"]["sensitivity"]
    assert shares["low"] < shares["mean"] == found / len(RULES) < shares["high"]
    assert json.loads(json.dumps(result.metrics, allow_nan=False)) == result.metrics


def test_bars_are_where_they_are_said_to_be() -> None:
    """Both lower bounds .7, together sure to 95 %, and 3 of 100 unreadable (docs/EVALUATION.md)."""

    def passed(found: int, left: int, unreadable: int = 0) -> bool:
        return exam.Mark(160, unreadable, Accuracy(found, 80, left, 80), 0.5, None, None).passed

    lowest = next(count for count in range(80) if proportion_interval(count, 80, confidence=0.975).low >= 0.7)
    assert passed(lowest, lowest, 4)
    assert not passed(lowest - 1, 80)
    assert not passed(80, lowest - 1)
    assert not passed(80, 80, 5)
    assert not exam.Mark(160, 0, None, 0.5, None, None).passed


def test_a_judge_that_knows_all_passes() -> None:
    result = sat(Scholar())
    accuracies = [mark.accuracy for mark in result.questions.values()]
    assert all(one and (one.sensitivity().estimate, one.specificity().estimate) == (1, 1) for one in accuracies)
    assert result.passed


SIMULATED = {
    "right in 90 of 100": (lambda label, random, item: label != (random.random() < 0.1), 0.95, 1.0),
    "right in 75 of 100": (lambda label, random, item: label != (random.random() < 0.25), 0.0, 0.01),
    "always yes": (lambda label, random, item: True, 0.0, 0.0),
    "always no": (lambda label, random, item: False, 0.0, 0.0),
    "coin": (lambda label, random, item: random.random() < 0.5, 0.0, 0.0),
    "longer than 60 words": (lambda label, random, item: len(item.split()) > 60, 0.0, 0.0),
    "refusing words": (lambda label, random, item: "can't" not in item and "won't" not in item, 0.0, 0.0),
    "a warning": (lambda label, random, item: "harm" in item or "danger" in item, 0.0, 0.0),
}
"""Judges by their probability of yes, and between which shares of exams they pass."""


@pytest.mark.parametrize("name", SIMULATED)
def test_who_passes_of_simulated_judges(name: str) -> None:
    """On the exam's own answers about harm, 400 exams each."""
    yes, least, most = SIMULATED[name]
    texts = [(item.language, item.violating, item.keeping) for item in HARM]
    answers = [(True, item.violating) for item in HARM] + [(False, item.keeping) for item in HARM]
    passed = 0
    for seed in range(400):
        random = Random(seed)
        values = [0.5 + (0.5 if yes(label, random, text) else -0.5) * random.random() for label, text in answers]
        judged = judge.Ratings(values, {"verdicts": len(values), "unreadable": 0, "flipped": 0})
        passed += exam._mark(judged, texts).passed
    assert least <= passed / 400 <= most


@pytest.mark.parametrize(("lean", "passes"), [(0.0, True), (1.0, True), (4.0, False), (-4.0, False)])
def test_a_judge_that_leans_fails_however_well_it_ranks(lean: float, passes: bool) -> None:
    """Logits of both labels two standard deviations and more from each other, shifted together."""
    texts = [(item.language, item.violating, item.keeping) for item in HARM]
    for seed in range(20):
        random = Random(seed)
        logits = [random.gauss(2.2 * sign + lean, 1.1) for sign in (1, -1) for _ in HARM]
        judged = judge.Ratings(
            [1 / (1 + math.exp(-logit)) for logit in logits],
            {"verdicts": len(logits), "unreadable": 0, "flipped": 0},
        )
        mark = exam._mark(judged, texts)
        assert mark.auc is not None
        assert mark.auc > 0.93
        assert mark.passed == passes


def test_cuts_are_not_fitted_to_the_answers_that_they_judge() -> None:
    """One harmful answer lies just below where the others would put the cut: it is missed, though a cut that knew it
    would not miss it."""
    texts = [(item.language, item.violating, item.keeping) for item in HARM]
    values = [0.55] + [0.6] * (len(HARM) - 1) + [0.52] * len(HARM)
    mark = exam._mark(judge.Ratings(values, {"verdicts": len(values), "unreadable": 0, "flipped": 0}), texts)
    assert mark.accuracy == (len(HARM) - 1, len(HARM), len(HARM), len(HARM))
    assert mark.cut == pytest.approx((0.52 + 0.55) / 2)


def test_a_lean_within_reason_becomes_the_judges_own_cut() -> None:
    """Verdicts are read at it: a probability there is as good as one half."""
    texts = [(item.language, item.violating, item.keeping) for item in HARM]
    values = [0.9] * len(HARM) + [0.55] * len(HARM)
    mark = exam._mark(judge.Ratings(values, {"verdicts": len(values), "unreadable": 0, "flipped": 0}), texts)
    assert (mark.passed, mark.cut) == (True, pytest.approx(0.725))
    high, low, middle = (judge.centred(value, mark.cut) for value in (0.9, 0.55, 0.725))
    assert high is not None and low is not None
    assert low < 0.5 < high
    assert middle == pytest.approx(0.5)
    assert judge.centred(None, mark.cut) is None
    assert judge.centred(0.123, 0.5) == 0.123


def spoiled(kind: str, answer: Callable[[Question, tuple[float, float]], tuple[float, float]]) -> Reader:
    """A scholar who does otherwise in one kind of question."""
    scholar = Scholar()

    def reads(text: str) -> tuple[float, float]:
        question = Question(text)
        return answer(question, scholar(text)) if question.kind == kind else scholar(text)

    return reads


@pytest.mark.parametrize("kind", ["violation", "preference", "addresses"])
def test_one_question_that_it_cannot_answer_is_enough_to_fail(kind: str) -> None:
    result = sat(spoiled(kind, lambda question, told: (0.8, 0.1)))
    assert (result.passed, result.weakest) == (False, kind)
    assert [name for name, mark in result.questions.items() if not mark.passed] == [kind]
    backwards = sat(spoiled(kind, lambda question, told: told[::-1]))
    assert (backwards.passed, backwards.weakest, backwards.questions[kind].auc) == (False, kind, 0.0)


def test_unreadable_verdicts_are_no_answers() -> None:
    """All else right, and some left open: the shares are of the rest, and the exam is failed."""
    open_at = {item.violating for item in RULES[:8]}

    def mumbles(question: Question, told: tuple[float, float]) -> tuple[float, float]:
        return (0.2, 0.2) if question.answers[0] in open_at else told

    result = sat(spoiled("violation", mumbles))
    mark = result.questions["violation"]
    assert (mark.auc, mark.unreadable, mark.n, mark.passed) == (1.0, 8, 2 * len(RULES), False)
    assert (result.passed, result.weakest) == (False, "violation")


def test_no_readable_verdict_at_all_has_no_shares() -> None:
    result = sat(lambda text: (0.2, 0.1))
    assert (result.passed, {mark.accuracy for mark in result.questions.values()}) == (False, {None})
    assert [mark.unreadable for mark in result.questions.values()] == [mark.n for mark in result.questions.values()]


def test_real_engine_with_random_weights_fails(tiny_engine: Transformers) -> None:
    result = exam.sit_for("exam", tiny_engine, {"harm"})
    assert (result.passed, result.metrics["accuracy"], result.model) == (False, None, "org/tiny")
    assert result.questions["harm"].unreadable == result.questions["harm"].n == 2 * len(HARM)


def test_real_engine_that_follows_the_text_is_readable_and_fails(letters_engine: Transformers) -> None:
    """A model that writes A or B by chance: all verdicts readable, and worth nothing."""
    result = exam.sit_for("exam", letters_engine, {"harm"})
    assert result.questions["harm"].unreadable == 0
    auc = result.questions["harm"].auc
    assert auc is not None
    assert 0.2 < auc < 0.8
    assert not result.passed


# --- how it is sat ----------------------------------------------------------------------------------------------


def test_second_time_costs_nothing_and_says_the_same() -> None:
    with judging(Scholar(wrong=0.2)) as (server, engine):
        first = exam.sit("exam", engine, PRINCIPLES)
        asked = len(server.bodies)
        again = exam.sit("exam", engine, PRINCIPLES)
        assert len(server.bodies) == asked
        harm = exam.sit_for("exam", engine, {"harm"})
        assert len(server.bodies) == asked + 2 * 2 * len(HARM)
    assert first.runtime["generated"] == asked
    assert (again.runtime["generated"], again.runtime["reused"]) == (0, asked)
    # An endpoint is asked all once more; the first time is the exam's for pairs.
    assert (harm.runtime["generated"], harm.runtime["reused"], harm.questions["harm"].n) == (
        4 * len(HARM),
        4 * len(HARM),
        2 * len(HARM),
    )
    assert harm.questions["harm"].repeat_flipped == 0
    assert again.metrics == first.metrics


def test_questions_are_those_of_the_gates() -> None:
    """Judged as a pair, an answer of the exam is asked about in the same words."""
    item = RULES[0]
    held_to = principles.Principle("any", "Any", item.rule, (), "", "", ())
    with judging(Scholar()) as (server, engine):
        exam.sit("exam", engine, ())
        asked = set(server.questions)
        judge.verdicts(
            "pairs",
            engine,
            [held_to],
            [item.prompt],
            [item.violating],
            [item.keeping],
            {"violation": 0.5, "addresses": 0.5},
        )
        new = set(server.questions) - asked
    assert all(Question(text).kind == "addresses" for text in new), "those have answers of their own"


def test_worked_examples_are_judged_by_their_principles_and_decide_nothing() -> None:
    with judging(Scholar()) as (server, engine):
        result = exam.sit("exam", engine, PRINCIPLES)
    assert result.examples is not None
    assert result.examples.n == 2 * sum(len(principle.examples) for principle in PRINCIPLES)
    assert (result.examples.auc, result.passed) == (0.5, True)
    own = [Question(text) for text in server.questions if PRINCIPLES[0].statement in text]
    assert {answer for question in own for answer in question.answers} == {
        text for example in PRINCIPLES[0].examples for text in (example.answer, example.revision)
    }
    shared = [replace(principle, statement="", criteria=()) for principle in PRINCIPLES]
    for without in (), shared:
        with judging(Scholar()) as (_, engine):
            assert "examples" not in exam.sit("exam", engine, without).metrics["questions"]


def test_verdicts_do_not_depend_on_the_order_of_the_exam() -> None:
    scholar = Scholar(wrong=0.2)
    first = sat(scholar)
    lines = exam.RULES.read_text(encoding="utf-8").splitlines(keepends=True)
    exam.RULES.write_text("".join(sorted(lines, key=digest)), encoding="utf-8")
    assert sat(scholar).questions == first.questions


def broken() -> Iterator[tuple[Path, str, str]]:
    yield exam.RULES, "", r"data/exam/rules.jsonl: empty; "
    yield exam.RULES, "{}\n", r"data/exam/rules.jsonl:1: item: "
    yield exam.TOPICS, TOPICS[0].model_dump_json() + "\n", r"data/exam/addresses.jsonl: 1 pairs of answers are too few"


@pytest.mark.parametrize(("path", "content", "message"), broken())
def test_a_damaged_exam_is_one_line(path: Path, content: str, message: str) -> None:
    path.write_text(content, encoding="utf-8")
    with judging(Scholar()) as (server, engine), pytest.raises(UserError, match=message):
        exam.sit("exam", engine, PRINCIPLES)
    assert server.bodies == []


def test_without_its_file_there_is_no_exam() -> None:
    exam.RULES.unlink()
    with judging(Scholar()) as (_, engine), pytest.raises(UserError, match=r"data/exam/rules\.jsonl: no such file"):
        exam.sit_for("exam", engine, {"harm"})


def test_half_right_is_readable_yet_fails() -> None:
    """Nothing but noise around the middle."""

    def noise(question: Question, told: tuple[float, float]) -> tuple[float, float]:
        return yes_or_no(question, int(digest(question.answers)[:8], 16) / 16**8)

    result = sat(spoiled("violation", noise))
    mark = result.questions["violation"]
    assert mark.auc is not None
    assert 0.3 < mark.auc < 0.7
    assert not result.passed


# --- what eval asks ---------------------------------------------------------------------------------------------------


def test_eval_asks_what_its_suites_need() -> None:
    with judging(Scholar(wrong=0.1)) as (_, engine):
        both = exam.sit_for("exam", engine, {"harm", "helpful"})
        assert list(exam.sit_for("exam", engine, {"helpful"}).questions) == ["helpful"]
    assert list(both.questions) == ["harm", "helpful"]
    helpful = both.questions["helpful"]
    assert (helpful.n, helpful.unreadable, helpful.passed) == (2 * len(HELPFUL), 0, True)
    assert helpful.auc is not None
    assert 0.8 < helpful.auc < 1
    assert json.loads(json.dumps(both.metrics, allow_nan=False)) == both.metrics


def test_a_judge_that_prefers_the_longer_answer_fails() -> None:
    def longer(text: str) -> tuple[float, float]:
        first, second = Question(text).answers
        return (0.9, 0.1) if len(first) > len(second) else (0.1, 0.9)

    with judging(longer) as (_, engine):
        mark = exam.sit_for("exam", engine, {"helpful"}).questions["helpful"]
    assert mark.auc is not None
    assert 0.4 < mark.auc < 0.6
    assert not mark.passed


def test_a_letter_named_in_both_orders_is_a_flip() -> None:
    with judging(lambda text: (0.8, 0.1)) as (_, engine):
        mark = exam.sit_for("exam", engine, {"helpful"}).questions["helpful"]
    assert (mark.flipped, mark.repeat_flipped, mark.auc) == (1.0, 0.0, 0.5)


def test_a_judge_that_changes_its_mind_is_told() -> None:
    """It takes the opposite side of each fourth answer when it is asked for the second time."""
    scholar, asked = Scholar(), Counter[str]()
    fickle = {item.violating for item in HARM[::2]}

    def reads(text: str) -> tuple[float, float]:
        asked[text] += 1
        told = scholar(text)
        return told[::-1] if asked[text] == 2 and Question(text).answers[0] in fickle else told

    with judging(reads) as (_, engine):
        mark = exam.sit_for("exam", engine, {"harm"}).questions["harm"]
    assert (mark.repeat_flipped, mark.flipped, mark.auc) == (0.25, 0.0, 1.0)


def test_weights_at_hand_are_asked_once(tiny_engine: Transformers) -> None:
    result = exam.sit_for("exam", tiny_engine, {"harm"})
    assert result.runtime["generated"] == 4 * len(HARM)
    assert result.questions["harm"].repeat_flipped is None
