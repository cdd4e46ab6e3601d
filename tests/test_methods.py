"""Every method and every adapter really train, and leave what eval loads."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, as_model
from helpers.training import PARAMS, TRAIN, VALIDATION, files, train
from peft import PeftModel
from safetensors.torch import load_file
from transformers import TrainerState

from ccai.base.errors import UserError
from ccai.base.params import Generation, Hardware, Train
from ccai.base.records import Message, Prompt
from ccai.engines.base import Request
from ccai.generate import completions
from ccai.models import load
from ccai.models.model import Model
from ccai.models.placement import Placement
from ccai.train import launch, phases, run, trainers
from ccai.train.checkpoints import STOPPED, Saving, Stop
from ccai.train.run import TrainingData

QUICK = PARAMS.model_copy(update={"epochs": 1.0})
HARDWARE = Hardware(engine="transformers", device="cpu", dtype="auto", quantization="auto")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return as_model(tiny_model)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("method", ["sft", "dpo-norm", "ipo", "apo-zero", "apo-down", "kto", "sft+dpo"])
def test_method(model: Model, method: str, tmp_path: Path) -> None:
    result = train(model, tmp_path / "adapter", params=QUICK.model_copy(update={"method": method}))
    assert set(files(tmp_path / "adapter")) == {"adapter_config.json", "adapter_model.safetensors"}
    tensors = adapter(tmp_path / "adapter")
    assert len(tensors) == 28, "one adapter: A and B of 7 layers in 2 blocks"
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if "lora_B" in name)
    metrics = result.metrics
    assert metrics["method"] == method
    assert metrics["trainable_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert metrics["validation"]["loss"] < metrics["validation_before"]["loss"]
    assert metrics["validation"]["chosen_logp_drift"] > metrics["validation"]["rejected_logp_drift"]
    assert metrics["validation"]["kl"] > 0
    assert list(metrics["validation"]["by_principle"]) == ["care"]


def test_losses_are_what_their_papers_say_before_a_step(model: Model, tmp_path: Path) -> None:
    """Policy and reference are the same then: every log-ratio is 0."""
    wanted = {
        "dpo-norm": math.log(2),
        "ipo": (1 / (2 * QUICK.beta)) ** 2,
        "apo-zero": 1.0,
        "apo-down": 1.0,
        "kto": 0.5,
    }
    for method, loss in wanted.items():
        result = train(model, tmp_path / method, params=QUICK.model_copy(update={"method": method, "epochs": 0.25}))
        assert result.metrics["validation_before"]["loss"] == pytest.approx(loss, abs=1e-5), method


def test_nll_of_the_chosen_answers_is_added(model: Model, tmp_path: Path) -> None:
    plain = train(model, tmp_path / "plain", params=QUICK)
    added = train(model, tmp_path / "added", params=QUICK.model_copy(update={"nll_coefficient": 0.5}))
    sft = train(model, tmp_path / "sft", params=QUICK.model_copy(update={"method": "sft"}))
    [dpo, both] = (result.metrics["validation_before"]["loss"] for result in (plain, added))
    # SFT's is a mean over tokens, that of the sum over pairs: alike, since all answers are.
    assert both - dpo == pytest.approx(0.5 * sft.metrics["validation_before"]["loss"], rel=0.02)


def test_sft_then_dpo_is_trained_on_a_half_each_from_the_sft_model(model: Model, tmp_path: Path) -> None:
    result = train(model, tmp_path / "adapter", params=QUICK.model_copy(update={"method": "sft+dpo"}))
    sft = [pair for pair in TRAIN if run.half(pair.prompt_id) == "sft"]
    assert (result.metrics["demonstrations"], result.metrics["pairs"]) == (len(sft), len(TRAIN) - len(sft))
    assert 4 <= len(sft) <= 12
    assert [row["step"] for row in result.curve] == list(range(1, len(result.curve) + 1))
    names = [row["phase"] for row in result.curve]
    assert names == ["sft"] * names.count("sft") + ["dpo"] * names.count("dpo")
    # The reference is the SFT model: a new adapter's loss before DPO would be this, too, but not its first rewards.
    assert result.metrics["validation_before"]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    first = next(row for row in result.curve if row["phase"] == "dpo")
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)


def test_each_phase_of_sft_then_dpo_is_resumed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = PARAMS.model_copy(update={"method": "sft+dpo", "sft": PARAMS.sft.model_copy(update={"epochs": 2.0})})
    whole = train(model, tmp_path / "whole", params=params)
    capsys.readouterr()
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    say = phases._Lines.on_log
    for dead in ("sft", "dpo"):

        def kill(self: Any, args: Any, state: TrainerState, *rest: Any, dead: str = dead, **more: Any) -> None:
            if state.global_step == 3 and f"/{dead}/" in args.output_dir:
                raise KeyboardInterrupt
            say(self, args, state, *rest, **more)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(phases._Lines, "on_log", kill)
            train(model, tmp_path / "resumed", params=params)
    assert train(model, tmp_path / "resumed", params=params) == whole
    assert capsys.readouterr().out.count("train: going on from checkpoint-2\n") == 2
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


def test_damaged_first_phase_is_trained_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dead(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    settings = QUICK.model_copy(update={"method": "sft+dpo"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainers, "DPOTrainer", dead)
        train(model, tmp_path / "adapter", params=settings)
    [weights] = (tmp_path / "cache/training").glob("*/sft/finished/weights/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    resumed = train(model, tmp_path / "adapter", params=settings)
    assert "not whole" in capsys.readouterr().out
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    assert train(model, tmp_path / "whole", params=settings) == resumed
    assert files(tmp_path / "adapter") == files(tmp_path / "whole")


def test_all_weights(model: Model, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved as a model that eval loads in the place of the base."""
    target = tmp_path / "models/adapter"
    params = QUICK.model_copy(update={"adapter": "none", "learning_rate": 1e-3})
    result = train(model, target, params=params)
    there = files(target)
    assert set(there) >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert not {name for name in there if name.endswith((".bin", ".md", ".pt"))}
    for path in (tiny_model, target, Path.home()):
        assert not [name for name, content in there.items() if str(path).encode() in content]
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, target))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert (
        result.metrics["trainable_parameters"] == result.metrics["parameters"] == sum(map(torch.numel, after.values()))
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/models.yaml").write_text("{}", encoding="utf-8")
    base: Any = completions.load_engine(str(tiny_model), HARDWARE)
    tuned: Any = completions.load_engine(str(tiny_model), HARDWARE, target)
    assert (base.name, tuned.name) == ("local/tiny", "local/tiny+tuned")
    assert base.identity["weights"] != tuned.identity["weights"]
    assert torch.equal(tuned.model.get_input_embeddings().weight, after["model.embed_tokens.weight"])
    sampling = Generation(temperature=0, min_p=0, repetition_penalty=1)
    asked = [Request(tuple(pair.prompt), 1, 0, 16, sampling) for pair in VALIDATION]
    [said, says] = ([done.text for batch in engine.complete(asked) for _, done in batch] for engine in (base, tuned))
    assert said != says


def test_all_weights_in_two_phases(model: Model, tmp_path: Path) -> None:
    params = QUICK.model_copy(update={"adapter": "none", "learning_rate": 1e-3, "method": "sft+dpo"})
    metrics = train(model, tmp_path / "tuned", params=params).metrics
    assert metrics["validation_before"]["loss"] == pytest.approx(math.log(2), abs=1e-5), (
        "the reference is the SFT model"
    )
    assert metrics["validation"]["reward_margin"] > 0


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
def test_qlora_end_to_end(model: Model, tmp_path: Path) -> None:
    """In NF4, placed by the stage's rule; gradients pass through all layers, also after passes without any."""
    placement = run.placed(model, HARDWARE, QUICK.model_copy(update={"adapter": "qlora"}))
    assert (placement.device, placement.quantization) == ("cpu", "4bit")
    params = PARAMS.model_copy(update={"adapter": "qlora"})  # two epochs: the reference is computed before
    metrics = train(model, tmp_path / "adapter", params=params, placement=placement).metrics
    assert metrics["validation"]["loss"] < metrics["validation_before"]["loss"]
    for form in (placement, CPU):
        adapted = PeftModel.from_pretrained(load.weights(model, form), tmp_path / "adapter")
        ids = torch.arange(3, 20)[None]
        with torch.inference_mode():
            other = adapted(ids).logits
            with adapted.disable_adapter():
                assert not torch.equal(adapted(ids).logits, other)


def test_placed_as_the_adapter_wants_it(model: Model) -> None:
    for name, wanted in {"lora": "none", "qlora": "4bit", "none": "none"}.items():
        assert run.placed(model, HARDWARE, QUICK.model_copy(update={"adapter": name})).quantization == wanted
    quantized = HARDWARE.model_copy(update={"quantization": "8bit"})
    assert run.placed(model, quantized, QUICK).quantization == "8bit"
    assert run.placed(model, quantized, QUICK.model_copy(update={"adapter": "none"})).quantization == "none"


@pytest.mark.parametrize(("device", "devices"), [("cuda", 1), ("mps", 1)])
def test_more_processes_than_devices_are_refused(
    model: Model, device: Any, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such device is here."""
    monkeypatch.setattr(run, "place", lambda *args: Placement(device, "float16", "none", "as the test wants it"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert run.placed(model, HARDWARE, QUICK).device == device
    with pytest.raises(UserError, match=r"^train\.processes: "):
        run.placed(model, HARDWARE, QUICK.model_copy(update={"processes": 2}))


@pytest.mark.parametrize(
    ("device", "dtype", "adapter", "expected"),
    [
        ("cpu", "float32", "lora", ("float32", False, False)),
        ("cpu", "float32", "none", ("float32", False, False)),
        ("cuda", "bfloat16", "lora", ("bfloat16", True, False)),
        ("cuda", "bfloat16", "none", ("float32", True, False)),
        ("cuda", "float16", "qlora", ("float16", False, True)),
        ("cuda", "float32", "none", ("float32", False, False)),
        ("mps", "float16", "lora", ("float16", False, False)),
        ("mps", "float16", "none", ("float32", False, False)),
    ],
)
def test_precision_by_device(device: Any, dtype: Any, adapter: Any, expected: tuple[str, bool, bool]) -> None:
    placement = Placement(device, dtype, "none", "as the test wants it")
    assert trainers.precision(placement, QUICK.model_copy(update={"adapter": adapter})) == expected


def test_reference_is_precomputed_where_that_is_cheaper() -> None:
    def precomputes(**changes: Any) -> bool:
        return trainers.precomputes(QUICK.model_copy(update=changes))

    assert not precomputes()
    assert precomputes(epochs=2.0)
    assert precomputes(adapter="none")
    assert not precomputes(epochs=2.0, precompute_reference=False)
    assert precomputes(precompute_reference=True)


def test_reference_precomputed_or_not_gives_the_same(model: Model, tmp_path: Path) -> None:
    for choice in (True, False):
        train(model, tmp_path / str(choice), params=QUICK.model_copy(update={"precompute_reference": choice}))
    first, second = adapter(tmp_path / "True"), adapter(tmp_path / "False")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_gradient_checkpointing_changes_nothing_but_memory(model: Model, tmp_path: Path) -> None:
    for choice in (True, False):
        train(model, tmp_path / str(choice), params=QUICK.model_copy(update={"gradient_checkpointing": choice}))
    first, second = adapter(tmp_path / "True"), adapter(tmp_path / "False")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_phase_survives_the_way_to_another_process(model: Model, tmp_path: Path) -> None:
    phase = trainers.Phase("dpo", tmp_path, model, CPU, tmp_path / "start", QUICK, 7)
    for sent in (phase, replace(phase, start=None)):
        assert launch.PHASE.validate_json(launch.PHASE.dump_json(sent)) == sent


def test_stop_leaves_after_the_step_with_a_checkpoint(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    noted = Saving.on_step_end

    def told(self: Any, args: Any, state: TrainerState, *rest: Any, **more: Any) -> None:
        if state.global_step == 3:
            stop._note(15, None)
        noted(self, args, state, *rest, **more)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(Saving, "on_step_end", told)
        train(model, tmp_path / "adapter", stop=stop)
    assert left.value.code == STOPPED == 143
    [saved] = (tmp_path / "cache/training").glob("*/dpo/checkpoints/checkpoint-3")
    assert (saved / "adapter_model.safetensors").exists()
    with pytest.raises(SystemExit):  # between trainings it leaves at once
        stop._note(15, None)


def test_prompts_of_evaluation_are_refused() -> None:
    def asked(text: str) -> Prompt:
        labels = {"source_id": "1", "hazard": "none", "persona": "none", "principle": "none"}
        return Prompt(prompt_id="e", text=text, source="test", split="eval", **labels)

    data = TrainingData(TRAIN, VALIDATION, [], [])
    data.refuse_held_out([asked("What is asked nowhere else?")])
    text = TRAIN[3].prompt[-1].content
    with pytest.raises(
        UserError, match=r"^data/pairs: 1 training records ask what .*, first prompt 1-3; take them out"
    ):
        data.refuse_held_out([asked(f" {text.upper()}\n")])
    earlier = TRAIN[0].model_copy(
        update={
            "prompt": [
                Message(role="user", content="Once."),
                Message(role="assistant", content="Yes."),
                Message(role="user", content="Twice."),
            ]
        }
    )
    with pytest.raises(UserError, match="1 training records"):
        TrainingData([earlier], VALIDATION, [], []).refuse_held_out([asked("once.")])


def test_settings_of_launch_name_every_process_and_no_command(model: Model, tmp_path: Path) -> None:
    several: Train = QUICK.model_copy(update={"processes": 4, "sharding": "fsdp"})
    settings = launch._accelerate(trainers.Phase("dpo", tmp_path, model, CPU, None, several, 7))
    assert (settings["num_processes"], settings["distributed_type"]) == (4, "FSDP")
    assert json.dumps(settings["fsdp_config"])
