"""Tasks of inspect_evals: made from pinned data, asked of an arm, graded by the judge that params.yaml names."""

from __future__ import annotations

import difflib
import inspect
import io
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import inspect_evals
import numpy as np
import yaml
from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import MemoryDataset
from inspect_ai.log import EvalLog, EvalSample

from ccai.base.errors import UserError
from ccai.base.eval_params import InspectTask
from ccai.base.hashing import digest, seed_for
from ccai.evaluate.inspect import data
from ccai.evaluate.inspect.bridge import CONNECTIONS, Bridge

PACKAGES = ("inspect_ai", "inspect_evals")

JUDGES = (
    "scorer_model",
    "judge_llm",
    "grader_model",
    "grader_models",
    "judge_model",
    "grader",
    "binary_judge_model",
    "numeric_judge_model",
)
"""Arguments by which tasks take a judge; most have somebody's hosted model as the default."""

ROLES = ("grader", "judge", "evaluator", "refusal_judge")
"""Roles by which tasks ask for a judge."""

SEED = 42
"""Of the generators that tasks shuffle with if they name none of their own."""


@dataclass(frozen=True)
class ReadyTask:
    """A task with its drawn samples. `asked` is its entry in params.yaml, `exam` its judge's."""

    asked: InspectTask
    task: Task
    exam: data.GradeExam | None

    @property
    def label(self) -> str:
        return self.asked.label


def where(asked: InspectTask) -> str:
    """How messages about a task begin."""
    return f"eval.inspect.tasks: {asked.label}"


def load(asked: Sequence[InspectTask], judges: Mapping[str | None, Bridge], seed: int) -> list[ReadyTask]:
    """The tasks, with their data.

    Args:
        judges: by the name that params.yaml gives.

    Raises:
        UserError: no such task; one for agents, for pictures or that runs code; wrong arguments; a judge that is
            missing or not needed; data that is not on this machine.
    """
    table = data.table()
    for package in PACKAGES:
        if version(package) != table.versions.get(package):
            raise UserError(
                f"{data.TABLE}: {package} {table.versions.get(package)} is pinned, {version(package)} is installed; "
                "pip install -r requirements-inspect.txt"
            )
    listed = _listed()
    return [ReadyTask(one, _made(one, listed, judges, table, seed), table.exams.get(one.task)) for one in asked]


def _listed() -> dict[str, dict[str, Any]]:
    """What the package says of each task, by name."""
    known: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(inspect_evals.__file__).parent.glob("*/eval.yaml")):
        about = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        known |= {task["name"]: about | {"module": f"inspect_evals.{path.parent.name}"} for task in about["tasks"]}
    return known


def _made(
    asked: InspectTask,
    listed: Mapping[str, dict[str, Any]],
    judges: Mapping[str | None, Bridge],
    table: data.DataTable,
    seed: int,
) -> Task:
    start = where(asked)
    about = listed.get(asked.task)
    if about is None:
        near = difflib.get_close_matches(asked.task, listed, 3)
        hint = f"; there is {', '.join(near)}" if near else ""
        raise UserError(f"{start}: inspect_evals {version('inspect_evals')} has no such task{hint}")
    if kind := _other_kind(about):
        raise UserError(f"{start}: is {kind}; this suite asks tasks of text only: take it out")
    random.seed(SEED)
    np.random.seed(SEED)
    try:
        with data.pinned(table), redirect_stdout(io.StringIO()):  # inspect_ai says that it loads from a hub
            function = getattr(import_module(about["module"]), asked.task)
            task = function(**_arguments(asked, function, judges))
        if task.sandbox is not None or any(sample.sandbox is not None for sample in task.dataset):
            raise UserError("runs in a sandbox; this suite asks tasks of text only: take it out")
    except ImportError as error:
        raise UserError(f"{start}: needs a package that is not installed ({error.name}); install it") from None
    except UserError as error:
        raise UserError(f"{start}: {error}") from None
    except Exception as error:  # somebody else's code, given the user's arguments
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{start}: can't be made ({reason[:300]}); correct its args or take it out") from None
    task.dataset = _drawn(task.dataset, asked, seed)
    task._name = asked.label
    return task


