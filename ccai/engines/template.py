"""A model's tokenizer and chat template: from conversations to token ids and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from transformers import AutoTokenizer

from ccai.engines.request import begun
from ccai.errors import UserError
from ccai.models import Model
from ccai.records import Message


class Template:
    """The tokenizer of a model.

    Attributes:
        text: the chat template itself, and its variables if it is given any; part of what identifies an engine.
        end: the id that ends a text, if there is one.

    Raises:
        UserError: the model has no chat template.
    """

    def __init__(self, model: Model) -> None:
        self._model = model.name
        self._tokenizer = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=False)
        if self._tokenizer.chat_template is None:
            raise UserError(f"model {model.name}: its tokenizer has no chat template; use an instruct model")
        self._variables = model.template
        self.text: str = self._tokenizer.chat_template + (json.dumps(model.template) if model.template else "")
        self.end: int | None = self._tokenizer.eos_token_id

    def tokens(self, messages: Sequence[Message], *, generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation, by default with the beginning of the model's turn.

        Then a last turn of the assistant is how the model's own turn begins.
        """
        turns = [message.model_dump() for message in messages]
        opening = turns.pop()["content"] if generation_prompt and begun(messages) else ""
        ids: Mapping[str, list[int]] = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=generation_prompt, tokenize=True, return_dict=True, **self._variables
        )
        return [*ids["input_ids"], *self._tokenizer.encode(opening, add_special_tokens=False)]

    def labels(self, labels: Sequence[str], *, beginnings: bool = False) -> list[int]:
        """The token id of each label; of its beginning, if that will do to tell it from the others.

        Raises:
            UserError: a label is not one token of this model, or two begin with the same one.
        """
        ids = [self._tokenizer.encode(label, add_special_tokens=False) for label in labels]
        if beginnings:
            ids = [tokens[:1] for tokens in ids]
        if any(len(tokens) != 1 for tokens in ids) or len({tokens[0] for tokens in ids}) < len(ids):
            raise UserError(
                f"model {self._model}: labels {list(labels)} are not single tokens of it; use another judge"
            )
        return [tokens[0] for tokens in ids]

    def text_of(self, completion: Sequence[int]) -> str:
        """A completion without special tokens and outer white space."""
        text: str = self._tokenizer.decode(completion, skip_special_tokens=True)
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
