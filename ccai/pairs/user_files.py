"""Users' JSONL files of conversations: ready-made preference pairs and helpful demonstrations.

An entry is the name of a pinned source (ccai/prompts/sources.py) or a .jsonl or .jsonl.gz file. Keep your own in
data/imports: DVC watches that folder and re-runs the pairs stage after a change.
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
from ccai.prompts import contamination, readers, sources

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class FileRow(NamedTuple):
    """A line of a file. `source` is the file's name in records; `where` names file and line, for messages."""

    source: str
    where: str
    fields: Mapping[str, Any]

    def error(self, column: str, problem: str) -> UserError:
        """The error for a line that cannot be used."""
        return UserError(f"{self.where}: {column}: {problem}; correct the line or take it out")


def rows(entry: str) -> Iterator[FileRow]:
    """The lines of an entry's file, one by one, without blank ones.

    Raises:
        UserError: unknown, missing, not the pinned file, unreadable, not UTF-8, too large when unpacked, or a line that
            is not a JSON object or is too long.
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
                    yield FileRow(source.name, where, an_object(line, where))
    except FileNotFoundError:
        remedy = f"fetch it: ccai sources fetch {entry}" if source.pin else "correct its name"
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}:{number + 1}: cannot be read ({error}); restore the file") from None


def turns(row: FileRow, column: str, role: str) -> list[Message]:
    r"""The messages in a column: a list of them, a transcript ("\n\nHuman: …\n\nAssistant: …"), or one text.

    Args:
        role: the role of a single text.

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
                return [Message.model_validate({"role": _ROLES[who], "content": text.strip()}) for who, text in pairs]
            return [Message.model_validate({"role": role, "content": value.strip()})]
    except ValidationError:
        raise row.error(column, "not messages with role and content") from None
    if value is None:
        columns = ", ".join(name[:24] for name in list(row.fields)[:12])
        raise row.error(column, f"no such column; there are {columns or 'none'}")
    raise row.error(column, "neither a text nor a list of messages")


def under(system: str, messages: Sequence[Message]) -> list[Message]:
    """The messages after a system message, unless it is empty or they have one."""
    if not system or (messages and messages[0].role == "system"):
        return list(messages)
    return [Message(role="system", content=system), *messages]


def key(prompt: Sequence[Message]) -> str:
    """A prompt's id: prompts are the same if the words of all turns except the system message are."""
    spoken = [[turn.role, *gates.words(turn.content)] for turn in prompt if turn.role != "system"]
    return digest(spoken)[:16]


def near(prompts: Iterable[Sequence[Message]], evaluation: Sequence[str], threshold: float) -> set[str]:
    """Keys of prompts that must not be trained on: one of the user's turns equals, nearly equals or contains an
    evaluation prompt.

    Args:
        threshold: cosine from which they nearly equal (ccai/prompts/contamination.py).
    """
    keys, texts = [], []
    for prompt in prompts:
        for turn in prompt:
            if turn.role == "user":
                keys.append(key(prompt))
                texts.append(turn.content)
    blocks = contamination.pairs(texts, evaluation, threshold)
    return {keys[at] for block in blocks for at in block.left.tolist()}
