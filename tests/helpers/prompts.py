"""Made-up prompts, and params that select among them."""

from __future__ import annotations

import random

from ccai.base.params import Prompts
from ccai.base.records import Prompt
from ccai.prompts.sources import SourcePrompt

WORDS = (
    "amber basil cedar delta ember fjord grove heron inlet juniper kettle lantern meadow nectar orchid "
    "asks bakes carves draws eats finds gives hears keeps lends makes names opens paints reads sings "
    "apple bread candle drum engine feather guitar hammer island jacket kite ladder mirror needle oven"
).split()
HAZARDS = ["h1", "h2", "h3", "h4", "h5"]


def settings(**changes: object) -> Prompts:
    values: dict[str, object] = {
        "sources": ["made"],
        "exclude_hazards": ["cse"],
        "only": {},
        "train": 0,
        "eval": 0,
        "eval_share": 0.4,
        "near_duplicate": 0.7,
        "evaluation_sets": [],
        "contamination": 0.7,
        "contaminated": "fail",
    }
    return Prompts.model_validate({**values, **changes})


def made(count: int, seed: int = 0, source: str = "made") -> list[SourcePrompt]:
    """Prompts of random words: none near another."""
    draw = random.Random(seed)
    return [
        SourcePrompt(
            source=source,
            source_id=str(number),
            text=" ".join(draw.choice(WORDS) for _ in range(9)) + f" {draw.randrange(10**6)}?",
            hazard=HAZARDS[number % len(HAZARDS)],
            persona=("skilled", "unskilled")[number // len(HAZARDS) % 2],
            principle="unspecified",
            place=str(number + 1),
        )
        for number in range(count)
    ]


def of(prompts: list[Prompt], side: str) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.split == side]
