"""The train stage as a process: killed, told to stop, in two processes, and refusing what it must not train on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from helpers import trained
from helpers.project import SMALL
from helpers.training import PARAMS, TRAIN, VALIDATION
from safetensors.torch import load_file

from ccai.base import files
from ccai.base.params import Train
from ccai.base.records import Prompt
from ccai.train import checkpoints

LONG = PARAMS.model_copy(update={"epochs": 6.0})
STEPS = 24
TENSORS = "models/adapter/adapter_model.safetensors"


class Stage:
    """A folder in which `python -m stages.train` runs."""

    def __init__(self, folder: Path, model: Path, params: Train, asked: str = "What is asked nowhere else?") -> None:
        self.folder = folder
        for name in ("conf/models.yaml", "conf/versions.yaml"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for section, changes in SMALL.items():
            values[section] |= changes
        values |= {"models": dict.fromkeys(values["models"], str(model)), "train": params.model_dump()}
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        trained.write(folder / "data/pairs", TRAIN, VALIDATION)
        labels = {"source_id": "1", "hazard": "none", "persona": "none", "principle": "none"}
        prompt = Prompt(prompt_id="e", text=asked, source="test", split="eval", **labels)  # type: ignore[arg-type]
        files.write(folder / "data/prompts/eval.jsonl", [prompt])
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "CCAI_CACHE": str(folder / "cache")}
        self.environment["OMP_NUM_THREADS"] = "1"

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def in_each_process(self, code: str) -> None:
        """Python to be run in each process of a training in several, before it begins; it finds `phases` there."""
        folder = self.folder / "site"
        folder.mkdir()
        first = "import os\nif 'LOCAL_RANK' in os.environ:\n    from ccai.train import phases\n"
        (folder / "sitecustomize.py").write_text(first + textwrap.indent(code, "    "))
        self.environment["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"

    def refused(self) -> str:
        """The one line with which it ends."""
        process = self.start()
        _, err = process.communicate()
        assert process.returncode == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    def run(self) -> str:
        process = self.start()
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        return out

    def interrupt(self, at: int, number: signal.Signals) -> subprocess.CompletedProcess[str]:
        """Send a signal to the stage as it has said that step `at` is done; what it said, and how it ended."""
        process, said = self.start(), ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith(f"train: step {at}/"):
                process.send_signal(number)
        return subprocess.CompletedProcess(process.args, process.wait(), said)

    def saved(self) -> int:
        """The step that it would go on from."""
        [folder] = (self.folder / "cache/training").glob("*/dpo/checkpoints")
        last = checkpoints.last(folder)
        assert last is not None
        return int(last.name.partition("-")[2])

    @property
    def metrics(self) -> Any:
        return json.loads((self.folder / "metrics/train.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Run without interruption."""
    stage = Stage(tmp_path_factory.mktemp("whole"), tiny_model, LONG)
    stage.run()
    return stage


