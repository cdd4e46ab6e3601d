"""The trained model in a form that needs neither this project nor PEFT: a merged folder, or a GGUF file.

GGUF needs llama.cpp's convert_hf_to_gguf.py on the PATH or in the folder that LLAMA_CPP names. Nothing is overwritten.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccai.base import metrics_json
from ccai.base.errors import UserError
from ccai.base.hashing import sha256_of
from ccai.models import files
from ccai.models.model import Model
from ccai.pairs import card as data_card
from ccai.train import model_card
from ccai.train.model_card import Form

ADAPTER = Path("models/adapter")
PAIRS = Path("data/pairs/train.jsonl")
EVALUATION = Path("metrics/eval.json")
COUNTS = Path("metrics/pairs.json")
CONVERTER = "convert_hf_to_gguf.py"


def card(folder: Path, form: Form | None = None) -> str:
    """The current model card: with the evaluation, if it is of these weights, and the sources of the pairs, if the
    weights were trained on the pairs in this folder.

    Raises:
        UserError: there is no trained model.
    """
    facts = model_card.read(folder)
    evaluation = _figures(EVALUATION)
    if evaluation and evaluation["adapter"] != files.fingerprint(folder):
        evaluation = None
    counts = _figures(COUNTS)
    same = PAIRS.is_file() and sha256_of(PAIRS) == facts.data.get(PAIRS.as_posix())
    origins = data_card.origins(counts["kept_by_source"]) if counts and same else None
    return model_card.text(facts, form or model_card.form(folder), evaluation, origins)


def merge(base: Model, trained: Path, target: Path) -> None:
    """Write the model into the folder `target`, which appears complete or not at all.

    The weights keep the base's dtype; on a CPU, PEFT computes an adapter's contribution to 16-bit weights in float32.

    Raises:
        UserError: `target` exists, there is no trained model, or it was trained on other weights than the base's.
    """
    facts = model_card.read(trained)
    absent(target)
    if base.revision != facts.base.revision:
        raise UserError(
            f"{trained}: trained on {facts.base.name} ({facts.base.revision}), but models.train is {base.name} "
            f"({base.revision}); set it back, or train again (dvc repro train)"
        )
    import torch  # here, because it takes seconds, and errors come first

    from ccai.models import load

    adapted = model_card.form(trained) == "adapter"
    with torch.inference_mode():
        model = load.stored(base.folder if adapted else trained)
        if adapted:
            model = load.adapter(model, trained, base).merge_and_unload()
    with workspace(target) as scratch:
        whole = scratch / "whole"
        model.save_pretrained(whole)
        load.plain_tokenizer(base.folder).save_pretrained(whole)
        model_card.write_facts(whole, facts)
        (whole / "README.md").write_text(card(trained, "merged" if adapted else "full"), encoding="utf-8")
        whole.rename(target)


def gguf(merged: Path, target: Path) -> None:
    """Convert a merged model into the file `target`, in 16 bit.

    Raises:
        UserError: `target` exists, the converter is missing, or it failed.
    """
    command = converter()
    absent(target)
    with workspace(target) as scratch:
        whole = scratch / "whole.gguf"
        done = subprocess.run([*command, merged, "--outfile", whole], capture_output=True, text=True)
        if done.returncode:
            message = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise UserError(
                f"{command[-1]}: can't convert this model ({message}); install llama.cpp's requirements, update it, "
                "or use --merge"
            )
        whole.rename(target)


def converter() -> list[str]:
    """The command of llama.cpp's converter, run by this Python.

    Raises:
        UserError: it is not installed.
    """
    folder = os.environ.get("LLAMA_CPP")
    path = Path(folder) / CONVERTER if folder else shutil.which(CONVERTER)
    if not path or not Path(path).is_file():
        raise UserError(
            f"--gguf: llama.cpp's {CONVERTER} is neither on the PATH nor in the folder LLAMA_CPP; clone llama.cpp and "
            "set LLAMA_CPP to its folder, or use --merge"
        )
    return [sys.executable, str(path)]


@contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same disk, so that a rename completes the export."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        yield Path(folder)


def absent(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: exists already; nothing is overwritten: remove it or give another name")


def _figures(path: Path) -> dict[str, Any] | None:
    return metrics_json.read(path) if path.is_file() else None
