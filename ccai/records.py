"""Record types that flow between the stages, and their files: JSON lines, written whole or not at all."""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Generic, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


LONGEST_LINE = 16 * 2**20
"""Bytes of a line from which a file is taken for something else than JSON lines: it would fill the memory."""

Tokens = Annotated[int, Field(ge=0, lt=2**31)]
"""A count of tokens; more than that no context holds."""


class Record(BaseModel):
    """A line of a JSONL file. Unknown keys are errors: a renamed field must not vanish silently.

    `KEY` names the fields that tell a file's records apart; empty: they may be equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    KEY: ClassVar[tuple[str, ...]] = ()


class Message(Record):
    """One turn of a conversation, as chat templates and TRL want it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """One user prompt. `prompt_id` is a hash of its text and source, never a row number."""

    KEY = ("prompt_id",)

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
    prompt_tokens: Tokens
    completion_tokens: Tokens
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

    KEY = ("prompt_id",)

    prompt_id: str


class Critique(Completion):
    """The model's criticism of an answer, by one principle of the constitution.

    `parent` is the `sha256` of what it criticises: in round 1 the response, later the revision of the round before.
    """

    KEY = ("prompt_id", "principle", "round")

    prompt_id: str
    principle: str
    round: int
    principle_sha256: str
    parent: str


class Revision(Completion):
    """The answer rewritten after the critique. `parent` is the critique's `sha256`."""

    KEY = ("prompt_id", "principle", "round")

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

    KEY: ClassVar[tuple[str, ...]] = ("pair_id",)

    pair_id: str
    prompt: list[Message]
    chosen: list[Message] = Field(min_length=1)
    rejected: list[Message] = Field(min_length=1)
    prompt_id: str
    principle: str
    hazard: str
    round: int
    chosen_tokens: Tokens
    rejected_tokens: Tokens
    chosen_model: str
    rejected_model: str
    verdict: Verdict | None = None


class DroppedPair(Pair):
    """A pair that was not kept, and the gate that took it. Of duplicates several may be the same."""

    KEY = ()

    reason: str


class Demonstration(Record):
    """A conversation to imitate, as TRL's SFT trainer takes it; the last of `messages` is the assistant's.

    `pair_id` names the pair whose chosen answer it is; None: a helpful demonstration from the file `source`.
    """

    KEY = ("prompt_id", "pair_id")

    messages: list[Message] = Field(min_length=1)
    prompt_id: str
    source: str
    principle: str
    pair_id: str | None


class Answer(Completion):
    """An evaluated answer and its verdicts. `arm` says who answered: `base` or `tuned`.

    `harmful` is the judge's probability in [0, 1]; None when it was not asked or its verdict can't be read.
    """

    KEY = ("prompt_id",)

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
    """All records of a JSONL file that has some.

    Raises:
        UserError: the file is missing or empty, or a line is not a record of this kind, or has the key of an earlier
            one; names file, line and field.
    """
    found = list(each(path, kind))
    if not found:
        raise _empty(path)
    return found


def each(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a JSONL file one by one, however many there are; raises as `read` does, but none may be
    right."""
    for record, _, _ in _placed(path, kind):
        yield record


class Index(Generic[AnyRecord]):
    """Records of a JSONL file by their one key: where each lies is kept in memory (some 200 bytes), not it.

    Raises:
        UserError: as `read` does, for all lines, as the index is made.
    """

    def __init__(self, path: Path, kind: type[AnyRecord]) -> None:
        self._path, self._kind = path, kind
        [field] = kind.KEY
        self._places: dict[str, tuple[int, int]] = {}
        place = 0
        for record, number, length in _placed(path, kind):
            self._places[getattr(record, field)] = (number, place)
            place += length
        if not self._places:
            raise _empty(path)
        self._file = path.open("rb")
        self._read = functools.lru_cache(maxsize=256)(self._read_anew)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> AnyRecord:
        return self._read(key)

    def _read_anew(self, key: str) -> AnyRecord:
        number, place = self._places[key]
        self._file.seek(place)
        return parsed(self._file.readline(), self._kind, f"{self._path}:{number}")


def _empty(path: Path) -> UserError:
    return UserError(f"{path}: empty; restore the file (dvc checkout) or re-run its stage")


def _placed(path: Path, kind: type[AnyRecord]) -> Iterator[tuple[AnyRecord, int, int]]:
    """Each record with its line's number and length in bytes."""
    seen: set[int] = set()  # hashes: of a million records a tenth of the memory of their keys
    try:
        with path.open("rb") as file:
            for number, line in enumerate(lines(file, path), start=1):
                record = parsed(line, kind, f"{path}:{number}")
                if kind.KEY:
                    values = [getattr(record, field) for field in kind.KEY]
                    before, identity = len(seen), hash(tuple(values))
                    seen.add(identity)
                    if len(seen) == before:
                        named = ", ".join(f"{field} {value}" for field, value in zip(kind.KEY, values, strict=True))
                        raise UserError(
                            f"{path}:{number}: a second record of {named}; restore the file (dvc checkout) or re-run "
                            "its stage"
                        )
                yield record, number, len(line)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it (dvc repro)") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}: cannot be read ({error}); restore it (dvc checkout)") from None


def lines(file: BufferedIOBase, where: Path) -> Iterator[bytes]:
    """A file's lines with their line ends.

    Raises:
        UserError: one is longer than `LONGEST_LINE`.
        OSError: it can't be read on.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(f"{where}:{number}: more than {LONGEST_LINE} bytes without a line end; correct the file")
        yield line


def parsed(line: bytes, kind: type[AnyRecord], where: str) -> AnyRecord:
    """A record from its line.

    Raises:
        UserError: not UTF-8, not JSON, an object with a key twice, or no record of this kind; names the field.
    """
    try:
        text = line.decode()
        record = kind.model_validate_json(text, strict=True)
        json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read ({error}); restore the file (dvc checkout)") from None
    except (ValidationError, ValueError) as error:
        wrong = first(error, "line") if isinstance(error, ValidationError) else error
        raise UserError(f"{where}: {wrong}; restore the file (dvc checkout) or re-run its stage") from None
    return record


def loads(text: bytes | str, *, finite: bool = True) -> Any:
    """A JSON value, as the standard has it and Python's `json` alone does not.

    Args:
        finite: whether NaN and the infinities are errors.

    Raises:
        ValueError: not JSON in UTF-8; a key twice in one object, half a surrogate pair, a number without end, nested
            too deep.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number if finite else None, parse_int=_integer
        )
        if finite or "\\ud" in text.lower():  # see whether it can be written again
            json.dumps(value, ensure_ascii=False, allow_nan=not finite).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (\\ud…)") from None
    return value


def an_object(line: bytes, where: str, *, finite: bool = False) -> dict[str, Any]:
    """A JSON object from a line of a user's file.

    Raises:
        UserError: it is none, by `loads`.
    """
    try:
        value = loads(line.removeprefix(codecs.BOM_UTF8), finite=finite)
    except ValueError as error:
        raise UserError(f"{where}: not a line of JSON in UTF-8 ({error}); correct it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object; write one on each line")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if a key stands in it twice, where Python would forget the first."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice[:80]!a}: twice in one object")
    return values


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    """An integer that a float can hold, too."""
    if len(digits) > 300:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


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
        value = loads(path.read_bytes())
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