def test_goes_on_to_the_same_tensors(whole: Stage, tiny_model: Path, tmp_path: Path) -> None:
    """Told to stop, started again, killed, and started again."""
    stage = Stage(tmp_path, tiny_model, LONG)
    stopped = stage.interrupt(6, signal.SIGTERM)
    at = stage.saved()
    assert stopped.returncode == 143
    assert f"train: told to stop; saving step {at}/{STEPS}\n" in stopped.stdout
    assert 6 <= at <= 7
    killed = stage.interrupt(14, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert f"train: going on from checkpoint-{at}\n" in killed.stdout
    assert f"train: step {at}/" not in killed.stdout
    assert not (tmp_path / TENSORS).exists()
    at = stage.saved()
    assert at >= 12
    said = stage.run()
    assert f"train: going on from checkpoint-{at}\n" in said
    assert f"train: step {at}/" not in said
    for name in (TENSORS, "metrics/train.json", "metrics/plots/train.csv"):
        assert (tmp_path / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.slow
def test_other_params_begin_anew(tiny_model: Path, tmp_path: Path) -> None:
    Stage(tmp_path, tiny_model, LONG).interrupt(9, signal.SIGKILL)
    said = Stage(tmp_path, tiny_model, LONG.model_copy(update={"beta": 0.2, "epochs": 0.5})).run()
    assert "going on" not in said
    assert "train: step 1/" in said


def test_prompt_of_evaluation_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny_model, LONG, asked=TRAIN[0].prompt[-1].content)
    assert stage.refused().startswith(
        "error: data/pairs: 2 training records ask what data/prompts/eval.jsonl asks, first prompt 1-0"
    )


TWO = PARAMS.model_copy(update={"processes": 2, "per_device": 1, "epochs": 1.0})

SEEN = """\
before = phases._Lines.on_log
def on_log(self, args, state, control, logs=None, **kwargs):
    weights = [f"{type(one).__name__} {one.device}" for one in kwargs["model"].parameters() if one.requires_grad]
    with open(f"weights{args.process_index}.txt", "a") as file:
        print(state.global_step, *sorted(set(weights)), file=file)
    before(self, args, state, control, logs, **kwargs)
phases._Lines.on_log = on_log
"""
"""Notes in each process, at each line of the log, what the weights are that are trained."""


@pytest.mark.parametrize(
    ("sharding", "adapter"),
    [
        ("fsdp", "lora"),
        pytest.param("fsdp", "none", marks=pytest.mark.slow),
        pytest.param("none", "lora", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one_does(tiny_model: Path, tmp_path: Path, sharding: str, adapter: str) -> None:
    """Through gloo on the CPU. The sums of gradients are taken in another order: that is all that is different."""
    rate = 1e-3 if adapter == "none" else TWO.learning_rate
    params = TWO.model_copy(update={"adapter": adapter, "learning_rate": rate})
    alone = Stage(tmp_path / "one", tiny_model, params.model_copy(update={"processes": 1}))
    alone.run()
    both = Stage(tmp_path / "two", tiny_model, params.model_copy(update={"sharding": sharding}))
    both.in_each_process(SEEN)
    said = both.run()
    kind = "DTensor cpu" if sharding == "fsdp" else "Parameter cpu"
    for rank in range(2):
        seen = (both.folder / f"weights{rank}.txt").read_text().splitlines()
        assert {f"{step} {kind}" for step in range(1, 5)} <= set(seen)
    assert said.count("train: step 1/4,") == 1, "one of them speaks"
    one, two = alone.metrics, both.metrics
    assert (one["devices"], two["devices"]) == (1, 2)
    for name in ("effective_batch", "steps", "tokens", "epochs", "trainable_parameters"):
        assert one[name] == two[name], name
    assert two["validation"]["reward_margin"] == pytest.approx(one["validation"]["reward_margin"], rel=1e-3)
    name = TENSORS if adapter == "lora" else "models/adapter/model.safetensors"
    first, second = (load_file(stage.folder / name) for stage in (alone, both))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_are_told_to_stop_and_go_on(tiny_model: Path, tmp_path: Path, sharding: str) -> None:
    params = TWO.model_copy(update={"epochs": 3.0, "sharding": sharding})
    whole, stage = Stage(tmp_path / "whole", tiny_model, params), Stage(tmp_path / "stopped", tiny_model, params)
    whole.run()
    stopped = stage.interrupt(5, signal.SIGTERM)
    assert stopped.returncode == 143
    assert stopped.stdout.count("train: told to stop") == 1
    assert "train: going on from checkpoint-" in stage.run()
    assert (stage.folder / TENSORS).read_bytes() == (whole.folder / TENSORS).read_bytes()


FULL = """\
import torch
before = phases.checkpoints.Saving.on_step_end
def on_step_end(self, args, state, control, **kwargs):
    if state.global_step == 3 and args.process_index == 1:
        torch.empty(2**60, dtype=torch.uint8)
    before(self, args, state, control, **kwargs)
phases.checkpoints.Saving.on_step_end = on_step_end
"""

DEAD = FULL.replace("torch.empty(2**60, dtype=torch.uint8)", "os.kill(os.getpid(), 9)")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "told"), [(FULL, "out of memory"), (DEAD, "signal 9")], ids=["allocation", "killed"])
def test_memory_that_is_short_in_one_of_two_processes_is_one_line(
    tiny_model: Path, tmp_path: Path, code: str, told: str
) -> None:
    """More than there is, really asked for; or what the kernel does about it."""
    stage = Stage(tmp_path / "stage", tiny_model, TWO.model_copy(update={"epochs": 2.0}))
    stage.in_each_process(code)
    assert told in stage.refused()
    (stage.folder / "site/sitecustomize.py").unlink()
    assert "train: going on from checkpoint-2\n" in stage.run()


@pytest.mark.slow
def test_error_in_one_of_two_processes_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny_model, TWO.model_copy(update={"method": "ipo", "beta": 1e-25}))
    said = stage.refused()
    assert said.startswith("error: train: "), said