def _other_kind(about: Mapping[str, Any]) -> str | None:
    """Why a task is none of text, by what the package says of it."""
    tags = {tag.lower() for tag in about.get("tags") or ()}
    if tags & {"agent", "agents"}:
        return "an agent's task"
    if (about.get("metadata") or {}).get("sandbox"):
        return "a task that runs code in a sandbox"
    if "multimodal" in tags or about["group"] == "Multimodal":
        return "a task with pictures"
    return "a package of its own" if about.get("isolated") else None


def _arguments(
    asked: InspectTask, function: Callable[..., Task], judges: Mapping[str | None, Bridge]
) -> dict[str, Any]:
    """The arguments of params.yaml, and the judge in the places for one."""
    taken = inspect.signature(function).parameters
    places = [name for name in taken if name in JUDGES]
    if given := [name for name in asked.args if name in JUDGES]:
        raise UserError(f"args: {given[0]}: name the judge as judge beside args")
    if unknown := [name for name in asked.args if name not in taken]:
        raise UserError(f"args: {unknown[0]}: no such argument; it takes {', '.join(taken) or 'none'}")
    if places and asked.judge is None:
        raise UserError(f"has its answers graded by a model ({places[0]}); name one of conf/models.yaml as judge")
    if asked.judge is None:
        return asked.args
    judge = judges[asked.judge].model
    return asked.args | {name: [judge] if name.endswith("s") else judge for name in places}


def _drawn(dataset: Any, asked: InspectTask, seed: int) -> MemoryDataset:
    """A task's samples: `limit` of them, by hash, so that order and the rest of the set play no part."""
    samples, used = list(dataset), set[str]()
    for sample in samples:
        name = str(digest(_plain(sample.input))[:16] if sample.id is None else sample.id)
        while name in used:
            name += "+"
        used.add(name)
        sample.id = name
    samples.sort(key=lambda sample: seed_for(seed, "inspect", asked.task, sample.id))
    return MemoryDataset(samples[: asked.limit or None], name=asked.label)


def ask(tasks: Sequence[ReadyTask], bridge: Bridge, graders: Sequence[Bridge]) -> dict[str, list[EvalSample]]:
    """The tasks' samples with a model's answers, not graded; by label, in the order in which they were drawn.

    Args:
        graders: they refuse meanwhile; the first is the one for roles.

    Raises:
        UserError: the engine failed, or a task asks for what no engine here does.
    """
    random.seed(SEED)
    np.random.seed(SEED)
    model = bridge.model
    with TemporaryDirectory() as logs, data.pinned(data.table(), networked(bridge)):
        done = run(
            [ready.task for ready in tasks],
            model=model,
            model_roles=dict.fromkeys(ROLES, graders[0].model),
            score=False,
            display="none",
            log_level="error",
            log_dir=logs,
            log_format="json",
            log_realtime=False,
            log_images=False,
            fail_on_error=False,
            max_tasks=len(tasks),
            max_samples=CONNECTIONS,
            max_connections=CONNECTIONS,
            adaptive_connections=False,
            ctl_server=False,
            acp_server=False,
        )
    for asked in (bridge, *graders):
        if asked.error:
            raise asked.error
    logs_of = {log.eval.task: log for log in done}
    return {ready.label: _samples(ready, logs_of[ready.label]) for ready in tasks}


def networked(bridge: Bridge) -> bool:
    """Whether its engine is behind an endpoint."""
    return bridge.engine is not None and bridge.engine.unverified_weights


def _samples(ready: ReadyTask, log: EvalLog) -> list[EvalSample]:
    samples = log.samples or []
    failed = [sample.error for sample in samples if sample.error]
    if log.status != "success" or len(failed) == len(samples):
        error = log.error or failed[0] if failed else log.error
        reason = " ".join(str(error.message if error else "no samples").split())
        raise UserError(f"{where(ready.asked)}: can't be run ({reason[:300]}); take it out")
    order = {sample.id: place for place, sample in enumerate(ready.task.dataset)}
    return sorted(samples, key=lambda sample: (order[sample.id], sample.epoch))


def _plain(conversation: Any) -> Any:
    """A sample's input as JSON, without the ids that inspect_ai gives messages."""
    return conversation if isinstance(conversation, str) else [[said.role, said.text] for said in conversation]
