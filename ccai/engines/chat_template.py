"""A model's tokenizer and chat template: conversations to token ids and back."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.engines.base import begun
from ccai.models import load
from ccai.models.model import Model


class Template:
    """A model's tokenizer and chat template.

    Attributes:
        tokenizer: the tokenizer of transformers.
        text: the chat template, with its variables if it has any; part of an engine's identity.
        end: the id that ends a text, if there is one.

    Raises:
        UserError: as `load.tokenizer`.
    """

    def __init__(self, model: Model) -> None:
        self._model = model.name
        self.tokenizer = load.tokenizer(model.folder, model.template)
        self._vocabulary = load.vocabulary(model.folder)
        self._variables = model.template
        self.text: str = self.tokenizer.chat_template + (json.dumps(model.template) if model.template else "")
        self.end: int | None = self.tokenizer.eos_token_id

    def tokens(self, messages: Sequence[Message], *, generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation, by default with the opening of the model's turn.

        A last message of the assistant is then the beginning of the model's own turn.

        Raises:
            UserError: the template refuses these turns, or a token is outside the model's vocabulary.
        """
        turns = [message.model_dump() for message in messages]
        opening = turns.pop()["content"] if generation_prompt and begun(messages) else ""
        text = load.rendered(
            self.tokenizer, [turns], self._model, add_generation_prompt=generation_prompt, **self._variables
        )[0]
        encode = self.tokenizer.encode
        ids = [*encode(text, add_special_tokens=False), *encode(opening, add_special_tokens=False)]
        if max(ids, default=0) >= self._vocabulary:
            raise UserError(
                f"model {self._model}: its tokenizer writes token {max(ids)}, the model knows {self._vocabulary}; use "
                "the tokenizer that belongs to it"
            )
        return ids

    def labels(self, labels: Sequence[str], *, beginnings: bool = False) -> list[int]:
        """The token id of each label.

        Args:
            beginnings: whether the first token of a longer label is enough, if it tells it from the others.

        Raises:
            UserError: a label is not one token of this model, or two begin with the same one.
        """
        ids = [self.tokenizer.encode(label, add_special_tokens=False) for label in labels]
        if beginnings:
            ids = [tokens[:1] for tokens in ids]
        if any(len(tokens) != 1 for tokens in ids) or len({tokens[0] for tokens in ids}) < len(ids):
            raise UserError(
                f"model {self._model}: labels {list(labels)} are not single tokens of it; use another judge"
            )
        return [tokens[0] for tokens in ids]

    def text_of(self, completion: Sequence[int]) -> str:
        """A completion's text, without special tokens and outer white space."""
        text: str = self.tokenizer.decode(completion, skip_special_tokens=True)
        return text.strip()

    def check_room(self, prompt: int, new: int, limit: int) -> None:
        """Check that prompt and completion fit in the model's context, in tokens.

        Raises:
            UserError: they do not.
        """
        if prompt + new > limit:
            raise UserError(
                f"model {self._model}: a prompt of {prompt} tokens and {new} new ones exceed its context of {limit}; "
                "use fewer examples or shorter limits"
            )
