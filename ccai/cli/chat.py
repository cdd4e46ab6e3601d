"""Ask the base model and the trained model the same question, and read both answers.

    ccai chat "My neighbour plays loud music every night. What can I do?"
    ccai chat --system ""        # reads questions until Ctrl-D; each one stands alone

Model, sampling and system message are those of params.yaml; both arms draw with the same seed, as in the eval stage.
The engine is always transformers, because its adapter can be switched off. Where all weights were trained there is no
adapter, and both models are in memory.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ccai.base import params
from ccai.base.hashing import seed_for
from ccai.base.params import Params
from ccai.base.terminal import NOTICE, block, terminal_width
from ccai.constitution.dialogue import to_answer
from ccai.engines.base import Request
from ccai.engines.transformers import Transformers
from ccai.models import find
from ccai.models.model import Model
from ccai.models.placement import place
from ccai.train import model_card

ADAPTER = Path("models/adapter")


def load(settings: Params, trained: Path | None) -> dict[str, Transformers]:
    """The engine of each arm: of `base` and, if something was trained, of `tuned`.

    Base and adapter are one engine, so that the weights are in memory once; two whole models are two.

    Raises:
        UserError: a model can't be had or does not fit, or the adapter was trained on another one.
    """
    model = find.find(settings.models.train)
    if trained is None:
        return {"base": _engine(settings, model)}
    if model_card.form(trained) == "adapter":
        return dict.fromkeys(("base", "tuned"), _engine(settings, model, trained))
    whole = replace(model, name=f"{model.name}+tuned", pin=None, folder=trained)
    return {"base": _engine(settings, model), "tuned": _engine(settings, whole)}


def _engine(settings: Params, model: Model, adapter: Path | None = None) -> Transformers:
    placement = place(model, settings.hardware)
    print(f"model: {placement.reason}", flush=True)
    engine = Transformers(model, placement, adapter)
    _ = engine.model  # loaded now: what does not fit is told before the first question
    return engine


def ask(engines: Mapping[str, Transformers], question: str, system: str, settings: Params) -> Iterator[tuple[str, str]]:
    """(arm, answer) of each arm. An adapter is switched off for the base."""
    request = Request(
        messages=to_answer(system, question).messages,
        shared=0,
        seed=seed_for(settings.seed, "chat", question),
        max_new_tokens=settings.responses.max_new_tokens,
        sampling=settings.generation,
    )
    for arm, engine in engines.items():
        adapted = engine.identity["adapter"] is not None
        with engine.model.disable_adapter() if adapted and arm == "base" else nullcontext():
            [(_, done)] = chain.from_iterable(engine.complete([request]))
        yield arm, done.text or "(nothing)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("question", nargs="?", help="without it, questions are read line by line")
    parser.add_argument("--system", help="system message; without it, responses.system of params.yaml")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    settings = params.load()
    width = terminal_width()
    trained = ADAPTER if any(ADAPTER.glob("*.safetensors")) else None
    if trained is None:
        print(f"nothing trained in {ADAPTER}: only the base answers; train (dvc repro) or fetch it (dvc pull)")
    engines = load(settings, trained)
    print(textwrap.fill(NOTICE, width))
    for question in [options.question] if options.question else _typed():
        system = settings.responses.system if options.system is None else options.system
        for arm, answer in ask(engines, question, system, settings):
            print(block(arm, answer, width), flush=True)


def _typed() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("\n> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
