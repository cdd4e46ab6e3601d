"""The data that tasks of inspect_evals ask for: files on this machine, named and pinned in conf/inspect.yaml.

While a task is made and run, nothing is fetched: what it asks a hub or an address for is looked up in the table.
"""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn
from unittest.mock import patch

import datasets
from inspect_ai._util import appdirs
from inspect_ai.dataset._sources import hf
from inspect_ai.model import _model
from inspect_evals.utils import load_dataset as by_address
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ccai.base import cache, yaml_io
from ccai.base.errors import UserError
from ccai.base.hashing import sha256_of
from ccai.prompts import sources

TABLE = Path("conf/inspect.yaml")

READERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""By a file's suffix, the reader of the package datasets."""


class PinnedFile(BaseModel):
    """A file that stands for what a task asks for.

    Attributes:
        path: of the set on the hub, or the address of a file, as the task names it.
        name: the set's configuration or folder, if the task names one.
        split: the part of the set; empty for an address.
        revision: the hub's commit that the task asks for; empty for an address.
        source: a pin in data/sources, which gives `file`, `sha256` and `licence`; or these three.
        file: in the project's folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    name: str = ""
    split: str = ""
    revision: str = ""
    source: str = ""
    file: str = ""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    licence: str = ""

    @model_validator(mode="after")
    def _whole(self) -> PinnedFile:
        own = (self.file, self.sha256, self.licence)
        if any(own) if self.source else not all(own):
            raise ValueError(f"{self}: needs either source, or file, sha256 and licence")
        return self

    def __str__(self) -> str:
        return _title(self.path, self.name, self.split)


class GradeExam(BaseModel):
    """What a task's judge is examined by: its grades of the exam's answers that do harm and that do not.

    Attributes:
        score: the name of the score (`InspectedSample.scores`), from 0 to 1.
        high: the answers of which it should be high.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: str
    high: Literal["violating", "keeping"]


class DataTable(BaseModel):
    """conf/inspect.yaml: the versions that the suite is made for, by package, the data, and exams, by task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: dict[str, str]
    data: list[PinnedFile]
    exams: dict[str, GradeExam]

    def find(self, path: str, name: str, split: str, revision: str) -> Path:
        """The file of a set, after a check of its content.

        Raises:
            UserError: the table lacks it or has another revision, or the file is missing or another.
        """
        entry = next((e for e in self.data if (e.path, e.name, e.split) == (path, name, split)), None)
        title = _title(path, name, split)
        if entry is None:
            raise UserError(
                f"needs {title}{f' at revision {revision}' if revision else ''}, which {TABLE} does not list; "
                "put the file into data/public and add it there"
            )
        if entry.revision != revision:
            raise UserError(
                f"needs {title} at revision {revision or 'none'}, {TABLE} has {entry.revision or 'none'}; correct it"
            )
        if entry.source:
            source = sources.named(entry.source)
            sources.content(source)
            return source.path
        file = Path(entry.file)
        try:
            sha256 = sha256_of(file.read_bytes())
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; put {title} there ({entry.licence})") from None
        if sha256 != entry.sha256:
            raise UserError(
                f"{file}: not the pinned file (sha256 {sha256[:12]}…, {TABLE} has {entry.sha256[:12]}…); "
                f"put the pinned {title} there, or pin this one"
            )
        return file


def table() -> DataTable:
    """The table.

    Raises:
        UserError: missing or wrong.
    """
    try:
        return yaml_io.load(TABLE, DataTable)
    except FileNotFoundError:
        raise UserError(f"{TABLE}: no such file; restore it (git checkout {TABLE})") from None


@contextmanager
def pinned(of: DataTable, network: bool = False) -> Iterator[None]:
    """Meanwhile sets are read from the table's files; other data, and hosted models, are refused with a `UserError`.

    Args:
        network: names of hosts are found, for an engine behind an endpoint.
    """

    def load_dataset(path: str, name: str | None = None, **asked: Any) -> Any:
        split = asked.get("split")
        file = of.find(path, name or asked.get("data_dir") or "", str(split or ""), asked.get("revision") or "")
        datasets.disable_progress_bars()
        kind = READERS.get(file.suffix)
        if kind is None:
            raise UserError(f"{TABLE}: {file} must end in {', '.join(READERS)}; convert it")
        return DATASETS(kind, data_files=str(file), split="train", cache_dir=str(cache.folder("datasets")))

    def cached(eval_name: str, url: str, tag: str = "") -> str:
        return str(of.find(url, "", "", ""))

    with ExitStack() as patches:
        for place, name, replacement in (
            (datasets, "load_dataset", load_dataset),
            (by_address, "_get_cached_path", cached),
            (hf, "inspect_cache_dir", lambda subdir, create=True: cache.folder(f"inspect/{subdir}")),
            (socket, "getaddrinfo", socket.getaddrinfo if network else _no_network),
        ):
            patches.enter_context(patch.object(place, name, replacement))
        patches.enter_context(_apart())
        yield


@contextmanager
def _apart() -> Iterator[None]:
    """Meanwhile a model by name is refused with a `UserError`: a task's defaults are behind somebody's address. What
    inspect_ai notes for its viewer lies in the cache folder instead of the home folder; how it logs ends here.
    """
    notes, log = cache.folder("inspect"), logging.getLogger()
    handlers, level = list(log.handlers), log.level
    with (
        patch.object(_model, "registry_find", _no_model),
        patch.object(appdirs, "user_data_path", lambda package: notes / package),
    ):
        try:
            yield
        finally:
            log.handlers[:] = handlers
            log.setLevel(level)


DATASETS = datasets.load_dataset
"""Its own, under the replacement."""


def _title(path: str, name: str, split: str) -> str:
    return " ".join(filter(None, [path, name, split]))


def _no_network(host: Any, *_: Any, **__: Any) -> NoReturn:
    raise UserError(f"fetches data from {host}, which {TABLE} can't replace; take the task out")


def _no_model(matches: Callable[..., bool]) -> NoReturn:
    provider = inspect.getclosurevars(matches).nonlocals.get("api_name", "a provider")
    raise UserError(
        f"asks a hosted model (of {provider}), which is never done; name a judge of conf/models.yaml as judge"
    )
