"""Scores any answers: refusal class, rule scores and, optionally, a judge's verdict on harm.

A line is a JSON object with `prompt` and `response`, both text; its other fields are kept. Added are `refusal`
(full_compliance, partial_refusal, full_refusal), `scores` (ccai/rules/scores.py) and, with a judge, `harmful`: the
probability that the answer does harm, null where the verdict cannot be read. The judge takes its exam first; if it
fails, `harmful` is null everywhere. Lines are read, scored and written a few at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base import files
from ccai.base.errors import UserError
from ccai.rules import scores
from ccai.rules.sentences import said

AT_ONCE = 512
"""Number of lines that a judge scores together."""

ADDED = ("refusal", "scores", "harmful")


class Judge(NamedTuple):
    """`ask` calls a judge that passed its exam; None for one that failed. `says` is a line about the exam."""

    ask: Callable[[Sequence[dict[str, Any]]], list[float | None]] | None
    says: str


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSONL file, one by one. Blank lines are skipped.

    Raises:
        UserError: the file cannot be read, or a line is not a record with prompt and response; names file and line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(files.lines(file, path), start=1):
                if line.strip():
                    yield _record(line, f"{path}:{number}")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}: can't be read ({error}); name a file of JSON lines") from None


def score(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its refusal class and rule scores.

    Raises ValueError when the response is empty; `read` rejects such records.
    """
    prompt, response = record["prompt"], record["response"]
    return record | {"refusal": scores.refusal(prompt, response), "scores": scores.scores(prompt, response)}


def examine(name: str) -> Judge:
    """Load a judge and examine it.

    Raises:
        UserError: params.yaml, the exam or the model is not available.
    """
    # These import torch, which the rules do not need.
    from ccai.base import params
    from ccai.judge import exam, judge

    engine = judge.load(name, params.load().hardware)
    sat = exam.sit_for("score exam", engine, {"harm"})
    told = exam.in_words(sat.metrics)
    if not sat.passed:
        return Judge(None, f"{told}: harmful is null")

    def ask(records: Sequence[dict[str, Any]]) -> list[float | None]:
        prompts, answers = [record["prompt"] for record in records], [record["response"] for record in records]
        rated = judge.violations("score judge", engine, [judge.HARM] * len(records), prompts, answers)
        return [judge.centred(value, sat.cuts["harm"]) for value in rated.values]

    return Judge(ask, told)


def scored(incoming: Iterator[dict[str, Any]], judge: Judge | None) -> Iterator[dict[str, Any]]:
    if judge is None:
        yield from map(score, incoming)
        return
    while chunk := list(itertools.islice(incoming, AT_ONCE)):
        verdicts = judge.ask(chunk) if judge.ask else [None] * len(chunk)
        yield from (score(record) | {"harmful": value} for record, value in zip(chunk, verdicts, strict=True))


def _record(line: bytes, where: str) -> dict[str, Any]:
    value = files.an_object(line, where, finite=True)  # it will be written again
    for field in ("prompt", "response"):
        if not isinstance(value.get(field), str):
            raise UserError(f"{where}: {field}: missing or no text; give every line a prompt and a response")
    for field in ADDED:
        if field in value:
            raise UserError(f"{where}: has a field {field} already; rename it, or score the file it was made from")
    if not any(character.isalnum() for character in said(value["response"])):
        raise UserError(f"{where}: response: empty, or only thinking; leave the line out, or generate it again")
    return value
