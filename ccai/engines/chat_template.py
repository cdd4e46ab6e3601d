"""A model's tokenizer and chat template: from conversations to token ids and back."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.engines.base import begun
from ccai.models import load
from ccai.models.model import Model


class Template:
    """The tokenizer of a model.

    Attributes:
        tokenizer: the tokenizer itself.
        text: the chat template itself, and its variables if it is given any; part of what identifies an engine.
        end: the id that ends a text, if there is one.

    Raises:
        UserError: as `loading.tokenizer`.
    """

    def __init__(self, model: Model) -> None:
        self._model = model.name
        self.tokenizer = load.tokenizer(model.folder, model.template)
        self._vocabulary = load.vocabulary(model.folder)
        self._variables = model.template
        self.text: str = self.tokenizer.chat_template + (json.dumps(model.template) if model.template else "")
        self.end: int | None = self.tokenizer.eos_token_id

    def tokens(self, messages: Sequence[Message], *, generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation, by default with the beginning of the model's turn.

        Then a last turn of the assistant is how the model's own turn begins.

        Raises:
            UserError: the template does not take these turns, or a token is none of the model's.
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
        """The token id of each label; of its beginning, if that will do to tell it from the others.

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
        """A completion without special tokens and outer white space."""
        text: str = self.tokenizer.decode(completion, skip_special_tokens=True)
        return text.strip()

    def check_room(self, prompt: int, new: int, limit: int) -> None:
        """That so many tokens of prompt and completion fit in the model's context.

        Raises:
            UserError: they do not.
        """
        if prompt + new > limit:
            raise UserError(
                f"model {self._model}: a prompt of {prompt} tokens and {new} new ones exceed its context of {limit}; "
                "use fewer examples or shorter limits"
            )
