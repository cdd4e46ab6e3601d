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


_TAG = r"(?<!`)<{}think(?:ing)?\s*>(?!`)"  # in backticks a tag is spoken of
_THINKING = re.compile(rf"{_TAG.format('')}.*?(?:{_TAG.format('/')}|\Z)", re.IGNORECASE | re.DOTALL)
_OPENED_BEFORE = re.compile(rf"\A.*{_TAG.format('/')}", re.IGNORECASE | re.DOTALL)
_LIST_MARKER = re.compile(r"^(?:\W*step \d+\W*|\(?\d{1,2}[.):]\)?\s+|[-*•–]\s+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*]*\s+")
_QUOTED = re.compile(r'"[^"]*(?:"|$)')
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"'})


def straight(text: str) -> str:
    """The text with straight apostrophes and quotes, as the patterns of ccai/rules/cues.py need them."""
    return text.translate(_STRAIGHT)


def unquoted(text: str) -> str:
    """A sentence without what it quotes: "He said: "No."" says nothing itself."""
    return _QUOTED.sub("", text)


def said(text: str) -> str:
    """The text without a reasoning model's thinking: what the user is told.

    Thinking is in `<think>` tags. Where only the closing one is there, the chat template opened it; where only the
    opening one is, the text was cut before the answer.
    """
    return _OPENED_BEFORE.sub("", _THINKING.sub("\n", text))


def split(text: str) -> list[Sentence]:
    """Distinct sentences of what is `said`, in order. Raises ValueError when that has no letter or digit."""
    sentences: dict[str, Sentence] = {}
    for raw in straight(said(text)).splitlines():
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
