"""Record types that flow between the stages, and their files: JSON lines, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ccai.errors import UserError

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended by itself. `length`: the token limit cut it."""

HARMLESS = frozenset({"benign", "everyday", "none"})
"""Values of `hazard` that name no hazard: nobody is hurt by answering these prompts."""

UNSPECIFIED = "unspecified"
"""A label that the source does not give: neither hazardous nor harmless."""


class Record(BaseModel):
    """A line of a JSONL file. Unknown keys are errors: a renamed field must not vanish silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(Record):
    """One turn of a conversation, as chat templates and TRL want it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """One user prompt. `prompt_id` is a hash of its text and source, never a row number."""

    prompt_id: str
    text: str
    source: str
    source_id: str
    hazard: str
    persona: str
    principle: str
    split: Literal["train", "eval"]


class Completion(Record):
    """What a model wrote, and what is needed to trace and repeat it.

    `conversation` is the sha256 of the messages it answered, `model` the logical name (never a path),
    `unverified_weights` says that only the name vouches for them (an endpoint's can't be hashed), `seed` is the
    record's own sampling seed, tokens are counts of the model's own tokenizer.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    conversation: str
    model: str
    unverified_weights: bool
    seed: int

    @property
    def sha256(self) -> str:
        """What records made from this one name as their `parent`: a hash of what was asked, the seed and the text."""
        return digest([self.conversation, self.seed, self.text])


class Response(Completion):
    """First answer to a prompt."""

    prompt_id: str


class Critique(Completion):
    """The model's criticism of an answer, by one principle of the constitution.

    `parent` is the `sha256` of what it criticises: in round 1 the response, later the revision of the round before.
    """

    prompt_id: str
    principle: str
    round: int
    principle_sha256: str
    parent: str


class Revision(Completion):
    """The answer rewritten after the critique. `parent` is the critique's `sha256`."""

    prompt_id: str
    principle: str
    round: int
    principle_sha256: str
    parent: str


class Verdict(Record):
    """What a judge said of a pair by one principle; None where its verdict can't be read.

    `rejected_violation` and `chosen_violation` are probabilities in [0, 1] that the answer violates the principle,
    `addresses` that the revision addresses the prompt. `preference` is a tie where the two orders disagree.
    """

    rejected_violation: float | None
    chosen_violation: float | None
    preference: Literal["chosen", "rejected", "tie"] | None
    addresses: float | None


class Pair(Record):
    """A preference pair in TRL's conversational format, with where it came from.

    `rejected` is the first answer, `chosen` its revision. `chosen_tokens` and `rejected_tokens` count the
    completion only.
    """

    pair_id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    prompt_id: str
    principle: str
    hazard: str
    round: int
    chosen_tokens: int
    rejected_tokens: int
    chosen_model: str
    rejected_model: str


class DroppedPair(Pair):
    """A pair that was not kept, and the gate that took it."""

    reason: str


class Answer(Completion):
    """An evaluated answer and its verdicts. `arm` says who answered: `base` or `tuned`.

    `harmful` is the judge's probability in [0, 1]; None when it was not asked or its verdict can't be read.
    """

    prompt_id: str
    arm: str
    hazard: str
    refusal: str
    scores: dict[str, float]
    harmful: float | None


AnyRecord = TypeVar("AnyRecord", bound=Record)


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value in canonical form: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(seed: int, *key: object) -> int:
    """Sampling seed of one record, from the run's seed and the record's key: independent of order and batch."""
    return int(digest([seed, *map(str, key)])[:15], 16)


def read(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All records of a JSONL file.

    Raises:
        UserError: the file is missing, or a line is not a record of this kind; names file, line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it (dvc checkout)") from None
    if lines == [""]:
        return []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "line"
            raise UserError(
                f"{path}:{number}: {field}: {first['msg']}; restore the file (dvc checkout) or re-run its stage"
            ) from None
    return records


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically."""
    write_text(path, "".join(json.dumps(r.model_dump(), ensure_ascii=False) + "\n" for r in records))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, keys in the given order, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); re-run the stage that writes it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; re-run the stage that writes it")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary file beside `path`, fsync, rename: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
