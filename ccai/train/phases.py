"""One phase of a training in one of its processes, resumed from the last complete checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ccai.base.errors import UserError
from ccai.base.files import write_json
from ccai.base.params import Train
from ccai.models import memory
from ccai.models.placement import Placement
from ccai.train import checkpoints, trainers, warnings
from ccai.train.checkpoints import STOPPED, Stop
from ccai.train.trainers import Phase


def result(folder: Path) -> dict[str, Any]:
    """The result of a finished phase: its steps as TRL logs them, losses on validation, and counts."""
    read: dict[str, Any] = json.loads((folder / "finished" / "result.json").read_text(encoding="utf-8"))
    return read


@contextmanager
def explained(params: Train, placement: Placement) -> Iterator[None]:
    """Turn errors of full memory or disk, anywhere in training, into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if memory.ran_out(error):
            raise UserError(
                f"train: out of memory on {placement.device}; {_smaller(params, placement)}, or take a smaller model; "
                "with nothing changed, the same command goes on from the last checkpoint"
            ) from None
        if isinstance(error, OSError):
            raise UserError(
                f"train: {error.filename or 'a file'}: {error.strerror or error}; free some space or make its folder "
                "writable, and run again"
            ) from None
        raise


def _smaller(params: Train, placement: Placement) -> str:
    """Parameters that would need less memory, the ones that change the result least first."""
    ways = [] if params.per_device == 1 else ["lower train.per_device"]
    if params.gradient_checkpointing is False or (
        params.gradient_checkpointing == "auto" and placement.device == "cpu"
    ):
        ways.append("set train.gradient_checkpointing to true")
    if params.precompute_reference is False:
        ways.append("set train.precompute_reference to true")
    if params.processes > 1 and params.sharding == "none":
        ways.append("set train.sharding to fsdp")
    ways.append("lower train.max_length")
    if params.adapter != "qlora" and placement.quantization != "4bit":
        ways.append(f"set train.adapter to {'lora' if params.adapter == 'none' else 'qlora'}")
    return ", ".join(ways)


def train(phase: Phase, stop: Stop) -> None:
    """Train, and leave `finished/weights` and `finished/result.json` in the phase's folder, both or none.

    Raises:
        UserError: loss or gradient became NaN or infinite; memory or disk is full.
        SystemExit: stopped by a signal; a checkpoint was saved.
    """
    with explained(phase.params, phase.placement):
        _train(phase, stop)


def _train(phase: Phase, stop: Stop) -> None:
    saved = phase.folder / "checkpoints"
    watch = warnings.Watch(phase.params.batch_size, phase.params.beta, saved)
    trainer = trainers.make(phase, [_Lines(), watch, checkpoints.Saving(stop)])
    checkpoint = checkpoints.last(saved)
    if checkpoint and trainer.is_world_process_zero():
        print(f"train: going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.requested:
        raise SystemExit(STOPPED)
    before = next(row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row)
    after = trainer.evaluate()["eval_loss"]
    if not (math.isfinite(before) and math.isfinite(after)):
        raise UserError(
            f"train: the loss on validation is {before} before training and {after} after; "
            "lower train.learning_rate or train.beta"
        )
    trained = [weights for weights in trainer.model.parameters() if weights.requires_grad]
    if not all(torch.isfinite(weights).all() for weights in trained):
        raise UserError("train: the weights hold NaN or infinity; lower train.learning_rate")
    whole = phase.folder / "saving"
    if trainer.is_world_process_zero():
        shutil.rmtree(whole, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(whole / "weights"))
    if trainer.is_world_process_zero():
        state = trainer.state
        numbers = {
            # In float16 a step whose gradient overflows is skipped: its norm is not finite, and is left out.
            "steps": [
                {name: value for name, value in row.items() if math.isfinite(value)}
                for row in state.log_history
                if "loss" in row
            ],
            "loss_before": before,
            "loss_after": after,
            "epochs": state.epoch,
            "tokens": state.num_input_tokens_seen,
            "trainable_parameters": sum(weights.numel() for weights in trained),
        }
        write_json(whole / "result.json", numbers)
        checkpoints.seal(whole)
        whole.rename(phase.folder / "finished")
        shutil.rmtree(saved)
    trainer.accelerator.wait_for_everyone()


class _Lines(TrainerCallback):  # type: ignore[misc]
    """Prints one line per logged step instead of transformers' dictionaries."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            print(f"train: step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4f}", flush=True)
