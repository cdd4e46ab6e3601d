"""Real DPO with LoRA through TRL on the tiny model: the same bytes again, after a kill, and elsewhere."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CPU, as_model, load_engine
from helpers.trained import pairs
from helpers.training import PARAMS, TRAIN, VALIDATION, VERSIONS, files, train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel
from trl.trainer import utils as trl_utils

from ccai.base import cache, code
from ccai.base.errors import UserError
from ccai.base.params import Generation, Train
from ccai.engines.base import Request
from ccai.engines.transformers import Transformers
from ccai.models.model import Model
from ccai.train import phases, rewards, run

STEPS = 8
SHORT = PARAMS.model_copy(update={"epochs": 0.5})


class Run:
    """A finished run, in a cache of its own."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.cache, self.adapter = folder / "cache", folder / "adapter"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CCAI_CACHE", str(self.cache))
            self.result = train(model, self.adapter)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return as_model(tiny_model)


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained without interruption."""
    return Run(model, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def killed(model: Model, tmp_path: Path) -> Callable[[int], Path]:
    """Interrupts training as the given step is logged, when the checkpoint of the step before is the last one;
    returns the folder of the checkpoints."""

    def kill(at: int) -> Path:
        def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == at:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(phases._Lines, "on_log", stop)
            train(model, tmp_path / "adapter")
        assert not (tmp_path / "adapter").exists()
        [work] = cache.folder("training").iterdir()
        return work / "dpo/checkpoints"

    return kill


def test_same_bytes_in_another_cache_and_under_another_path(
    model: Model, whole: Run, tmp_path: Path, tiny_model: Path
) -> None:
    copied = replace(model, folder=shutil.copytree(tiny_model, tmp_path / "a copy of the model"))
    again = train(copied, tmp_path / "elsewhere" / "tuned")
    assert not again.reused
    assert files(tmp_path / "elsewhere" / "tuned") == files(whole.adapter)
    assert again == whole.result


def test_adapter_folder_tells_nothing_of_the_machine(whole: Run, tiny_model: Path) -> None:
    there = files(whole.adapter)
    assert set(there) == {"adapter_config.json", "adapter_model.safetensors"}
    for name, content in there.items():
        for path in (tiny_model, whole.cache, whole.adapter, Path.home(), Path.cwd()):
            assert str(path).encode() not in content, f"{path} in {name}"
    config = json.loads(there["adapter_config.json"])
    assert config["base_model_name_or_path"] == "org/tiny"
    assert config["revision"] == "0123abcd"
    adapted = config["target_modules"]
    assert adapted == sorted(adapted)
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.rpartition(".")[2] for name in adapted} == linear
    assert list(config) == sorted(config)


def test_numbers_are_finite_and_true(whole: Run, tiny_model: Path) -> None:
    metrics, curve, reused = whole.result
    assert not reused

    def numbers(value: Any) -> Iterator[float]:
        for item in value.values() if isinstance(value, dict) else value:
            if not isinstance(item, str):
                yield from numbers(item) if isinstance(item, dict | list) else [item]

    assert all(math.isfinite(number) for number in numbers([metrics, curve]))
    assert (metrics["pairs"], metrics["validation_pairs"], metrics["over_length"]) == (16, 6, 0)
    assert (metrics["steps"], metrics["effective_batch"], metrics["devices"]) == (STEPS, 4, 1)
    assert metrics["length_ratio"] == 1.5
    tensors = load_file(whole.adapter / "adapter_model.safetensors")
    assert metrics["trainable_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert [row["step"] for row in curve] == list(range(1, STEPS + 1))
    assert set(curve[0]) == set(run.CURVE)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [
        [turn.model_dump() for turn in [*pair.prompt, *side]] for pair in TRAIN for side in (pair.chosen, pair.rejected)
    ]
    assert metrics["tokens"] == PARAMS.epochs * sum(map(len, tokenizer.apply_chat_template(rows)["input_ids"]))
    assert metrics["epochs"] == PARAMS.epochs
    assert metrics["warnings"] == []
    assert (metrics["loss_first"], metrics["loss_last"]) == (curve[0]["loss"], curve[-1]["loss"])


def test_only_answers_pass_the_head(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither prompts nor padding: policy and reference in the epoch, and on the validation pairs before and after."""
    passed: list[int] = []
    head = trl_utils._ChunkedLogProbFunction

    def seen(hidden: torch.Tensor, *rest: Any) -> Any:
        passed.append(len(hidden))
        return head.apply(hidden, *rest)

    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=seen))
    train(model, tmp_path / "adapter", params=PARAMS.model_copy(update={"epochs": 1.0}))
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    answers = [
        sum(rewards._tokens(tokenizer, pair.prompt, side)[1] for pair in part for side in (pair.chosen, pair.rejected))
        for part in (TRAIN, VALIDATION)
    ]
    assert sum(passed) == 2 * answers[0] + 4 * answers[1]


