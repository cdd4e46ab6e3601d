"""What every engine is asked and answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ccai.base.params import Generation
from ccai.base.records import FinishReason, Message


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
    """A completion: text without special tokens, why it ended, lengths in the model's tokens.

    `margin` is how many logits the closest decision was from falling otherwise; None where the engine does not see its
    logits.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    margin: float | None = None


class Engine(Protocol):
    """A model that completes conversations and scores labels.

    Attributes:
        name: logical name for records; `revision` says which weights.
        identity: everything about the engine that can change a completion's text; part of each journal key.
        unverified_weights: whether the weights are only declared (an endpoint's can't be hashed).
    """

    name: str
    revision: str
    identity: dict[str, Any]
    unverified_weights: bool

    @property
    def runtime(self) -> dict[str, Any]:
        """Where it runs (device, dtype …) and what is worth knowing of the run, for metrics/runtime."""
        ...

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion) as they finish, in any order."""
        ...

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation, not renormalised; yields
        (index in `conversations`, probabilities in the order of `labels`) as they are known. A last message of the
        assistant's is how the model's turn begins (a guard's; ccai/judge/guards.py)."""
        ...

    def estimate(self, requests: Sequence[Request]) -> float | None:
        """Seconds these requests may take; None if there is no way to tell."""
        ...


def begun(messages: Sequence[Message]) -> bool:
    """Whether the model's turn has begun: the last message is the assistant's."""
    return messages[-1].role == "assistant"
