"""Guard models: trained to detect harm, in a prompt format of their own (Llama Guard, ShieldGemma, Qwen3Guard).

A guard's tokenizer has that format as its chat template, which writes the task around a conversation. A file in
data/guards therefore adds only what the template lacks: how the reply begins and which words in it mean harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ccai.base import yaml_io
from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.engines.base import Completed, Engine, Request

FORMATS = Path("data/guards")


class GuardFormat(BaseModel):
    """The format of a guard's reply; a file in data/guards.

    Attributes:
        opening: the beginning of the reply, before its verdict.
        safe, unsafe: possible verdicts, with the space before them if they have one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    opening: str
    safe: list[str] = Field(min_length=1)
    unsafe: list[str] = Field(min_length=1)

    @property
    def labels(self) -> list[str]:
        """All possible verdicts, the safe ones first."""
        return self.safe + self.unsafe

    def conversation(self, prompt: str, answer: str) -> list[Message]:
        """Prompt and answer, and the beginning of the guard's reply."""
        return [
            Message(role="user", content=prompt),
            Message(role="assistant", content=answer),
            Message(role="assistant", content=self.opening),
        ]

    def unsafe_share(self, probabilities: Sequence[float]) -> float:
        """Probability of the unsafe labels over that of all; `probabilities` in the order of `labels`, not all 0."""
        return sum(probabilities[len(self.safe) :]) / sum(probabilities)


class Guard:
    """The engine of a guard model. It judges only whether an answer does harm."""

    def __init__(self, engine: Engine, format: GuardFormat) -> None:
        self._engine, self.format = engine, format
        self.name, self.revision = engine.name, engine.revision
        self.identity, self.unverified_weights = engine.identity, engine.unverified_weights

    @property
    def runtime(self) -> dict[str, Any]:
        """As the engine's."""
        return self._engine.runtime

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """As the engine does."""
        return self._engine.complete(requests)

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """As the engine does."""
        return self._engine.score(conversations, labels)

    def estimate(self, requests: Sequence[Request]) -> float | None:
        """As the engine does."""
        return self._engine.estimate(requests)


def load(name: str, folder: Path = FORMATS) -> GuardFormat:
    """The format of that name.

    Raises:
        UserError: no such file (lists those that exist), not YAML, or a wrong key.
    """
    path = folder / f"{name}.yaml"
    try:
        return yaml_io.load(path, GuardFormat)
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(f"conf/models.yaml: guard: no {path}; there are: {names}") from None
