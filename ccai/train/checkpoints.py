"""Checkpoints of a training: the last complete one, and an extra one when SIGTERM ends the process.

Folders that must be complete to be used are sealed: a manifest, written last, lists their files.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import torch.distributed
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ccai.base.files import write_json
from ccai.base.hashing import sha256_of

MANIFEST = "manifest.json"

STOPPED = 128 + signal.SIGTERM
"""Exit code of a process that ended because of SIGTERM."""


class Stop:
    """A handler of SIGTERM, as a context manager around a training.

    During the training steps the signal is only noted: `Saving` finishes the current step, saves, and stops. At other
    times nothing would be lost, and the process ends at once, like other commands.

    Attributes:
        requested: SIGTERM arrived during the steps.
        deferred: the steps are running.
    """

    def __init__(self) -> None:
        self.requested = self.deferred = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred:
            raise SystemExit(STOPPED)
        self.requested = True


class Saving(TrainerCallback):  # type: ignore[misc]
    """Seals checkpoints, and ends the training with one after a step in which any process received SIGTERM."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stop.deferred = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:  # all processes or none: they save together
            signal_anywhere = torch.tensor(int(self._stop.requested), device=args.device)
            torch.distributed.all_reduce(signal_anywhere)
            self._stop.requested = bool(signal_anywhere.item())
        if self._stop.requested:
            if state.is_world_process_zero:
                print(f"train: told to stop; saving step {state.global_step}/{state.max_steps}", flush=True)
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:  # each process writes its own files
            torch.distributed.barrier()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stop.deferred = False


def seal(folder: Path) -> None:
    """List all files of a finished folder with size and sha256 in a manifest, which is written last."""
    files = {name: _ManifestEntry.of(folder / name).model_dump() for name in _names(folder)}
    write_json(folder / MANIFEST, files)


def flaw(folder: Path) -> str | None:
    """How a folder differs from the one that was sealed; None: it is the same, to the last byte.

    A kill, a truncated copy or an interrupted sync may have left less. Files added later, for example by sync tools,
    are deleted if the rest is complete: whoever reads or copies the folder would take them for part of it.
    """
    try:
        files = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return f"no {MANIFEST}"
    except (OSError, ValidationError):
        return f"{MANIFEST} can't be read"
    for name, file in files.items():
        try:
            same = (folder / name).stat().st_size == file.bytes and _ManifestEntry.of(folder / name) == file
        except OSError:
            return f"{name} is missing or can't be read"
        if not same:
            return f"{name} is not what was saved"
    for name in _names(folder) - files.keys():
        (folder / name).unlink()
    return None


def settle(folder: Path) -> None:
    """Tidy up after a killed run: keep the checkpoint to resume from, and none that is newer than `last`.

    Incomplete checkpoints are reported. One of the very last step is skipped: from there transformers takes another
    step if an epoch is not over.
    """
    for path in _newest_first(folder):
        wrong = flaw(path)
        if wrong is None:
            state = json.loads((path / TRAINER_STATE_NAME).read_bytes())
            if state["global_step"] < state["max_steps"]:
                return
        else:
            print(f"train: {path.name} is not whole ({wrong}); passed over", flush=True)
        remove(path)  # transformers would count it towards the checkpoints to keep


def last(folder: Path) -> Path | None:
    """The newest checkpoint that was saved completely; after `settle`, the one to resume from."""
    return next((path for path in _newest_first(folder) if (path / MANIFEST).exists()), None)


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _ManifestEntry(BaseModel):
    """One file's entry in a manifest."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> _ManifestEntry:
        return cls(sha256=sha256_of(path), bytes=path.stat().st_size)


_MANIFEST = TypeAdapter(Annotated[dict[str, _ManifestEntry], Field(min_length=1)])


def _names(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in files} - {MANIFEST}


def _newest_first(folder: Path) -> list[Path]:
    named = [(re.fullmatch(r"checkpoint-([0-9]{1,18})", path.name), path) for path in folder.glob("checkpoint-*")]
    return [path for _, path in sorted(((int(name[1]), path) for name, path in named if name), reverse=True)]
