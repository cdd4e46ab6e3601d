"""Pairs and SFT data as the pairs stage leaves them, and the train stage over them, in the current folder."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from ccai.records import Demonstration, Message, Pair, Prompt, write
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
    write(Path("data/prompts/eval.jsonl"), [HELD_OUT])


def write_pairs(train: int, validation: int, words: int = 4) -> None:
    """So many pairs, each of its own prompt, and the SFT data of their chosen answers."""
    for name, count, seed in (("train", train, 1), ("validation", validation, 2)):
        rng = random.Random(seed)
        pairs = [_pair(f"{name}-{number}", rng, words) for number in range(count)]
        write(Path(f"data/pairs/{name}.jsonl"), pairs)
        write(Path(f"data/pairs/sft/{name}.jsonl"), [_demonstration(pair) for pair in pairs])


def run() -> None:
    """The train stage, in this process."""
    stage.main()


def _pair(name: str, rng: random.Random, words: int) -> Pair:
    def text() -> str:
        return " ".join(rng.choices(WORDS, k=words))

    return Pair(
        pair_id=name,
        prompt=[Message(role="system", content="Be brief."), Message(role="user", content=text())],
        chosen=[Message(role="assistant", content=f"Kindly: {text()}")],
        rejected=[Message(role="assistant", content=f"No! {text()}")],
        prompt_id=name,
        principle="care",
        hazard="none",
        round=1,
        chosen_tokens=30,
        rejected_tokens=20,
        chosen_model="org/tiny",
        rejected_model="org/tiny",
    )


def _demonstration(pair: Pair) -> Demonstration:
    return Demonstration(
        messages=[*pair.prompt, *pair.chosen],
        prompt_id=pair.prompt_id,
        source="pairs",
        principle=pair.principle,
        pair_id=pair.pair_id,
    )
