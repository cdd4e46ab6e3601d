"""An answer as its distinct sentences: repeating a text, or a sentence of it, adds nothing."""

from __future__ import annotations

import re
from typing import NamedTuple


class Sentence(NamedTuple):
    """One sentence, or one line of a list."""

    text: str
    """With straight apostrophes and quotes, without its list marker."""
    listed: bool
    """Opens a numbered or bulleted line."""


_LIST_MARKER = re.compile(r"^(?:\W*step \d+\W*|\(?\d{1,2}[.):]\)?\s+|[-*•–]\s+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*]*\s+")
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"'})


def straight(text: str) -> str:
    """The text with straight apostrophes and quotes, as the patterns of ccai/rules/cues.py need them."""
    return text.translate(_STRAIGHT)


def split(text: str) -> list[Sentence]:
    """Distinct sentences in order. Raises ValueError when the text has no letter or digit."""
    sentences: dict[str, Sentence] = {}
    for raw in straight(text).splitlines():
        line = " ".join(raw.split())
        body = _LIST_MARKER.sub("", line, count=1)
        listed = body != line
        for part in _SENTENCE_END.split(body):
            sentence = part.strip()
            if any(character.isalnum() for character in sentence):
                # setdefault: a repeated sentence counts once
                sentences.setdefault(sentence.casefold(), Sentence(sentence, listed))
                listed = False
    if not sentences:
        raise ValueError("the answer is empty: a missing generation is an error, not an answer to score")
    return list(sentences.values())
