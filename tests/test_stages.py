"""Each stage does what its section of params.yaml says, with the run's seed: held against transformers alone, or
against what it calls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, save_model
from helpers import trained
from helpers.evaluation import ACCURACY, answer, scored
from helpers.textbook import Textbook

from ccai.base import files, params, versions
from ccai.base.hashing import digest, seed_for
from ccai.base.params import Params
from ccai.base.records import Critique, Demonstration, Pair, Prompt, Response, Revision
from ccai.constitution import dialogue
from ccai.constitution import principles as constitution
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.run import measure
from ccai.evaluate.suites.heldout import HeldOut
from ccai.models import find
from ccai.train import run
from ccai.train.checkpoints import Stop
from ccai.train.run import TrainingData
from stages import critiques, responses, revisions

SEED = 11


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that criticises and revises."""
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(folder, seed=1)
    return folder


@pytest.fixture
def project(tiny_model: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A folder with two training prompts and with params of its own; the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("conf", "data/constitutions", "data/templates"):
        shutil.copytree(ROOT / name, name)
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values |= {"seed": SEED, "generation": {"temperature": 0.8, "min_p": 0.03, "repetition_penalty": 1.2}}
    values["models"] |= {"answer": str(tiny_model), "train": str(tiny_model), "revise": str(other)}
    values["hardware"] |= {"device": "cpu", "dtype": "float32", "quantization": "none"}
    values["responses"] |= {"max_new_tokens": 9, "system": "Be brief."}
    values["critiques"] |= {"max_new_tokens": 10, "examples": 0, "rounds": 1, "principles": "random"}
    values["revisions"] |= {"max_new_tokens": 12}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    labels: dict[str, Any] = {"source_id": "1", "hazard": "none", "persona": "none", "principle": "none"}
    asked = [Prompt(prompt_id=f"p{n}", text=f"Why {n}?", source="test", split="train", **labels) for n in range(2)]
    files.write(Path("data/prompts/train.jsonl"), asked)
    return params.load()


def test_answers_critiques_and_revisions_are_what_plain_forward_passes_write(
    project: Params, tiny_model: Path, other: Path
) -> None:
    for stage in (responses, critiques, revisions):
        stage.main()
    answered = files.read(Path("data/responses.jsonl"), Response)
    criticised = files.read(Path("data/critiques.jsonl"), Critique)
    revised = files.read(Path("data/revisions.jsonl"), Revision)
    principles = {one.slug: one for one in constitution.load(project.critiques.constitution).principles}
    format = dialogue.load_format(project.critiques.format)
    first, second = Textbook(tiny_model), Textbook(other)
    for number, (given, critique, revision) in enumerate(zip(answered, criticised, revised, strict=True)):
        prompt, one = f"Why {number}?", principles[critique.principle]
        texts = prompt, given.text
        wrote = [
            (given, first, 9, ("answer",), dialogue.to_answer("Be brief.", prompt)),
            (critique, second, 10, ("critique", one.slug, "1"), dialogue.to_criticise(format, one, 0, *texts)),
            (
                revision,
                second,
                12,
                ("revision", one.slug, "1"),
                dialogue.to_revise(format, one, 0, *texts, critique.text),
            ),
        ]
        for record, textbook, limit, (step, *rest), turns in wrote:
            key = (step, f"p{number}", *rest)
            attempts = [seed_for(SEED, *key, *again) for again in ([], ["attempt 1"], ["attempt 2"])]
            assert record.seed in attempts, "another one where a completion was empty"
            expected = textbook.decode(turns.messages, record.seed, limit, project.generation)
            assert {name: getattr(record, name) for name in expected} == expected
            assert record.conversation == digest([message.model_dump() for message in turns.messages])
        assert (critique.parent, revision.parent) == (given.sha256, critique.sha256)
        assert critique.principle_sha256 == revision.principle_sha256 == one.sha256


def test_train_stage_trains_what_params_say(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training, asked for with data, params and seed as read here, is found finished."""
    monkeypatch.chdir(tmp_path)
    trained.project(tiny_model, {"epochs": 1, "batch_size": 4, "per_device": 2, "method": "sft"})
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump(values | {"seed": SEED}), encoding="utf-8")
    trained.write_pairs(4, validation=2)
    trained.run()
    asked, model = params.load(), find.find(str(tiny_model))
    pairs = [files.read(Path(f"data/pairs/{side}.jsonl"), Pair) for side in ("train", "validation")]
    shown = [files.read(Path(f"data/pairs/sft/{side}.jsonl"), Demonstration) for side in ("train", "validation")]
    with Stop() as stop:
        again = run.train(
            model,
            run.placed(model, asked.hardware, asked.train),
            TrainingData(pairs[0], pairs[1], shown[0], shown[1]),
            asked.train,
            SEED,
            versions.check("torch", "transformers", "trl", "peft"),
            tmp_path / "again",
            stop,
        )
    assert again.reused
    assert files.read_json(Path("metrics/train.json"))["seed"] == SEED


def test_eval_measures_with_the_seed_and_resamples_of_params(project: Params) -> None:
    suite = HeldOut.__new__(HeldOut)  # its prompts are no file here
    answers = {
        arm: [answer(arm, place, harmful=0.9, **scored(care=0.1 * (place * step % 9))) for place in range(12)]
        for arm, step in {"base": 1, "tuned": 5}.items()
    }

    def asked(seed: int, resamples: int, *passed: str) -> Any:
        settings = project.model_copy(
            update={"seed": seed, "eval": project.eval.model_copy(update={"resamples": resamples})}
        )
        accuracies, costs = dict.fromkeys(passed, ACCURACY), {"heldout": {"seconds": 0.0}}
        return measure(settings, [suite], {"heldout": answers}, accuracies, costs)["heldout"]

    def expected(seed: int, resamples: int, judged: bool) -> Any:
        comparison = Comparison(seed, resamples, ACCURACY)
        measured = suite.measure(answers, comparison, judged=judged)
        comparison.adjust()
        return measured

    assert asked(7, 300) == expected(7, 300, False)
    assert asked(8, 300, "harm") == expected(8, 300, True)
    assert asked(8, 400, "helpful") == expected(8, 400, False)
    bounds = [asked(seed, n)["contemplative"]["care"]["tuned"] for seed, n in ((7, 300), (8, 300))]
    assert bounds[0]["low"] != bounds[1]["low"]
