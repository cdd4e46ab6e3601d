"""The conversations a model is put into: to answer, to criticise its answer, to revise it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ccai.constitution import Principle
from ccai.errors import UserError
from ccai.records import Message

TEMPLATES = Path("data/templates")
PRINCIPLE_FIELDS = ("name", "statement", "criteria", "critique", "revision")
TASK_FIELDS = ("prompt", "answer")


class Format(BaseModel):
    """How critique and revision are asked for; a file in data/templates.

    Each text may use $name, $statement, $criteria, $critique, $revision of the principle; the two requests
    also $prompt and $answer, so that a small model has the question before its eyes again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    critique: str
    revision: str


class Turns(NamedTuple):
    """A conversation whose first `shared` messages are the same for every prompt of a principle."""

    messages: tuple[Message, ...]
    shared: int


def load_format(name: str, folder: Path = TEMPLATES) -> Format:
    """The format of that name.

    Raises:
        UserError: no such file (names those there are), not YAML, a wrong key, or an unknown $placeholder.
    """
    path = folder / f"{name}.yaml"
    try:
        format = Format.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(f"critiques.format: no {path}; there are: {known}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error}); correct it") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; correct it") from None
    for key, text in format:
        try:
            Template(text).substitute(dict.fromkeys(PRINCIPLE_FIELDS + (() if key == "system" else TASK_FIELDS), ""))
        except (KeyError, ValueError) as error:
            known = " ".join(f"${field}" for field in PRINCIPLE_FIELDS + TASK_FIELDS)
            raise UserError(
                f"{path}: {key}: bad placeholder {error}; there are {known} (the last two not in system)"
            ) from None
    return format


def to_answer(system: str, prompt: str) -> Turns:
    """The user's prompt under a system message; an empty one leaves the model's own default."""
    messages = [Message(role="system", content=system)] if system else []
    return Turns((*messages, Message(role="user", content=prompt)), len(messages))


def to_criticise(format: Format, principle: Principle, examples: int, prompt: str, answer: str) -> Turns:
    """Worked examples as whole conversations, then the user's prompt, the answer and the critique request."""
    shown = _shown(format, principle, examples)
    turns = _user(prompt), _assistant(answer), _user(_fill(format.critique, principle, prompt, answer))
    return Turns((*shown, *turns), len(shown))


def to_revise(format: Format, principle: Principle, examples: int, prompt: str, answer: str, critique: str) -> Turns:
    """The critique's conversation, the critique, and the revision request."""
    before = to_criticise(format, principle, examples, prompt, answer)
    turns = _assistant(critique), _user(_fill(format.revision, principle, prompt, answer))
    return Turns((*before.messages, *turns), before.shared)


def _shown(format: Format, principle: Principle, examples: int) -> Sequence[Message]:
    messages = [Message(role="system", content=_fill(format.system, principle))]
    for example in principle.examples[:examples]:
        messages += [
            _user(example.user),
            _assistant(example.answer),
            _user(_fill(format.critique, principle, example.user, example.answer)),
            _assistant(example.critique),
            _user(_fill(format.revision, principle, example.user, example.answer)),
            _assistant(example.revision),
        ]
    return messages


def _fill(text: str, principle: Principle, prompt: str = "", answer: str = "") -> str:
    return (
        Template(text)
        .substitute(
            name=principle.name,
            statement=principle.statement,
            criteria="\n".join(f"- {line}" for line in principle.criteria),
            critique=principle.critique,
            revision=principle.revision,
            prompt=prompt,
            answer=answer,
        )
        .strip()
    )


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str) -> Message:
    return Message(role="assistant", content=content)
