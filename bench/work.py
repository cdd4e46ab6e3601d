"""The work list: the same completions for every contender, in the order in which the stages ask for them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from bench import machine
from ccai.base import cache, params
from ccai.base.files import write_text
from ccai.base.params import Generation
from ccai.engines.base import Request

STAGES = ("responses", "critiques", "revisions")
GREEDY = Generation(temperature=0, min_p=0, repetition_penalty=1)


class Item(NamedTuple):
    """A completion wanted.

    Items of one `group` are of one stage and begin with the same `shared_tokens` tokens, which are among the
    `prompt_tokens`; 0 where the group has no second item.
    """

    stage: str
    group: int
    prompt_tokens: int
    shared_tokens: int
    request: Request


@dataclass(frozen=True)
class Work:
    """`items` for the contenders; `answers` are (prompt, answer) for the judge. Written by bench.prepare."""

    model: str
    seed: int
    items: list[Item]
    answers: list[tuple[str, str]]


WORK = TypeAdapter(Work)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the work is made of; all else comes from params.yaml."""
    settings = params.load()
    parser.add_argument("--prompts", type=int, default=24, help="how many (default: %(default)s)")
    parser.add_argument("--source", default="contemplative", help="as in prompts.sources (default: %(default)s)")
    parser.add_argument("--principles", type=int, default=4, help="the first N of the constitution (default: 4)")
    parser.add_argument("--examples", type=int, default=settings.critiques.examples, help="shown to the critic")
    parser.add_argument("--format", default="conversation", help="as in critiques.format (default: %(default)s)")
    parser.add_argument("--model", default=settings.models.answer, help="as in params.yaml (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="temperature 0 and no penalty, for every contender")


def prepare(options: argparse.Namespace) -> tuple[Path, Work]:
    """The work list and its file. Texts that later stages need are written once, then found in the journal."""
    path = cache.folder("bench") / "work.json"
    names = ("prompts", "source", "principles", "examples", "format", "model")
    arguments = [part for name in names for part in (f"--{name}", str(vars(options)[name]))]
    code = machine.alone("bench.prepare", path, *arguments, *(["--greedy"] if options.greedy else []))
    if code:
        raise SystemExit(code)
    return path, read(path)


def read(path: Path) -> Work:
    """A work list from its file."""
    return WORK.validate_json(path.read_bytes())


def write(path: Path, work: Work) -> None:
    """A work list into its file."""
    write_text(path, WORK.dump_json(work).decode())


def count(items: Sequence[Item]) -> dict[str, int]:
    """Completions by stage."""
    return {stage: sum(item.stage == stage for item in items) for stage in STAGES}
