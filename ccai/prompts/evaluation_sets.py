"""All prompts that a run evaluates on besides the held-out ones: nobody has to list them.

The project's own sets (data/eval_sets) are always among them. So are, of the suites that run, the sets that params.yaml
names for them, the files of this project's capability tasks, and what the jailbreak suite puts around a prompt; and the
sets of `prompts.evaluation_sets`. Not among them are tasks that the harness fetches by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from ccai.base import yaml_io
from ccai.base.errors import UserError
from ccai.base.params import Params
from ccai.base.records import UNSPECIFIED
from ccai.prompts import sources
from ccai.prompts.readers import READERS, decode, repair, suffix
from ccai.prompts.sources import SourcePrompt

OWN = Path("data/eval_sets")
WRAPPERS = OWN / "jailbreaks.yaml"
TASKS = Path("conf/lm_eval")

COLUMNS = ("turns", "text", "prompt", "question")
"""Where a set without a pin has its prompts: the first that a line has."""

_OPTIONS = re.compile(r"\s*(?:Choices:)?\s*^\s*\(A\).*\Z", re.DOTALL | re.MULTILINE)
"""Options below a question of a questionnaire: the suite shows them in another form."""


class WrapperTemplate(BaseModel):
    """The part of a jailbreak wrapper that a model reads around the prompt."""

    template: str


class WrapperTemplates(BaseModel):
    """The part of data/eval_sets/jailbreaks.yaml that is read here."""

    wrappers: list[WrapperTemplate]


class TaskFiles(BaseModel):
    """`dataset_kwargs` of a task in conf/lm_eval."""

    data_files: dict[str, str]
    column_names: list[str] = []


class CapabilityTask(BaseModel):
    """The part of a task in conf/lm_eval that is read here."""

    dataset_kwargs: TaskFiles


def load(settings: Params) -> list[SourcePrompt]:
    """The prompts, each once.

    Raises:
        UserError: a set that the run needs is missing, malformed, or not the pinned one.
    """
    rows = [*sources.load_all(settings.prompts.evaluation_sets), *_of_suites(settings)]
    return list({(row.source, row.text): row for row in reversed(rows)}.values())[::-1]


def _of_suites(settings: Params) -> Iterator[SourcePrompt]:
    entries = dict.fromkeys(path.as_posix() for path in sorted(OWN.rglob("*.jsonl")))
    suites = settings.eval.suites
    if "over_refusal" in suites:
        entries |= dict.fromkeys(settings.eval.over_refusal.sets)
    if "helpfulness" in suites and settings.eval.helpfulness.source != "own":
        entries[settings.eval.helpfulness.source] = None
    if "traits" in suites:
        entries[settings.eval.traits.set.as_posix()] = None
    for entry in entries:
        yield from _prompts(sources.named(entry))
    if WRAPPERS.is_file():
        for at, wrapper in enumerate(yaml_io.load(WRAPPERS, WrapperTemplates).wrappers, start=1):
            yield from _row(WRAPPERS.name, f"wrapper {at}", wrapper.template.replace("{prompt}", " "))
    if "jailbreaks" in suites:
        for entry in settings.eval.jailbreaks.wrappers:
            for row in [] if entry == "own" else sources.load(entry):
                yield from _row(row.source, row.place, row.text.replace("{prompt}", " "))
    if "capability" in suites:
        for name in settings.eval.capability.tasks:
            yield from _of_task(TASKS / f"{name}.yaml")


def _prompts(source: sources.Source, columns: str = "") -> Iterator[SourcePrompt]:
    """All texts of a set's prompts, every turn of them. `columns` is the header that a CSV file lacks."""
    text = columns + decode(sources.content(source), source.path)
    for item in READERS[suffix(source.path)](text, source.path):
        names = [source.pin.columns["text"]] if source.pin else COLUMNS
        value = next((item.fields[name] for name in names if name in item.fields), None)
        if isinstance(value, str) and isinstance(item.fields.get("scene"), str):
            value = [f"{scene}\n{value}" for scene in _scenes(item.fields)]
        turns = value if isinstance(value, list) else [value]
        for turn in turns or [None]:
            if not isinstance(turn, str):
                raise UserError(f"{source.path}:{item.place}: no prompt in {' or '.join(names)}; correct the line")
            yield from _row(source.name, item.place, _OPTIONS.sub("", turn))


def _scenes(fields: Mapping[str, object]) -> list[str]:
    """A bias item's scene with its people in either order."""
    scene, one, other = (str(fields.get(name)) for name in ("scene", "stereotyped", "other"))
    orders = ((one, other), (other, one))
    return [re.sub("{first}", a, scene, flags=re.I).replace("{second}", b) for a, b in orders]


def _of_task(path: Path) -> Iterator[SourcePrompt]:
    """The documents of a capability task, if it is the project's own."""
    if path.is_file():
        files = yaml_io.load(path, CapabilityTask).dataset_kwargs
        header = ",".join(files.column_names) + "\n" if files.column_names else ""
        for pattern in files.data_files.values():
            for file in sorted(Path().glob(pattern)):
                yield from _prompts(sources.Source(file.name, file), header)


def _row(source: str, place: str, text: str) -> Iterator[SourcePrompt]:
    if text := repair(text):
        yield SourcePrompt(source, "", text, UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, place)
