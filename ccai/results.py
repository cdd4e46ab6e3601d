"""What is known of a run: its metrics, answers, parameters and lock file, here or in a revision that git has."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ccai import figures, records, rules, yamlfile
from ccai.errors import UserError, first
from ccai.records import Answer, Prompt

NOT_SUITES = ("registered", "judge")
"""What stands in metrics/eval.json beside the suites."""

Read = Callable[[str], str | None]
"""Text of a file by its path from the project's folder; None where it isn't."""


@dataclass(frozen=True)
class Run:
    """What is known of a run; parts that lie elsewhere are empty.

    Attributes:
        name: how the page calls it.
        commit: of the code; empty outside git.
        metrics: metrics/eval.json.
        stages: what metrics of other stages say, by stage.
        prompts: the held-out prompts. answers: to them, by arm, in their order.
        missing: why there are no answers; empty if there are.
    """

    name: str
    commit: str
    metrics: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    params: dict[str, Any]
    lock: dict[str, Any]
    runtime: dict[str, dict[str, Any]]
    prompts: list[Prompt]
    answers: dict[str, list[Answer]]
    missing: str

    @property
    def arms(self) -> list[str]:
        return list(self.metrics["arms"])

    @property
    def suites(self) -> dict[str, dict[str, Any]]:
        return {
            name: value for name, value in self.metrics.items() if isinstance(value, dict) and name not in NOT_SUITES
        }


def here() -> Run:
    """The run whose files lie here."""

    def read(path: str) -> str | None:
        file = Path(path)
        try:
            return file.read_bytes().decode() if file.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); restore it (dvc checkout)") from None

    costs = {path.stem: records.read_json(path) for path in sorted(Path("metrics/runtime").glob("*.json"))}
    return _run("this run", _commit(), read, costs)


def at(revision: str) -> Run:
    """A run that git and the DVC cache hold: a commit, branch, tag or experiment. No remote storage is asked.

    Raises:
        UserError: no such revision, or it has no metrics that this version reads.
    """
    from dvc.api import DVCFileSystem  # seconds, and only two runs side by side need it
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(rev=revision, config={"core": {"remote": ""}})
        commit = files.repo.get_rev()[:12]
    except DvcException as error:
        raise UserError(f"{revision}: no such revision ({error}); name a commit, branch, tag or experiment") from None

    def read(path: str) -> str | None:
        try:
            return bytes(files.read_bytes(path)).decode()
        except (OSError, DvcException):  # not in that revision, or not in the cache
            return None

    return _run(revision, commit, read, {})


def _run(name: str, commit: str, read: Read, runtime: dict[str, dict[str, Any]]) -> Run:
    metrics = _json(name, read, "metrics/eval.json")
    if metrics is None or "registered" not in metrics or "arms" not in metrics:
        raise UserError(
            f"{name}: no metrics/eval.json that this version reads; run the stage that writes it (dvc repro)"
        )
    others = {stage: _json(name, read, f"metrics/{stage}.json") for stage in ("prompts", "pairs", "train")}
    prompts, answers, missing = list[Prompt](), dict[str, list[Answer]](), "The suite heldout was off."
    if "heldout" in metrics:
        try:
            prompts = _records(read, "data/prompts/eval.jsonl", Prompt)
            answers = {arm: _records(read, f"data/eval/heldout/{arm}.jsonl", Answer) for arm in metrics["arms"]}
            missing = ""
        except UserError as error:
            prompts, answers, missing = [], {}, str(error)
    scored = {name for names in rules.FAMILIES.values() for name in names}
    if any(scored - answer.scores.keys() for given in answers.values() for answer in given):
        prompts, answers, missing = [], {}, "The answers that lie here are of another version."
    known = {prompt.prompt_id for prompt in prompts}
    if any({answer.prompt_id for answer in given} != known for given in answers.values()):
        prompts, answers, missing = [], {}, "The answers that lie here are to other prompts than those that lie here."
    return Run(
        name=name,
        commit=commit,
        metrics=metrics,
        stages={stage: value for stage, value in others.items() if value is not None},
        params=_params(name, read),
        lock=lock(read("dvc.lock") or "{}", f"{name}: dvc.lock"),
        runtime=runtime,
        prompts=prompts,
        answers=answers,
        missing=missing,
    )


def _json(name: str, read: Read, path: str) -> dict[str, Any] | None:
    text = read(path)
    if text is None:
        return None
    return figures.check(Path(path).stem, records.an_object(text.encode(), f"{name}: {path}", finite=True), path)


def _params(name: str, read: Read) -> dict[str, Any]:
    """params.yaml, of whatever version."""
    found = yamlfile.parse(read("params.yaml") or "{}", Path("params.yaml"))
    critiques = found.get("critiques") if isinstance(found, dict) else None
    if not isinstance(critiques, dict) or not isinstance(critiques.get("constitution"), str):
        raise UserError(f"{name}: params.yaml: critiques.constitution: missing; restore it (git checkout)")
    return dict(found)


class _File(BaseModel):
    path: str
    md5: str


class _Stage(BaseModel):
    deps: list[_File] = []
    outs: list[_File] = []


class _Lock(BaseModel):
    stages: dict[str, _Stage] = {}


def lock(text: str, where: str) -> dict[str, Any]:
    """dvc.lock, as far as it tells of files.

    Raises:
        UserError: not as DVC writes it.
    """
    try:
        return _Lock.model_validate(yamlfile.parse(text, Path(where)) or {}).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}: {first(error)}; restore it (git checkout)") from None


def _records(read: Read, path: str, kind: type[Any]) -> list[Any]:
    """Records of a file. Lines end at LF alone: a record may hold other line ends."""
    text = read(path)
    if not text:
        raise UserError(f"{path} is neither here nor in the cache (dvc pull).")
    lines = text.removesuffix("\n").split("\n")
    return [records.parsed(line.encode(), kind, f"{path}:{place}") for place, line in enumerate(lines, start=1)]


def _commit() -> str:
    """HEAD, and whether files differ from it; empty outside git."""
    told = []
    for line in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(["git", *line], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        told.append(done.stdout.strip())
    return told[0] + (" and changes that are not in it" if told[1] else "")
