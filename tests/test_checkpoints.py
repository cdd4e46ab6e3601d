"""Only a checkpoint that holds every byte that was saved is gone on from; else the one before, else the start."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import as_model
from helpers.training import train

from ccai.train import checkpoints, phases

STEP = 5
"""At which training is killed: checkpoints of steps 3 and 4 are there."""

FILES = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training_args.bin",
]


@pytest.fixture(scope="module")
def saved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a training that was killed."""
    folder = tmp_path_factory.mktemp("killed")

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setenv("CCAI_CACHE", str(folder))
        patch.setattr(phases._Lines, "on_log", stop)
        train(as_model(tiny_model), folder / "adapter")
    [found] = folder.glob("training/*/dpo/checkpoints")
    return found


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def test_these_are_the_files(saved: Path) -> None:
    assert names(saved) == {"README.md", "checkpoint-3", "checkpoint-4"}
    assert names(saved / "checkpoint-4") == {*FILES, checkpoints.MANIFEST}


@pytest.mark.parametrize("damage", [shortened, emptied, changed, Path.unlink, replaced, dangling])
@pytest.mark.parametrize("name", [*FILES, checkpoints.MANIFEST])
def test_damage_to_any_file_is_found(
    copy: Path, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copy / "checkpoint-4" / name)
    if (name, damage) == (checkpoints.MANIFEST, shortened):  # its last byte is the end of a line
        shortened(copy / "checkpoint-4" / name)
    checkpoints.settle(copy)
    assert checkpoints.last(copy) == copy / "checkpoint-3"
    assert not (copy / "checkpoint-4").exists()
    [line] = capsys.readouterr().out.splitlines()
    assert "checkpoint-4" in line
    assert name in line or name == checkpoints.MANIFEST


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "{}", "7", '{"a": 1}', '{"a": {}}', '{"optimizer.pt": {"bytes": "x", "sha256": 1}}', "[" * 100_000],
)
def test_a_manifest_of_any_other_form_proves_nothing(copy: Path, text: str) -> None:
    for checkpoint in ("checkpoint-3", "checkpoint-4"):
        (copy / checkpoint / checkpoints.MANIFEST).write_text(text)
    checkpoints.settle(copy)
    assert checkpoints.last(copy) is None


def test_files_of_another_checkpoint_do_not_match(copy: Path) -> None:
    """As after a sync that was cut short: all files are there, some of them older."""
    shutil.copy(copy / "checkpoint-3/optimizer.pt", copy / "checkpoint-4/optimizer.pt")
    checkpoints.settle(copy)
    assert checkpoints.last(copy) == copy / "checkpoint-3"


def test_what_tools_that_sync_leave_is_taken_away(copy: Path) -> None:
    """An adapter of another name would be loaded, too."""
    (copy / "checkpoint-4/optimizer.pt.sagemaker-uploaded").touch()
    other = copy / "checkpoint-4/other"
    other.mkdir()
    shutil.copy(copy / "checkpoint-4/adapter_model.safetensors", other)
    for name in ("checkpoint-9.tmp", "checkpoint-x", "checkpoint-", "checkpoint-²"):
        (copy / name).mkdir()
    (copy / "checkpoint-12").touch()
    checkpoints.settle(copy)
    assert checkpoints.last(copy) == copy / "checkpoint-4"
    assert {path.name for path in (copy / "checkpoint-4").rglob("*") if path.is_file()} == {
        *FILES,
        checkpoints.MANIFEST,
    }
    assert not (copy / "checkpoint-12").exists()
