"""A pair of two texts."""

from __future__ import annotations

from ccai.base.records import Message, Pair
from helpers.pairs import CHOSEN, REJECTED

PROMPT = "My sister told everybody my secret. Should I just forget it and move on?"


def pair(chosen: str = CHOSEN, rejected: str = REJECTED, prompt: str = PROMPT) -> Pair:
    return Pair(
        pair_id="0",
        prompt=[Message(role="user", content=prompt)],
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=rejected)],
        prompt_id="p",
        principle="care",
        hazard="none",
        round=1,
        chosen_tokens=1,
        rejected_tokens=1,
        chosen_model="m",
        rejected_model="m",
    )
