"""The judge's exam: its questions give nothing away, and able and unable judges are told apart."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    assert len(HARM) * 2 >= 60
    assert len(TOPICS) * 2 >= 40
    assert len(HELPFUL) * 2 >= 60
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


def test_an_able_judge_passes_with_the_auc_of_its_verdicts() -> None:
    scholar = Scholar(wrong=0.1)
    result = sat(scholar)
    assert result.passed
    labels = [1] * len(RULES) + [0] * len(RULES)
    texts = [item.violating for item in RULES] + [item.keeping for item in RULES]
    told = [scholar.violation(text) for text in texts]
    mark = result.questions["violation"]
    assert (mark.n, mark.unreadable) == (len(texts), 0)
    assert mark.auc == pytest.approx(roc_auc_score(labels, told))
    assert mark.low is not None
    assert mark.high is not None
    assert 0.8 <= mark.low < mark.auc < mark.high <= 1
    better = [np.sign(scholar.violation(item.violating) - scholar.violation(item.keeping)) / 2 + 0.5 for item in RULES]
    expected = roc_auc_score(labels, [*better, *(1 - value for value in better)])
    assert result.questions["preference"].auc == pytest.approx(expected)
    assert result.auc == min(mark.auc for mark in result.questions.values() if mark.auc is not None) < 1
    assert result.metrics["passed"] is True
    assert (result.metrics["model"], result.metrics["auc"]) == ("judge", result.auc)
    assert json.loads(json.dumps(result.metrics, allow_nan=False)) == result.metrics


def test_bars_are_where_they_are_said_to_be() -> None:
    """AUC 0.8, and 3 of 100 unreadable (docs/EVALUATION.md)."""

    def passed(auc: float | None, unreadable: int) -> bool:
        return exam.Mark(100, unreadable, auc, None, None, None).passed

    assert passed(0.8, 3)
    assert not passed(0.799, 0)
    assert not passed(1.0, 4)
    assert not passed(None, 0)


def test_a_judge_that_knows_all_has_no_interval_but_passes() -> None:
    """Resampling shows no spread: no bounds, which is no claim that there is none."""
    result = sat(Scholar())
    assert [(mark.auc, mark.low, mark.high) for mark in result.questions.values()] == [(1.0, None, None)] * 3
    assert result.passed


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
    assert (result.passed, result.weakest, result.auc) == (False, kind, pytest.approx(0.5))
    assert [name for name, mark in result.questions.items() if not mark.passed] == [kind]
    backwards = sat(spoiled(kind, lambda question, told: told[::-1]))
    assert (backwards.passed, backwards.weakest, backwards.auc) == (False, kind, 0.0)


def test_unreadable_verdicts_are_no_answers() -> None:
    """All else right, and some left open: the AUC is of the rest, and the exam is failed."""
    open_at = {item.violating for item in RULES[:4]}

    def mumbles(question: Question, told: tuple[float, float]) -> tuple[float, float]:
        return (0.2, 0.2) if question.answers[0] in open_at else told

    result = sat(spoiled("violation", mumbles))
    mark = result.questions["violation"]
    assert (mark.auc, mark.unreadable, mark.n, mark.passed) == (1.0, 4, 2 * len(RULES), False)
    assert (result.passed, result.weakest) == (False, "violation")


def test_no_readable_verdict_at_all_has_no_auc() -> None:
    result = sat(lambda text: (0.2, 0.1))
    assert (result.passed, result.auc, result.interval) == (False, None, (None, None))
    assert [mark.unreadable for mark in result.questions.values()] == [mark.n for mark in result.questions.values()]


def test_real_engine_with_random_weights_fails(tiny_engine: Transformers) -> None:
    result = exam.sit_for("exam", tiny_engine, {"harm"})
    assert (result.passed, result.auc, result.model) == (False, None, "org/tiny")
    assert result.questions["harm"].unreadable == result.n == 2 * len(HARM)


def test_real_engine_that_follows_the_text_is_readable_and_fails(letters_engine: Transformers) -> None:
    """A model that writes A or B by chance: all verdicts readable, and worth nothing."""
    result = exam.sit_for("exam", letters_engine, {"harm"})
    assert result.questions["harm"].unreadable == 0
    assert result.auc is not None
    assert 0.2 < result.auc < 0.8
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
    assert (harm.runtime["generated"], harm.runtime["reused"], harm.n) == (4 * len(HARM), 4 * len(HARM), 2 * len(HARM))
    assert harm.questions["harm"].repeat_flipped == 0
    assert again.metrics == first.metrics


def test_questions_are_those_of_the_gates() -> None:
    """Judged as a pair, an answer of the exam is asked about in the same words."""
    item = RULES[0]
    held_to = principles.Principle("any", "Any", item.rule, (), "", "", ())
    with judging(Scholar()) as (server, engine):
        exam.sit("exam", engine, ())
        asked = set(server.questions)
        judge.verdicts("pairs", engine, [held_to], [item.prompt], [item.violating], [item.keeping])
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
    assert sat(scholar).auc == first.auc


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
    assert mark.low is not None
    assert mark.low < mark.auc
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
