"""Who the arms are, and an arm asked by several suites."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, save_model
from helpers.chooser import shipped
from helpers.textbook import Textbook
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.files import write
from ccai.base.hashing import seed_for
from ccai.base.params import Params
from ccai.base.records import Prompt
from ccai.constitution import principles as constitution
from ccai.constitution.dialogue import to_answer
from ccai.constitution.principles import Principle
from ccai.engines.transformers import Transformers
from ccai.evaluate import arms
from ccai.evaluate.arms import Arm
from ccai.evaluate.suites.heldout import PROMPTS, HeldOut
from ccai.evaluate.suites.helpfulness import Helpfulness
from ccai.evaluate.suites.jailbreaks import Jailbreaks
from ccai.evaluate.suites.over_refusal import OverRefusal
from ccai.evaluate.suites.suite import Suite
from ccai.generate.completions import Job
from ccai.models import files

SYSTEM = "Answer in one sentence."


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that changes what the tiny model writes."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules="all-linear"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model."""
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def principles() -> tuple[Principle, ...]:
    return constitution.load(ROOT / "data/constitutions/contemplative.md").principles


def settings(model: Path, *names: str) -> Params:
    values = params.load(ROOT / "params.yaml").model_dump(mode="json")
    values["models"]["train"] = str(model)
    values["hardware"] |= {"device": "cpu", "dtype": "float32", "quantization": "none"}
    values["eval"]["arms"] = list(names)
    return params.parse(values, "params.yaml")


def test_each_arm_answers_by_its_own_weights_and_under_its_own_words(
    tiny_model: Path,
    adapter: Path,
    other: Path,
    principles: tuple[Principle, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As transformers and PEFT alone do; all draw with the same seeds."""
    monkeypatch.chdir(ROOT)
    given = settings(tiny_model, "tuned", "prompted", "base", str(other))
    weights = {
        "base": (tiny_model, None),
        "prompted": (tiny_model, None),
        "tuned": (tiny_model, adapter),
        other.name: (other, None),
    }
    identities: dict[str, dict[str, Any]] = {}
    for arm in arms.each(given, principles, adapter):
        system = arm.system(SYSTEM)
        if arm.name == "prompted":
            assert SYSTEM in system
            told = [text for one in principles for text in (one.statement, *one.criteria)]
            assert [text for text in told if text not in system or text not in arm.system("")] == []
        else:
            assert (system, arm.system("")) == (SYSTEM, "")
        jobs = [Job(("question", str(number)), to_answer(system, f"Why {number}?"), 8) for number in range(4)]
        textbook = Textbook(*weights[arm.name])
        for job, said in zip(jobs, arm.complete("heldout", jobs), strict=True):
            attempts = [seed_for(given.seed, *job.key, *again) for again in ([], ["attempt 1"], ["attempt 2"])]
            assert said["seed"] in attempts, "another one where a completion was empty"
            expected = textbook.decode(job.turns.messages, said["seed"], 8, given.generation)
            assert {name: said[name] for name in expected} == expected
        identities[arm.name] = arm.engine.identity
    assert identities.keys() == weights.keys()
    assert identities["prompted"] == identities["base"]
    assert identities["base"]["adapter"] is None
    assert identities["tuned"]["adapter"] == files.fingerprint(adapter)
    assert identities[other.name]["weights"] == files.fingerprint(other)


HELD_OUT = [
    Prompt(
        prompt_id=f"p{number}",
        text=f"How is number {number} done?",
        source="test",
        source_id=str(number),
        hazard=("prv", "benign")[number % 2],
        persona="skilled",
        principle="none",
        split="eval",
    )
    for number in range(6)
]


@pytest.mark.parametrize("kind", [HeldOut, Jailbreaks, OverRefusal, Helpfulness])
def test_arms_are_asked_the_same_with_the_same_seeds(
    kind: type[Suite[Any]],
    tiny_engine: Transformers,
    principles: tuple[Principle, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prompted arm is told more, in the system message alone."""
    shutil.copytree(ROOT / "data/eval_sets", tmp_path / "data/eval_sets")
    monkeypatch.chdir(tmp_path)
    write(PROMPTS, HELD_OUT)
    given = shipped()
    suite = kind(given)
    base, told, tuned = (
        suite.jobs(Arm(name, tiny_engine, given, words))
        for name, words in (("base", ()), ("prompted", principles), ("tuned", ()))
    )
    assert base == tuned
    assert len({job.key for job in base}) == len(base)
    for plain, prompted in zip(base, told, strict=True):
        assert (plain.key, plain.max_new_tokens) == (prompted.key, prompted.max_new_tokens)
        spoken = [turn for turn in prompted.turns.messages if turn.role != "system"]
        assert [turn for turn in plain.turns.messages if turn.role != "system"] == spoken
        assert all(one.statement in prompted.turns.messages[0].content for one in principles)


def test_suites_asked_together_answer_as_alone(
    tiny_engine: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = shipped(over_refusal={"max_new_tokens": 8}, helpfulness={"questions": 2, "max_new_tokens": 8})
    suites = (OverRefusal(settings), Helpfulness(settings))
    arm = Arm("base", tiny_engine, settings)
    seconds = arm.complete_together({suite.name: suite.jobs(arm) for suite in suites})
    tokens = {suite: cost["generated_tokens"] for suite, cost in arm.costs.items()}
    assert seconds["over_refusal"] / seconds["helpfulness"] == pytest.approx(
        tokens["over_refusal"] / tokens["helpfulness"]
    )
    together = {suite.name: suite.ask(arm) for suite in suites}
    for suite, answered in together.items():
        cost = arm.costs[suite]
        assert (cost["generated"], cost["reused"]) == (len(answered), 0), "nothing is asked for twice"
        assert cost["generated_tokens"] == sum(record.completion_tokens for record in answered)

    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    alone = Arm("base", tiny_engine, settings)
    assert {suite.name: suite.ask(alone) for suite in suites} == together
    assert alone.costs["over_refusal"]["generated"] == len(together["over_refusal"])


@pytest.mark.parametrize(
    "arms",
    [
        ["base", "tuned", "/models/tuned"],
        ["base", "tuned", "a/other", "b/other"],
        ["base", "tuned", "n"],
        ["base", "tuned", "models/difference"],
        ["base", "tuned", ".."],
        ["base", "tuned", "a b"],
    ],
)
def test_arms_whose_files_or_figures_would_collide_are_refused(arms: list[str]) -> None:
    values = params.load(ROOT / "params.yaml").model_dump(mode="json")
    values["eval"]["arms"] = arms
    with pytest.raises(UserError, match=r"params\.yaml: eval"):
        params.parse(values, "params.yaml")
