"""JSONL files of conversations that users bring: ready-made preference pairs, helpful demonstrations.

An entry is the name of a pinned source (ccai/prompts/sources.py) or a .jsonl or .jsonl.gz file. Keep your own in
data/imports: DVC watches that folder and runs the pairs stage after a change.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from ccai.base.errors import UserError
from ccai.base.files import an_object, lines
from ccai.base.hashing import digest, sha256_of
from ccai.base.records import Message
from ccai.pairs import gates
from ccai.prompts import near_duplicates, readers, sources

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Row(NamedTuple):
    """A line of a file. `source` is what records call the file; `where` names file and line, in messages."""

    source: str
    where: str
    fields: Mapping[str, Any]

    def error(self, column: str, problem: str) -> UserError:
        """The line can't be used."""
        return UserError(f"{self.where}: {column}: {problem}; correct the line or take it out")


def rows(entry: str) -> Iterator[Row]:
    """The lines of an entry's file, one by one; blank ones are left out.

    Raises:
        UserError: unknown, missing, not the pinned file, unreadable, not UTF-8, unpacks without end, or a line that is
            no JSON object or never ends.
    """
    source = sources.named(entry)
    path, number = source.path, 0
    try:
        if source.pin and sha256_of(path) != source.pin.sha256:
            raise UserError(f"{path}: not the pinned file; fetch it again: ccai sources fetch {entry}")
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            size = 0
            for number, line in enumerate(lines(file, path), start=1):
                size += len(line)
                if path.suffix == ".gz" and size > readers.UNPACKED_LIMIT:
                    raise UserError(f"{path}: unpacks to more than {readers.UNPACKED_LIMIT} bytes; unpack or split it")
                if line.strip():
                    where = f"{path}:{number}"
                    yield Row(source.name, where, an_object(line, where))
    except FileNotFoundError:
        remedy = f"fetch it: ccai sources fetch {entry}" if source.pin else "correct its name"
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}:{number + 1}: cannot be read ({error}); restore the file") from None


def turns(row: Row, column: str, role: str) -> list[Message]:
    """The messages in a column: a list of them, a transcript ("\\n\\nHuman: …\\n\\nAssistant: …"), or one text.

    Args:
        role: who speaks where the column holds one text.

    Raises:
        UserError: no such column, or something else in it.
    """
    value = row.fields.get(column)
    try:
        if isinstance(value, list):
            return [Message.model_validate(message) for message in value]
        if isinstance(value, str):
            before, *parts = _TURN.split(value)
            if parts and not before.strip():
                pairs = zip(parts[::2], parts[1::2], strict=True)
                return [Message.model_validate({"role": _ROLES[who], "content": said.strip()}) for who, said in pairs]
            return [Message.model_validate({"role": role, "content": value.strip()})]
    except ValidationError:
        raise row.error(column, "not messages with role and content") from None
    if value is None:
        there = ", ".join(name[:24] for name in list(row.fields)[:12])
        raise row.error(column, f"no such column; there are {there or 'none'}")
    raise row.error(column, "neither a text nor a list of messages")


def under(system: str, messages: Sequence[Message]) -> list[Message]:
    """The messages under a system message, unless they have one or it is empty."""
    if not system or (messages and messages[0].role == "system"):
        return list(messages)
    return [Message(role="system", content=system), *messages]


def key(prompt: Sequence[Message]) -> str:
    """What makes two prompts the same: the words of all turns but the system message."""
    spoken = [[turn.role, *gates.words(turn.content)] for turn in prompt if turn.role != "system"]
    return digest(spoken)[:16]


def near(prompts: Iterable[Sequence[Message]], evaluation: Sequence[str], threshold: float) -> set[str]:
    """Keys of the prompts that must not be trained on: a user's turn is, or nearly is, an evaluation prompt.

    Args:
        threshold: cosine of character 5-grams (ccai/prompts/near_duplicates.py) from which it is.
    """
    keys, texts = [], []
    for prompt in prompts:
        for turn in prompt:
            if turn.role == "user":
                keys.append(key(prompt))
                texts.append(turn.content)
    found = near_duplicates.similar(texts, evaluation, threshold)
    return {keys[at] for pairs in found for at in pairs.left.tolist()}
