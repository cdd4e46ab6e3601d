"""What is known of a run: its metrics, answers, parameters and lock file, here or in a revision that git has."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ccai.base import metrics_json, yaml_io
from ccai.base.errors import UserError, first
from ccai.base.files import an_object, parsed
from ccai.base.records import Answer, Prompt
from ccai.rules import scores

NOT_SUITES = ("registered", "judge")
"""What stands in metrics/eval.json beside the suites."""

HERE = "this run"
"""What the run is called whose files lie here."""

WORKSPACE = (".", "workspace")
"""How a command is told to take the run whose files lie here, where it takes revisions."""

RUNTIME = Path("metrics/runtime")

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
        origin: see `origin`. read: its other files.
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
    origin: str
    read: Read

    @property
    def arms(self) -> list[str]:
        return list(self.metrics["arms"])

    @property
    def suites(self) -> dict[str, dict[str, Any]]:
        return {
            name: value for name, value in self.metrics.items() if isinstance(value, dict) and name not in NOT_SUITES
        }


@dataclass(frozen=True)
class Files:
    """The files of a run, by path from the project's folder; `content` gives None where one isn't."""

    name: str
    content: Callable[[str], bytes | None]

    def text(self, path: str) -> str | None:
        """Raises UserError if it is no text."""
        content = self.content(path)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError:
            raise UserError(f"{self.name}: {path}: not UTF-8; run the stage that writes it") from None


def here() -> Run:
    """The run whose files lie here.

    Raises:
        UserError: it has no metrics that this version reads.
    """
    _, _, lying = files(None)
    costs = {path.stem: _object(lying.name, lying.text, str(path)) for path in sorted(RUNTIME.glob("*.json"))}
    return _run(lying.name, _commit(), lying.text, {stage: cost for stage, cost in costs.items() if cost}, origin())


def at(revision: str) -> Run:
    """A run that git and the DVC cache hold: a commit, branch, tag or experiment. No remote storage is asked.

    Raises:
        UserError: no such revision, or it has no metrics that this version reads.
    """
    name, commit, of_revision = files(revision)
    return _run(name, commit, of_revision.text, {}, "")


def files(revision: str | None) -> tuple[str, str, Files]:
    """What a run is called, its commit, and its files: of a revision as `at`, or those that lie here.

    Raises:
        UserError: no such revision; or, when one is read, a file that can't be.
    """
    if revision is None:
        return HERE, "", Files(HERE, _lying)
    from dvc.api import DVCFileSystem  # seconds, and only two runs side by side need it
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        system = DVCFileSystem(rev=revision, config={"core": {"remote": ""}})
        commit = system.repo.get_rev()[:12]
    except DvcException as error:
        raise UserError(f"{revision}: no such revision ({error}); name a commit, branch, tag or experiment") from None

    def content(path: str) -> bytes | None:
        try:
            return bytes(system.read_bytes(path))
        except (OSError, DvcException, DataIndexDirError):  # not in that revision, or not in the cache
            return None

    return revision, commit, Files(revision, content)


def in_git(commit: str) -> Files:
    """The files that git has of a commit: metrics, params.yaml and dvc.lock, but no data. The cache is not asked."""

    def content(path: str) -> bytes | None:
        shown = subprocess.run(["git", "show", f"{commit}:./{path}"], capture_output=True)
        return None if shown.returncode else shown.stdout

    return Files(commit[:12], content)


def with_answers(revision: str) -> Run:
    """As `at`, and the answers are fetched from the default remote where the cache lacks them.

    Raises:
        UserError: as `at`; or they are neither in the cache nor in the remote, or there is no remote.
    """
    run = at(revision)
    if _lacking(run):
        _fetch(run)
        run = at(revision)
    if path := _lacking(run):
        raise UserError(
            f"{revision}: {path} is not in the DVC cache and the remote did not give it; run dvc push where it was "
            "made, or check the remote: ccai doctor"
        )
    return run


def _lacking(run: Run) -> str:
    """The first file of the tuned model's answers that isn't at hand; empty if all are."""
    paths = (f"data/eval/{suite}/tuned.jsonl" for suite in run.suites)
    return next((path for path in paths if run.read(path) is None), "")


def _fetch(run: Run) -> None:
    """Bring a revision's data/eval from the default remote into the cache."""
    from dvc.repo import Repo  # as in `files`

    disabled = logging.root.manager.disable
    logging.disable()  # what DVC would say is said here, in one line
    try:
        with Repo() as repo:
            name = repo.config["core"].get("remote")
            if not name:
                raise UserError(
                    f"{run.name}: data/eval is not in the DVC cache and no remote is set; set the one it was pushed to "
                    "(dvc remote add -d NAME URL), or make it again (git checkout, dvc repro)"
                )
            # An older revision's own settings may lack the remote.
            config = {"core": {"remote": name}, "remote": {name: dict(repo.config["remote"][name])}}
            repo.fetch(targets=["data/eval"], revs=[run.commit], workspace=False, remote=name, config=config)
    except UserError:
        raise
    except Exception as error:  # each kind of remote has its own
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{run.name}: data/eval is not in the DVC cache and can't be fetched ({why}); run dvc push where it was "
            "made, or check the remote: ccai doctor"
        ) from None
    finally:
        logging.disable(disabled)


