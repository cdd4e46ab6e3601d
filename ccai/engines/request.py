"""What every engine is asked and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ccai.params import Generation
from ccai.records import FinishReason, Message


@dataclass(frozen=True)
class Request:
    """One completion wanted.

    Attributes:
        messages: the conversation so far; the last turn is the user's.
        shared: how many leading messages other requests have too (a few-shot prefix worth computing once).
        seed: of this request alone, so that its text depends neither on batch nor on order.
        max_new_tokens: where the completion is cut.
        sampling: how tokens are drawn.
    """

    messages: tuple[Message, ...]
    shared: int
    seed: int
    max_new_tokens: int
    sampling: Generation


class Completed(NamedTuple):
    """A completion: text without special tokens, why it ended, lengths in the model's tokens."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
