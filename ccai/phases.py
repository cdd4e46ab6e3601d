"""One phase of a training from first to last step, in one of its processes; goes on from the last whole checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ccai import alarms, checkpoints, trainers
from ccai.checkpoints import STOPPED, Stop
from ccai.errors import UserError
from ccai.records import write_json
from ccai.trainers import Phase


def result(folder: Path) -> dict[str, Any]:
    """What a finished phase says of itself: its steps as TRL logs them, losses on validation, and counts."""
    read: dict[str, Any] = json.loads((folder / "finished" / "result.json").read_text(encoding="utf-8"))
    return read


def train(phase: Phase, stop: Stop) -> None:
    """Train, and leave `finished/weights` and `finished/result.json` in the phase's folder, both or none.

    Raises:
        UserError: loss or gradient became NaN or infinite.
        SystemExit: told to stop; a checkpoint was saved.
    """
    saved = phase.folder / "checkpoints"
    watch = alarms.Watch(phase.params.batch_size, phase.params.beta, saved)
    trainer = trainers.make(phase, [_Lines(), watch, checkpoints.Saving(stop)])
    checkpoint = checkpoints.last(saved)
    if checkpoint and trainer.is_world_process_zero():
        print(f"train: going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        raise SystemExit(STOPPED)
    after = trainer.evaluate()["eval_loss"]
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
            "steps": [row for row in state.log_history if "loss" in row],
            "loss_before": next(row["eval_loss"] for row in state.log_history if "eval_loss" in row),
            "loss_after": after,
            "epochs": state.epoch,
            "tokens": state.num_input_tokens_seen,
            "trainable_parameters": sum(weights.numel() for weights in trained),
        }
        write_json(whole / "result.json", numbers)
        whole.rename(phase.folder / "finished")
        shutil.rmtree(saved)
    trainer.accelerator.wait_for_everyone()


class _Lines(TrainerCallback):  # type: ignore[misc]
    """One line per logged step instead of transformers' dictionaries."""

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