def _lying(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make it readable") from None


def origin() -> str:
    """Where the metrics that lie here come from, if no run in this folder wrote them; empty if one did.

    A stage writes metrics/runtime, which is not in git, after its metrics. So metrics that git has as they are, and
    that are newer or have no such file beside them, were put here by git.
    """
    metrics, ran = Path("metrics/eval.json"), RUNTIME / "eval.json"
    with suppress(OSError):
        if ran.stat().st_mtime_ns >= metrics.stat().st_mtime_ns:
            return ""
    try:
        if git("status", "--porcelain", "--", str(metrics)):
            return ""
        commit = git("log", "-1", "--format=commit %h (%cs)", "--", str(metrics))
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"from git, {commit}; no run in this folder wrote it" if commit else ""


def _run(name: str, commit: str, read: Read, runtime: dict[str, dict[str, Any]], origin: str) -> Run:
    metrics = metrics_of(name, read, "eval")
    if metrics is None or "registered" not in metrics or "arms" not in metrics:
        raise UserError(
            f"{name}: no metrics/eval.json that this version reads; run the stage that writes it (dvc repro)"
        )
    others = {stage: metrics_of(name, read, stage) for stage in ("prompts", "pairs", "train")}
    prompts, answers, missing = list[Prompt](), dict[str, list[Answer]](), "The suite heldout was off."
    if "heldout" in metrics:
        try:
            prompts = _records(read, "data/prompts/eval.jsonl", Prompt)
            answers = {arm: _records(read, f"data/eval/heldout/{arm}.jsonl", Answer) for arm in metrics["arms"]}
            missing = ""
        except UserError as error:
            prompts, answers, missing = [], {}, str(error)
    scored = {name for names in scores.FAMILIES.values() for name in names}
    if any(scored - answer.scores.keys() for of_arm in answers.values() for answer in of_arm):
        prompts, answers, missing = [], {}, "The answers that lie here are of another version."
    prompt_ids = {prompt.prompt_id for prompt in prompts}
    if any({answer.prompt_id for answer in of_arm} != prompt_ids for of_arm in answers.values()):
        prompts, answers, missing = [], {}, "The answers that lie here are to other prompts than those that lie here."
    return Run(
        name=name,
        commit=commit,
        metrics=metrics,
        stages={stage: value for stage, value in others.items() if value is not None},
        params=_params(name, read),
        lock=lock(read("dvc.lock") or "{}", f"{name}: dvc.lock"),
        runtime=runtime,
        origin=origin,
        read=read,
        prompts=prompts,
        answers=answers,
        missing=missing,
    )


def metrics_of(name: str, read: Read, stage: str) -> dict[str, Any] | None:
    """A stage's metrics, checked; None where there are none. Raises UserError as `metrics_json.check` does."""
    path = f"metrics/{stage}.json"
    metrics = _object(name, read, path)
    return None if metrics is None else metrics_json.check(stage, metrics, f"{name}: {path}")


def _object(name: str, read: Read, path: str) -> dict[str, Any] | None:
    text = read(path)
    return None if text is None else an_object(text.encode(), f"{name}: {path}", finite=True)


def _params(name: str, read: Read) -> dict[str, Any]:
    """params.yaml, of whatever version."""
    params = yaml_io.parse(read("params.yaml") or "{}", Path("params.yaml"))
    critiques = params.get("critiques") if isinstance(params, dict) else None
    if not isinstance(critiques, dict) or not isinstance(critiques.get("constitution"), str):
        raise UserError(f"{name}: params.yaml: critiques.constitution: missing; restore it (git checkout)")
    return dict(params)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Parameters by their whole name, such as `train.beta`, and their values as text."""
    parameters: dict[str, str] = {}
    for name, value in nested.items():
        if isinstance(value, dict) and value:
            parameters |= flat(value, f"{prefix}{name}.")
        else:
            text = _unplaced(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parameters[f"{prefix}{name}"] = text
    return parameters


def _unplaced(value: str) -> str:
    """A path of this machine without the folders that lead there: the page is for others, too."""
    return f"…/{Path(value).name}" if Path(value).is_absolute() else value


class _LockedFile(BaseModel):
    path: str
    md5: str


class _Stage(BaseModel):
    deps: list[_LockedFile] = []
    outs: list[_LockedFile] = []
    params: dict[str, dict[str, Any]] = {}


class _Lock(BaseModel):
    stages: dict[str, _Stage] = {}


def lock(text: str, where: str) -> dict[str, Any]:
    """dvc.lock, as far as it tells of files and params.

    Raises:
        UserError: not as DVC writes it.
    """
    try:
        return _Lock.model_validate(yaml_io.parse(text, Path(where)) or {}).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}: {first(error)}; restore it (git checkout)") from None


def _records(read: Read, path: str, kind: type[Any]) -> list[Any]:
    """Records of a file. Lines end at LF alone: a record may hold other line ends."""
    text = read(path)
    if not text:
        raise UserError(f"{path} is neither here nor in the cache (dvc pull).")
    lines = text.removesuffix("\n").split("\n")
    return [parsed(line.encode(), kind, f"{path}:{place}") for place, line in enumerate(lines, start=1)]


def _commit() -> str:
    """HEAD, and whether files differ from it; empty outside git."""
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" and changes that are not in it" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def git(*arguments: str) -> str:
    """What a git command prints; raises OSError or CalledProcessError where it can't."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
