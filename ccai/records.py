"""Record types that flow between the stages, and their files: JSON lines, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ccai.errors import UserError, first

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended by itself. `length`: the token limit cut it."""

HARMLESS = frozenset({"benign", "everyday", "none"})
"""Values of `hazard` that name no hazard: nobody is hurt by answering these prompts."""

UNSPECIFIED = "unspecified"
"""A label that the source does not give: neither hazardous nor harmless."""


def hazardous(hazard: str) -> bool:
    """Whether a value of `hazard` names one."""
    return hazard not in HARMLESS | {UNSPECIFIED}


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

    `rejected` is the first answer, `chosen` its last revision, `round` how many revisions that took (0: the pair came
    ready-made). `chosen_tokens` and `rejected_tokens` count the completion only. `verdict` is None where no judge was
    asked.
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
    verdict: Verdict | None = None


class DroppedPair(Pair):
    """A pair that was not kept, and the gate that took it."""

    reason: str


class Demonstration(Record):
    """A conversation to imitate, as TRL's SFT trainer takes it; the last of `messages` is the assistant's.

    `pair_id` names the pair whose chosen answer it is; None: a helpful demonstration from the file `source`.
    """

    messages: list[Message]
    prompt_id: str
    source: str
    principle: str
    pair_id: str | None


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
    return list(each(path, kind))


def each(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a JSONL file one by one, however many there are; raises as `read` does."""
    for number, line in enumerate(_lines(path), start=1):
        yield _parsed(path, number, line, kind)


class Index(Generic[AnyRecord]):
    """Records of a JSONL file by the value of a field: where each lies is kept in memory (some 200 bytes), not it.

    Of two records with the same value the later one counts, as in a dict.

    Raises:
        UserError: as `read` does, for all lines, as the index is made.
    """

    def __init__(self, path: Path, kind: type[AnyRecord], field: str) -> None:
        self._path, self._kind = path, kind
        self._places: dict[str, tuple[int, int]] = {}
        place = 0
        for number, line in enumerate(_lines(path), start=1):
            self._places[getattr(_parsed(path, number, line, kind), field)] = (number, place)
            place += len(line)
        self._file = path.open("rb")
        self._read = functools.lru_cache(maxsize=256)(self._read_anew)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> AnyRecord:
        return self._read(key)

    def _read_anew(self, key: str) -> AnyRecord:
        number, place = self._places[key]
        self._file.seek(place)
        return _parsed(self._path, number, self._file.readline(), self._kind)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with their line ends."""
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it (dvc checkout)") from None


def _parsed(path: Path, number: int, line: bytes, kind: type[AnyRecord]) -> AnyRecord:
    try:
        return kind.model_validate_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: cannot be read ({error}); restore it (dvc checkout)") from None
    except ValidationError as error:
        raise UserError(
            f"{path}:{number}: {first(error, 'line')}; restore the file (dvc checkout) or re-run its stage"
        ) from None


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically."""
    with writing(path) as file:
        file.writelines(map(line, records))


def line(record: Record) -> bytes:
    """A record as its line of a JSONL file."""
    return (json.dumps(record.model_dump(), ensure_ascii=False) + "\n").encode()


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
    """Write bytes, atomically."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path`; at the end fsync and rename, so readers see the old file or the new one.

    Raises:
        UserError: it can't be written, such as for want of space; the old file is as it was.
    """
    try:
        with _beside(path) as file:
            yield file
    except BrokenPipeError:  # whoever read what the command prints is gone
        raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or make its folder writable, "
            "and run again"
        ) from None


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
