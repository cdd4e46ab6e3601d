"""Checkpoints of a training: which is the last whole one, and one more where SIGTERM says that the machine goes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

STOPPED = 128 + signal.SIGTERM
"""Exit code of a process that ended because of SIGTERM."""


class Stop:
    """SIGTERM, as a context manager around a training.

    While steps are taken it is only noted: `Saving` ends the step at hand, saves, and leaves. At other times nothing
    would be lost, and the process ends at once, as other commands do.

    Attributes:
        asked: SIGTERM came while steps were taken.
        deferred: steps are being taken.
    """

    def __init__(self) -> None:
        self.asked = self.deferred = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred:
            raise SystemExit(STOPPED)
        self.asked = True


class Saving(TrainerCallback):  # type: ignore[misc]
    """Ends the training with a checkpoint after the step in which any of its processes was told to stop."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stop.deferred = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:  # all of them, or none: they save together
            told = torch.tensor(int(self._stop.asked), device=args.device)
            torch.distributed.all_reduce(told)
            self._stop.asked = bool(told.item())
        if self._stop.asked:
            print(f"train: told to stop; saving step {state.global_step}/{state.max_steps}", flush=True)
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stop.deferred = False


def last(folder: Path) -> Path | None:
    """The last checkpoint to go on from. A kill may leave half of one; the trainer's state is written last.

    One of the very last step is passed over: from there, transformers takes another step if an epoch is not over.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        try:
            state = json.loads((path / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        if state["global_step"] < state["max_steps"]:
            return path
    return None
