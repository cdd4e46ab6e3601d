"""What params.yaml says of training is what TRL and PEFT are told, and what is measured is what plain forward passes
find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, as_model
from helpers.trained import pairs
from helpers.training import PARAMS, TRAIN, train
from peft import PeftModel
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai.base.params import Sft, Train
from ccai.base.records import Message, Pair
from ccai.models.model import Model
from ccai.pairs import demonstrations
from ccai.train import run, trainers
from ccai.train.run import Trained

ONE = PARAMS.model_copy(
    update={
        "learning_rate": 3e-4,
        "scheduler": "constant",
        "warmup_ratio": 0.25,
        "beta": 0.35,
        "nll_coefficient": 0.2,
        "epochs": 3.0,
        "sft": Sft(learning_rate=7e-4, epochs=2),
        "batch_size": 6,
        "per_device": 3,
        "max_length": 77,
        "lora_r": 2,
        "lora_alpha": 5,
        "gradient_checkpointing": True,
        "precompute_reference": True,
    }
)
ANOTHER = PARAMS.model_copy(
    update={
        "learning_rate": 6e-3,
        "scheduler": "cosine",
        "warmup_ratio": 0.5,
        "beta": 0.8,
        "epochs": 1.5,
        "sft": Sft(learning_rate=2e-3, epochs=0.5),
        "batch_size": 8,
        "per_device": 1,
        "max_length": 99,
        "lora_r": 3,
        "lora_alpha": 12,
        "gradient_checkpointing": False,
        "precompute_reference": False,
    }
)
LOSSES = {"dpo": "sigmoid", "dpo-norm": "sigmoid_norm", "ipo": "ipo", "apo-zero": "apo_zero", "apo-down": "apo_down"}
SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return as_model(tiny_model)


@pytest.mark.parametrize(
    ("params", "method", "seed"),
    [(ONE, method, 5) for method in (*LOSSES, "kto", "sft")]
    + [(ANOTHER, method, 6) for method in ("dpo", "kto", "sft")],
)
def test_what_params_say_is_what_the_trainer_does(
    model: Model, tmp_path: Path, params: Train, method: str, seed: int
) -> None:
    for folder, side in {"train": TRAIN[:5], "validation": TRAIN[5:8]}.items():
        shown: Sequence[Any] = [demonstrations.of(pair, "test") for pair in side] if method == "sft" else side
        trainers.write(method, shown, seed, tmp_path / folder)
    trainer = trainers.make(trainers.Phase(method, tmp_path, model, CPU, None, params, seed), [])
    told, rows = trainer.args, 2 if method == "kto" else 1
    own = params.sft if method == "sft" else params
    assert (told.learning_rate, told.num_train_epochs) == (own.learning_rate, own.epochs)
    assert told.lr_scheduler_type.value == SCHEDULES[params.scheduler]
    assert told.get_warmup_steps(20) == 20 * params.warmup_ratio
    assert told.per_device_train_batch_size == params.per_device * rows
    assert told.gradient_accumulation_steps == params.batch_size / params.per_device
    assert told.max_length == params.max_length
    assert (told.seed, told.data_seed) == (seed, seed)
    assert told.gradient_checkpointing is params.gradient_checkpointing
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (5 * rows, 3 * rows)
    if method != "sft":
        assert (told.beta, told.precompute_ref_log_probs) == (params.beta, params.precompute_reference)
    if method in LOSSES:
        weights = {LOSSES[method]: 1.0} | ({"sft": params.nll_coefficient} if params.nll_coefficient else {})
        assert dict(zip(told.loss_type, told.loss_weights, strict=True)) == weights
    if method == "kto":
        texts = {pair.chosen[0].content for pair in TRAIN}
        assert all(
            row["label"] == (row["completion"][0]["content"] in texts) for row in trainers._rows(method, TRAIN, 1)
        )
    adapted = [layer for layer in trainer.model.modules() if hasattr(layer, "lora_A")]
    assert len(adapted) == 14, "7 linear layers in each of 2 blocks"
    for layer in adapted:
        assert layer.r["default"] == params.lora_r
        assert layer.scaling["default"] == params.lora_alpha / params.lora_r


# Validation pairs of two lengths and two principles
HELD = [*pairs(3, seed=2), *(pair.model_copy(update={"principle": "wisdom"}) for pair in pairs(2, seed=3, words=4))]


def log_probs(model: Path, adapter: Path | None, prompt: Sequence[Message], answer: Sequence[Message]) -> Any:
    """Of an answer by transformers and PEFT alone: log-probabilities over the vocabulary for each of its tokens,
    (tokens, vocabulary), and the tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        weights = PeftModel.from_pretrained(weights, adapter)
    asked = [message.model_dump() for message in prompt]
    opening = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = [*asked, *(message.model_dump() for message in answer)]
    ids = torch.tensor(tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"])
    with torch.inference_mode():
        every = weights.eval()(ids[None]).logits[0].log_softmax(-1)
    return every[len(opening) - 1 : -1], ids[len(opening) :]


def moved(model: Path, tuned: Path, reference: Path | None, pair: Pair, side: Sequence[Message]) -> tuple[Any, Any]:
    """Gain of the answer's log-probability, and KL(tuned || reference) at each of its tokens."""
    after, ids = log_probs(model, tuned, pair.prompt, side)
    before, _ = log_probs(model, reference, pair.prompt, side)
    gain = (after - before).gather(1, ids[:, None]).sum()
    return gain, (after.exp() * (after - before)).sum(-1)


def as_measured(result: Trained, model: Path, tuned: Path, reference: Path | None, beta: float) -> None:
    """The figures on validation pairs are those of the textbook (arXiv 2305.18290, section 4)."""
    sides = [[moved(model, tuned, reference, pair, side) for side in (pair.chosen, pair.rejected)] for pair in HELD]
    chosen, rejected = (torch.stack([both[side][0] for both in sides]) for side in (0, 1))
    wins, margins = (chosen > rejected).float(), beta * (chosen - rejected)
    found = result.metrics["validation"]
    expected = {
        "loss": -logsigmoid(margins).mean(),
        "reward_accuracy": wins.mean(),
        "reward_margin": margins.mean(),
        "chosen_logp_drift": chosen.mean(),
        "rejected_logp_drift": rejected.mean(),
        "kl": torch.cat([divergence for both in sides for _, divergence in both]).mean(),
    }
    assert {name: found[name] for name in expected} == {
        name: pytest.approx(value.item(), rel=1e-3, abs=1e-5) for name, value in expected.items()
    }
    for principle in ("care", "wisdom"):
        own = torch.tensor([pair.principle == principle for pair in HELD])
        assert found["by_principle"][principle] == {
            "pairs": own.sum(),
            "reward_accuracy": pytest.approx(wins[own].mean().item()),
            "reward_margin": pytest.approx(margins[own].mean().item(), rel=1e-3, abs=1e-5),
        }


def test_rewards_are_those_of_plain_forward_passes_on_the_validation_pairs(
    model: Model, tiny_model: Path, tmp_path: Path
) -> None:
    params = PARAMS.model_copy(update={"epochs": 1.0, "beta": 0.3})
    result = train(model, tmp_path / "adapter", params=params, validation=HELD)
    as_measured(result, tiny_model, tmp_path / "adapter", None, params.beta)


def test_dpo_after_sft_begins_at_the_sft_model_and_is_measured_against_it(
    model: Model, tiny_model: Path, tmp_path: Path
) -> None:
    both = PARAMS.model_copy(update={"epochs": 1.0, "method": "sft+dpo"})
    half = [pair for pair in TRAIN if run.half(pair.prompt_id) == "sft"]
    sft = train(model, tmp_path / "sft", params=both.model_copy(update={"method": "sft"}), pairs=half, validation=HELD)
    # Before any step: mean over conversations of the answer's mean log-loss, by the base.
    answers = [log_probs(tiny_model, None, pair.prompt, pair.chosen) for pair in HELD]
    losses = [-found.gather(1, ids[:, None]).mean() for found, ids in answers]
    assert sft.metrics["validation_before"]["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-3)

    result = train(model, tmp_path / "both", params=both, validation=HELD)
    as_measured(result, tiny_model, tmp_path / "both", tmp_path / "sft", both.beta)


def test_other_weights_of_the_same_name_are_trained_anew(
    model: Model, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*args: Any) -> None:
        keys.append(args[0][-1].folder.parent.name)
        raise KeyboardInterrupt

    keys: list[str] = []
    monkeypatch.setattr(run, "_run", begun)
    folder = tmp_path / "other"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    changed = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]))
    for trained in (model, replace(model, folder=folder)):
        with pytest.raises(KeyboardInterrupt):
            train(trained, tmp_path / "adapter")
    assert len(set(keys)) == 2