def test_before_training_the_policy_is_the_reference_and_afterwards_prefers_the_chosen(whole: Run) -> None:
    before, after = whole.result.metrics["validation_before"], whole.result.metrics["validation"]
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert after["loss"] < before["loss"]
    assert after["reward_margin"] > 0
    drift = after["chosen_logp_drift"] - after["rejected_logp_drift"]
    assert after["reward_margin"] == pytest.approx(PARAMS.beta * drift, rel=1e-4)


def test_tuned_model_writes_otherwise_and_the_base_as_ever(whole: Run, tiny_model: Path) -> None:
    sampling = Generation(temperature=0, min_p=0, repetition_penalty=1)
    asked = [Request(tuple(pair.prompt), 1, 0, 16, sampling) for pair in VALIDATION]

    def texts(engine: Transformers) -> list[str]:
        return [done.text for _, done in sorted(entry for batch in engine.complete(asked) for entry in batch)]

    base = load_engine(tiny_model)
    before = texts(base)
    tuned = texts(load_engine(tiny_model, whole.adapter))
    assert tuned != before
    assert texts(base) == texts(load_engine(tiny_model)) == before


def test_finished_run_is_copied_from_the_cache(
    model: Model, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAI_CACHE", str(whole.cache))
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "left over.bin").write_text("of another run")
    again = train(model, target)
    assert again == whole.result._replace(reused=True)
    assert files(target) == files(whole.adapter)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    [work] = (whole.cache / "training").iterdir()
    assert {path.name for path in work.iterdir()} == {"lock", "finished"}, "checkpoints are of no use any more"
    other_reason = CPU._replace(reason="another day, another amount of memory")
    assert train(model, target, placement=other_reason).reused


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", torn),
        ("result.json", lambda path: path.write_text("[]")),
        ("weights/adapter_model.safetensors", torn),
        ("weights/adapter_config.json", Path.unlink),
        ("manifest.json", Path.unlink),
        ("", lambda path: (shutil.rmtree(path), path.touch())),
    ],
)
def test_damaged_finished_run_is_trained_again(
    model: Model,
    whole: Run,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CCAI_CACHE", str(shutil.copytree(whole.cache, tmp_path / "copy")))
    [finished] = (tmp_path / "copy/training").glob("*/finished")
    damage(finished / name)
    again = train(model, tmp_path / "adapter")
    assert "not whole" in capsys.readouterr().out
    assert again == whole.result
    assert files(tmp_path / "adapter") == files(whole.adapter)


def test_only_what_was_trained_is_given_back(
    model: Model, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCAI_CACHE", str(shutil.copytree(whole.cache, tmp_path / "copy")))
    [finished] = (tmp_path / "copy/training").glob("*/finished")
    (finished / "weights/adapter_model.safetensors.sagemaker-uploaded").touch()
    assert train(model, tmp_path / "adapter").reused
    assert files(tmp_path / "adapter") == files(whole.adapter)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
def test_any_seed_that_params_take_trains(model: Model, tmp_path: Path, seed: int) -> None:
    assert train(model, tmp_path / "adapter", params=SHORT, seed=seed).metrics["steps"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": TRAIN[1:]},
        {"validation": VALIDATION[1:]},
        {"params": PARAMS.model_copy(update={"epochs": 1.0})},
        {"seed": 8},
        {"versions": VERSIONS | {"trl": "3"}},
        {"placement": CPU._replace(dtype="bfloat16")},
        {"params": PARAMS.model_copy(update={"method": "ipo"})},
        {"model": {"name": "org/other"}},
        {"model": {"pin": "4567"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_input_is_another_run(
    model: Model, whole: Run, tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("CCAI_CACHE", str(whole.cache))
    monkeypatch.setattr(run, "_run", begun)
    with pytest.raises(KeyboardInterrupt):
        train(replace(model, **change.pop("model", {})), tmp_path / "adapter", **change)


def test_adapter_begins_where_the_seed_says(model: Model, tmp_path: Path) -> None:
    """lora_A is drawn within 1/8 of 0; two steps of another order of the pairs move it by a hundredth at most."""
    for seed in (7, 8):
        train(model, tmp_path / str(seed), params=SHORT, seed=seed)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "78")
    gaps = [(first[name] - second[name]).abs().mean() for name in first if "lora_A" in name]
    assert min(gaps) > 0.03


def test_two_at_once_train_once(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two experiments in a queue may; the second waits for the first."""
    # Experiments are two processes. In two threads of one, ast.parse fails at times (CPython 3.11).
    whole = code.fingerprint("ccai.train.run")
    monkeypatch.setattr(code, "fingerprint", lambda module: whole)
    targets = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda target: train(model, target, params=SHORT), targets)
    assert sorted([first.reused, second.reused]) == [False, True]
    assert first.metrics == second.metrics
    assert files(targets[0]) == files(targets[1])


@pytest.mark.parametrize("at", [2, 6])
def test_killed_run_goes_on_to_the_same_adapter(
    model: Model,
    whole: Run,
    killed: Callable[[int], Path],
    at: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed(at)
    resumed = train(model, tmp_path / "adapter")
    said = capsys.readouterr().out
    assert f"train: going on from checkpoint-{at - 1}\n" in said
    assert f"train: step {at}/{STEPS}," in said
    assert f"train: step {at - 1}/{STEPS}," not in said
    assert resumed == whole.result
    assert files(tmp_path / "adapter") == files(whole.adapter)


@pytest.mark.parametrize("lost", ["trainer_state.json", "adapter_model.safetensors"])
def test_checkpoint_torn_by_the_kill_is_passed_over(
    model: Model,
    whole: Run,
    killed: Callable[[int], Path],
    lost: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint is written file by file, trainer_state.json last."""
    torn = killed(5) / "checkpoint-4"
    state = (torn / "trainer_state.json").read_text()
    (torn / lost).unlink()
    (torn / "trainer_state.json").unlink(missing_ok=True)
    if lost == "trainer_state.json":
        (torn / lost).write_text(state[: len(state) // 2])
    assert train(model, tmp_path / "adapter") == whole.result
    assert "train: going on from checkpoint-3\n" in capsys.readouterr().out
    assert files(tmp_path / "adapter") == files(whole.adapter)


def test_killed_before_the_first_checkpoint_begins_again(
    model: Model, whole: Run, killed: Callable[[int], Path], tmp_path: Path
) -> None:
    killed(1)
    assert train(model, tmp_path / "adapter") == whole.result
    assert files(tmp_path / "adapter") == files(whole.adapter)


def test_pairs_too_long_are_counted_and_left_out(model: Model, tmp_path: Path) -> None:
    long = pairs(3, seed=3, words=80)
    result = train(model, tmp_path / "adapter", pairs=[*long, *TRAIN], validation=VALIDATION + long[:1], params=SHORT)
    assert (result.metrics["pairs"], result.metrics["validation_pairs"], result.metrics["over_length"]) == (16, 6, 4)
    assert result.metrics["steps"] == 2


@pytest.mark.parametrize("side", ["pairs", "validation"])
def test_no_pair_that_fits_is_one_line(model: Model, tmp_path: Path, side: str) -> None:
    with pytest.raises(
        UserError, match=r"train\.max_length: none of \d+ training or \d+ validation pairs fits 128 tokens"
    ):
        train(model, tmp_path / "adapter", **{side: pairs(3, seed=3, words=80)})
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("first", ["System role not supported", "a + 1"])
def test_template_that_refuses_a_pair_is_one_line(model: Model, tmp_path: Path, first: str) -> None:
    """As those do that know no system message, or stumble."""
    folder = shutil.copytree(model.folder, tmp_path / "model")
    template = folder / "chat_template.jinja"
    refusal = "{{ messages[0].content + 1 }}" if first == "a + 1" else "{{ raise_exception('" + first + "') }}"
    template.write_text("{% if messages[0].role == 'system' %}" + refusal + "{% endif %}" + template.read_text())
    with pytest.raises(UserError, match=r"^model org/tiny: its chat template "):
        train(as_model(folder), tmp_path / "adapter")


def test_pair_without_a_prompt_is_one_line(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prompt 1-0"):
        train(model, tmp_path / "adapter", pairs=[TRAIN[0].model_copy(update={"prompt": []})])


@pytest.mark.parametrize("given", [{"validation": []}, {"pairs": TRAIN[:1], "method": "sft+dpo"}])
def test_too_few_for_a_method_is_one_line(model: Model, tmp_path: Path, given: dict[str, Any]) -> None:
    params = PARAMS.model_copy(update={"method": given.pop("method", "dpo")})
    with pytest.raises(UserError, match=r"^data/pairs: "):
        train(model, tmp_path / "adapter", params=params, **given)


@pytest.mark.parametrize("when", [1, 2])
def test_device_without_memory_is_one_line_and_goes_on(
    model: Model, whole: Run, tmp_path: Path, when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a forward pass of a step, as CUDA says it; a real allocation is in test_stage_train.py."""
    steps = 0
    forward = LlamaModel.forward

    def full(self: Any, *args: Any, **kwargs: Any) -> Any:
        if steps == when:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, *args, **kwargs)

    def counted(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        nonlocal steps
        steps = state.global_step

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"out of memory .*train\.per_device") as error:
        patch.setattr(LlamaModel, "forward", full)
        patch.setattr(phases._Lines, "on_log", counted)
        train(model, tmp_path / "adapter")
    assert "\n" not in str(error.value)
    assert train(model, tmp_path / "adapter") == whole.result
    assert files(tmp_path / "adapter") == files(whole.adapter)


def test_broken_numbers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Weights whose logits are finite for one token, and overflow when they are added up: every gradient is NaN."""
    broken = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        broken.lm_head.weight *= 3e36
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    broken.save_pretrained(folder)
    with pytest.raises(
        UserError, match=r"^train: loss is nan at step 1; there was no checkpoint yet; lower train\.learning_rate$"
    ):
        train(as_model(folder), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("params", [SHORT, PARAMS], ids=["half an epoch", "two epochs"])
def test_killed_between_the_last_step_and_the_end_takes_no_step_more(
    model: Model, params: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(phases, "write_json", killed)
        train(model, tmp_path / "resumed", params=params)
    resumed = train(model, tmp_path / "resumed", params=params)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    assert train(model, tmp_path / "whole", params=params) == resumed
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")
