"""The interface of every engine: requests, completions, and the protocol itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ccai.base.params import Generation
from ccai.base.records import FinishReason, Message


@dataclass(frozen=True)
class Request:
    """A request for one completion.

    Attributes:
        messages: the conversation so far; the last turn is the user's.
        shared: number of leading messages that other requests share (a few-shot prefix that is computed once).
        seed: this request's own, so that its text depends on neither batch nor order.
        max_new_tokens: length limit of the completion.
        sampling: how tokens are drawn.
    """

    messages: tuple[Message, ...]
    shared: int
    seed: int
    max_new_tokens: int
    sampling: Generation


class Completed(NamedTuple):
    """A completion: text without special tokens, the reason it ended, lengths in the model's tokens.

    `margin` is the smallest difference in logits that would have changed a token; None where the engine does not see
    its logits.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    margin: float | None = None


class Engine(Protocol):
    """A model that completes conversations and scores labels.

    Attributes:
        name: logical name for records; `revision` identifies the weights.
        identity: everything about the engine that can change a completion's text; part of each journal key.
        unverified_weights: whether the weights are only declared (an endpoint's cannot be hashed).
    """

    name: str
    revision: str
    identity: dict[str, Any]
    unverified_weights: bool

    @property
    def runtime(self) -> dict[str, Any]:
        """Device, dtype and other facts of the run, for metrics/runtime."""
        ...

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion) as they finish, in any order."""
        ...

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation, not renormalised.

        Yields (index in `conversations`, probabilities in the order of `labels`) as they become known. A last message
        of the assistant is the beginning of the model's turn (a guard's; ccai/judge/guards.py).
        """
        ...

    def estimate(self, requests: Sequence[Request]) -> float | None:
        """Expected seconds for these requests; None if unknown."""
        ...


def begun(messages: Sequence[Message]) -> bool:
    """Whether the model's turn has begun: the last message is the assistant's."""
    return messages[-1].role == "assistant"