def test_falling_log_probs_are_told_in_nats(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As soon as they are due, and at the end: mean reward of the chosen over the last quarter of the steps, by beta.
    Where every second pair says the opposite nothing can be learned, and large steps lead away from all answers."""
    swapped = [pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen}) for pair in TRAIN[::2]]
    params = PARAMS.model_copy(update={"learning_rate": 0.05, "scheduler": "constant", "beta": 0.4})
    result = train(model, tmp_path / "adapter", params=params, pairs=[*swapped, *TRAIN[1::2]])
    rewards = [row["rewards/chosen"] for row in result.curve]

    def below(steps: int) -> float:
        last = rewards[:steps][-(steps // 4) :]
        return -sum(last) / len(last) / params.beta

    due = next(steps for steps in range(6, len(rewards) + 1) if below(steps) > 1)
    said = [line for line in capsys.readouterr().out.splitlines() if "nats below the reference" in line]
    assert [f"are {below(due):.1f} nats below" in line for line in said] == [True]
    assert any(f"are {below(len(rewards)):.1f} nats below" in line for line in result.metrics["warnings"])


def test_a_pair_whose_rejected_answer_alone_is_too_long_is_left_out(model: Model, tmp_path: Path) -> None:
    [short], [long] = pairs(1, seed=4), pairs(1, seed=4, words=80)
    uneven = [short.model_copy(update={"rejected": long.rejected}), short.model_copy(update={"chosen": long.chosen})]
    params = PARAMS.model_copy(update={"epochs": 0.25})
    result = train(model, tmp_path / "adapter", params=params, pairs=[*uneven, *TRAIN])
    assert (result.metrics["pairs"], result.metrics["over_length"]) == (len(TRAIN), 2)
