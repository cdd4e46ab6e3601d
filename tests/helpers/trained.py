"""Pairs and SFT data as the pairs stage leaves them, and the train stage over them, in the current folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from ccai.base import files
from ccai.base.records import Message, Pair, Prompt
from ccai.pairs import demonstrations
from stages import train as stage

WORDS = "why does the answer depend on how one looks at it and who is asking".split()
ADAPTER = Path("models/adapter")
HELD_OUT = Prompt(
    prompt_id="held-out",
    text="Is a tomato a fruit?",
    source="tests",
    source_id="1",
    hazard="none",
    persona="none",
    principle="none",
    split="eval",
)


def project(model: Path, changes: dict[str, Any]) -> None:
    """What the train stage reads, but the pairs: conf, a held-out prompt, params.yaml with that model and changes to
    `train`."""
    shutil.copytree(ROOT / "conf", "conf")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"]["train"] = str(model)
    values["hardware"] |= {"device": "cpu", "dtype": "float32", "quantization": "none"}
    values["train"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    files.write(Path("data/prompts/eval.jsonl"), [HELD_OUT])


def pairs(count: int, seed: int, words: int = 12) -> list[Pair]:
    """So many pairs, each of its own prompt; question and answers have so many words."""
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=words))

    return [
        Pair(
            pair_id=f"{seed}-{number}",
            prompt=[Message(role="system", content="Be brief."), Message(role="user", content=text())],
            chosen=[Message(role="assistant", content=f"Kindly: {text()}")],
            rejected=[Message(role="assistant", content=f"No! {text()}")],
            prompt_id=f"{seed}-{number}",
            principle="care",
            hazard="none",
            round=1,
            chosen_tokens=30,
            rejected_tokens=20,
            chosen_model="org/tiny",
            rejected_model="org/tiny",
        )
        for number in range(count)
    ]


def write(folder: Path, train: Sequence[Pair], validation: Sequence[Pair]) -> None:
    """Both sides as the pairs stage leaves them in a folder, and the SFT data of their chosen answers."""
    for name, side in (("train", train), ("validation", validation)):
        files.write(folder / f"{name}.jsonl", side)
        files.write(folder / f"sft/{name}.jsonl", [demonstrations.of(pair, "pairs") for pair in side])


def write_pairs(train: int, validation: int, words: int = 4) -> None:
    """So many short pairs for each side, in data/pairs."""
    write(Path("data/pairs"), pairs(train, 1, words), pairs(validation, 2, words))


def run() -> None:
    """The train stage, in this process."""
    stage.main()
