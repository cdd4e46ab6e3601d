"""The conversations given to a model: to answer a prompt, to critique the answer, to revise it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ccai.base import yaml_io
from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.constitution.principles import Example, Principle

TEMPLATES = Path("data/templates")
OF_PRINCIPLE = ("name", "statement", "criteria", "critique", "revision")
OF_CRITIQUE = (*OF_PRINCIPLE, "prompt", "answer")
OF_REVISION = (*OF_CRITIQUE, "criticism")

Turn = Annotated[dict[Literal["user", "assistant"], str], Field(min_length=1, max_length=1)]


class Format(BaseModel):
    """The format of critique and revision conversations; a file in data/templates.

    Attributes:
        system: the system message; none if it is empty.
        critique: the turns before the model's critique, each `user: text` or `assistant: text`.
        revision: the turns before the model's revision.
        revision_in: `same`: the turns of `revision` follow the critique. `new`: they form a conversation of their own,
            under the same system message.

    All texts may use $name, $statement, $criteria, $critique and $revision of the principle. Turns may also use $prompt
    and $answer, so that a small model sees the question again; turns of `revision` also $criticism. The critique must
    use $prompt, $answer and $critique, the revision $revision, and in a new conversation $prompt and $criticism too: a
    format without one of them would leave the constitution, or the critiques, without effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    critique: tuple[Turn, ...]
    revision: tuple[Turn, ...]
    revision_in: Literal["same", "new"]

    @field_validator("critique", "revision")
    @classmethod
    def _alternate(cls, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        if [role for turn in turns for role in turn] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
            raise ValueError("turns must alternate, user first and last")
        return turns

    @model_validator(mode="after")
    def _placeholders(self) -> Format:
        always = _check("system", self.system, OF_PRINCIPLE)
        used = {"critique": set(always), "revision": set(always)}
        for key, turns, allowed in (("critique", self.critique, OF_CRITIQUE), ("revision", self.revision, OF_REVISION)):
            for place, turn in enumerate(turns):
                for text in turn.values():
                    used[key] |= _check(f"{key}.{place}", text, allowed)
        needed = {"critique": {"prompt", "answer", "critique"}, "revision": {"revision"}}
        if self.revision_in == "new":
            needed["revision"] |= {"prompt", "criticism"}
        for key, names in needed.items():
            if missing := sorted(names - used[key]):
                raise ValueError(f"{key}: the model is not shown ${' $'.join(missing)}; use it in a turn")
        return self


class Turns(NamedTuple):
    """A conversation whose first `shared` messages are the same for all prompts of a principle."""

    messages: tuple[Message, ...]
    shared: int


def load_format(name: str, folder: Path = TEMPLATES) -> Format:
    """The format of that name.

    Raises:
        UserError: no such file (lists those that exist), not YAML, a wrong key, turns out of order, an unknown
            $placeholder, or a request that does not show the model a required text.
    """
    path = folder / f"{name}.yaml"
    try:
        return yaml_io.load(path, Format)
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(f"critiques.format: no {path}; there are: {names}") from None


def to_answer(system: str, prompt: str) -> Turns:
    """The user's prompt under a system message; an empty one leaves the chat template's default."""
    messages = [Message(role="system", content=system)] if system else []
    return Turns((*messages, Message(role="user", content=prompt)), len(messages))


def to_criticise(format: Format, principle: Principle, examples: int, prompt: str, answer: str) -> Turns:
    """Worked examples as whole conversations, then the turns that request the critique."""
    shown = _shown(format, principle, examples, "critique")
    return Turns((*shown, *_filled(format.critique, _fields(principle, prompt, answer))), len(shown))


def to_revise(format: Format, principle: Principle, examples: int, prompt: str, answer: str, critique: str) -> Turns:
    """Worked examples, then the turns that request the revision, in the critique's conversation or a new one."""
    shown = _shown(format, principle, examples, "revision")
    fields = _fields(principle, prompt, answer, critique)
    return Turns((*shown, *_before_revision(format, fields)), len(shown))


def _shown(format: Format, principle: Principle, examples: int, step: Literal["critique", "revision"]) -> list[Message]:
    """The worked examples before the task: whole conversations, or with `revision_in: new` only the step at hand."""
    system = _fill(format.system, _fields(principle, "", ""))
    messages = [Message(role="system", content=system)] if system else []
    for example in principle.examples[:examples]:
        fields = _fields(principle, example.user, example.answer, example.critique, example)
        for user, answer in example.earlier:
            messages += [Message(role="user", content=user), Message(role="assistant", content=answer)]
        if step == "critique" and format.revision_in == "new":
            messages += [*_filled(format.critique, fields), Message(role="assistant", content=example.critique)]
        else:
            messages += [*_before_revision(format, fields), Message(role="assistant", content=example.revision)]
    return messages


def _before_revision(format: Format, fields: Mapping[str, str]) -> list[Message]:
    request = _filled(format.revision, fields)
    if format.revision_in == "new":
        return request
    return [*_filled(format.critique, fields), Message(role="assistant", content=fields["criticism"]), *request]


def _fields(
    principle: Principle, prompt: str, answer: str, criticism: str = "", example: Example | None = None
) -> dict[str, str]:
    """The placeholders' values. Requests of an example replace those of the principle."""
    return {
        "name": principle.name,
        "statement": principle.statement,
        "criteria": "\n".join(f"- {line}" for line in principle.criteria),
        "critique": (example and example.critique_request) or principle.critique,
        "revision": (example and example.revision_request) or principle.revision,
        "prompt": prompt,
        "answer": answer,
        "criticism": criticism,
    }


def _filled(turns: Sequence[Turn], fields: Mapping[str, str]) -> list[Message]:
    messages = [Message(role=role, content=_fill(text, fields)) for turn in turns for role, text in turn.items()]
    for message, turn in zip(messages, turns, strict=True):
        if not message.content:
            raise UserError(
                f"critiques.format: the turn {turn} is empty for '{fields['name']}'; "
                "put words into it, or take another format"
            )
    return messages


def _fill(text: str, fields: Mapping[str, str]) -> str:
    return Template(text).substitute(fields).strip()


def _check(key: str, text: str, allowed: Sequence[str]) -> set[str]:
    """The placeholders that a text uses. Raises ValueError for an unknown one."""
    template = Template(text)
    try:
        template.substitute(dict.fromkeys(allowed, ""))
    except (KeyError, ValueError) as error:
        names = " ".join(f"${name}" for name in allowed)
        raise ValueError(f"{key}: bad placeholder {error}; there are {names}") from None
    return set(template.get_identifiers())
