"""A model behind real HTTP that chooses among lettered options as a function of the question's text says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from math import log
from typing import Any

from conftest import ROOT

from ccai.base import params
from ccai.base.params import Params
from ccai.engines.endpoint import Endpoint
from ccai.evaluate.arms import Arm
from helpers.endpoint import Handler, Server, serving

Chooser = Callable[[str], Sequence[float]]
"""Probabilities of A, B and, where there are three options, C, by the text of a question."""

REVISIONS = count()


class Choosing(Server):
    def __init__(self, chooser: Chooser) -> None:
        super().__init__()
        self.chooser, self.RequestHandlerClass = chooser, Asked

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


class Asked(Handler):
    server: Choosing

    def completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        given = zip("ABC", self.server.chooser(body["messages"][-1]["content"]), strict=False)
        top = [{"token": letter, "logprob": log(value)} for letter, value in given if value > 0]
        completion = super().completion(body, fault)
        completion["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": 0, "top_logprobs": top}]}
        return completion


@contextmanager
def choosing(chooser: Chooser, settings: Params | None = None, name: str = "base") -> Iterator[tuple[Choosing, Arm]]:
    """A model and the arm that asks it, under a revision of its own: none finds another's scores in the journal."""
    with serving(Choosing(chooser)) as server:
        entry = {"endpoints": [server.url], "model": "org/chooser", "revision": f"r{next(REVISIONS)}", "timeout": 30}
        yield server, Arm(name, Endpoint("chooser", entry), settings or shipped())


def shipped(**options: Any) -> Params:
    """params.yaml, with sections of `eval` changed."""
    settings = params.load(ROOT / "params.yaml")
    values = settings.model_dump(mode="json")
    for section, changes in options.items():
        values["eval"][section] |= changes
    return params.parse(values, "params.yaml")


def options(text: str) -> dict[str, str]:
    """The options of a question, by letter."""
    return dict(re.findall(r"^([ABC])\) (.*)$", text, re.MULTILINE))


def preferring(*wanted: str, share: float = 0.8) -> Chooser:
    """Gives `share` to the option that is, or begins with, one of the texts; what is left goes to the others evenly."""

    def chooser(text: str) -> list[float]:
        found = options(text)
        likes = [value.startswith(wanted) for value in found.values()]
        assert sum(likes) <= 1, text
        rest = (1 - share) / (len(found) - 1)
        return [share if like else rest for like in likes] if any(likes) else [1 / len(found)] * len(found)

    return chooser
