"""Check params.yaml, the constitution, the critique format, the prompt sources and the tasks of inspect_evals that it
names, and that the bound of eval.primary can be met.

    ccai check

It loads no model. `dvc repro` deletes a stage's outputs before it runs the stage, so `make repro` runs this first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from ccai.base import params
from ccai.base.errors import BAD_INPUT
from ccai.base.params import Params
from ccai.cli.doctor import Finding, chosen_sources, parameters, registered, report, texts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""


def main(options: argparse.Namespace) -> None:
    """Run it."""
    settings = params.load()
    failed = [
        report("params", parameters),
        report("constitution", partial(texts, settings)),
        report("sources", partial(chosen_sources, settings)),
        report("registered", partial(registered, settings)),
    ]
    if "inspect" in settings.eval.suites:
        failed.append(report("inspect", partial(inspect_tasks, settings)))
    if any(failed):
        raise SystemExit(BAD_INPUT)


def inspect_tasks(settings: Params) -> Iterator[Finding]:
    """The tasks of inspect_evals, with their data."""
    from ccai.evaluate.suites.inspect import InspectSuite

    InspectSuite(settings)
    yield Finding("ok", ", ".join(task.label for task in settings.eval.inspect.tasks))
