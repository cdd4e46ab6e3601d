"""Token counts as in training: with the trained model's own tokenizer and chat template."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ccai.base.records import Message, Pair


class Tokens:
    """A model's tokenizer, from its folder.

    Raises:
        UserError: as `load.tokenizer`.
    """

    def __init__(self, folder: Path) -> None:
        from ccai.models import load  # importing torch takes seconds; errors in params come first

        self._tokenizer = load.tokenizer(folder)
        self._rendered = functools.partial(load.rendered, self._tokenizer, name=str(folder))
        shortest = [Message(role="user", content="x"), Message(role="assistant", content="x")]
        self._markup = len(self._render([shortest])[0].encode())

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def over(self, pairs: Sequence[Pair], limit: int) -> list[bool]:
        """Whether the longer of a pair's two conversations exceeds `limit` tokens. TRL would truncate or drop it."""
        long = [False] * len(pairs)
        candidates = [
            (at, turns)
            for at, pair in enumerate(pairs)
            for turns in ([*pair.prompt, pair.chosen[-1]], [*pair.prompt, pair.rejected[-1]])
            if self._most(turns) > limit
        ]
        for (at, _), count in zip(candidates, self._count([turns for _, turns in candidates]), strict=True):
            long[at] = long[at] or count > limit
        return long

    def _most(self, turns: Sequence[Message]) -> int:
        """An upper bound of a conversation's tokens: its bytes. It saves counting short conversations."""
        return sum(self._markup + len(turn.content.encode()) for turn in turns)

    def _count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        if not conversations:
            return []
        return [len(ids) for ids in self._tokenizer(self._render(conversations), add_special_tokens=False)["input_ids"]]

    def _render(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        plain = [[turn.model_dump() for turn in turns] for turns in conversations]
        return self._rendered(plain)
