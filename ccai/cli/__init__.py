"""The command `ccai`, one module to a subcommand: `arguments` adds to its parser what it takes, `main` runs it."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import ccai
from ccai.base.errors import UserError

COMMANDS = {
    "Set up": {
        "doctor": "check this machine: packages, device, model, git, DVC, remote",
        "check": "check params.yaml and the files it names",
        "use": "switch params.yaml to a scale, a recipe or a model",
        "sources": "list, fetch or pin sources of prompts",
        "plan": "before you pay: what differences the evaluation can find",
    },
    "Run": {
        "resume": "fetch what is stored, run what is stale, store the result",
        "journal": "look after the completions that are kept",
    },
    "Read a run": {
        "summary": "what the last run did, on one screen",
        "milestone": "the last run against the conditions of a full run",
        "show": "samples of what the stages wrote",
        "trace": "where a pair, an answer or a figure comes from",
        "report": "the report, of one run or of two side by side",
        "curves": "the training curves",
        "chat": "ask the base model and the trained model",
    },
    "Measure": {
        "score": "score answers in a file",
        "compare": "is B better than A? two runs, or two files of scores",
        "runs": "all commits and experiments with their verdicts",
        "preferences": "run the gates over a file of preference pairs",
        "review": "let people review pairs blind",
    },
    "Publish": {
        "export": "the trained model as one folder or GGUF file",
        "push": "pairs, adapter or model to the Hugging Face Hub",
    },
}
"""What each subcommand does, by what people want to do."""

EXIT_CODES = "exit codes: 0 done; 1 done, and what was checked does not hold; 2 nothing done: correct the input"


def main() -> None:
    """Run the subcommand that the command line names.

    Raises:
        UserError: another copy of this project lies in the current folder.
    """
    _same_project()
    subcommand = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    parser = argparse.ArgumentParser(
        prog="ccai",
        usage="ccai COMMAND …",
        description=_overview(),
        epilog=f"ccai COMMAND --help says more about one.\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ccai {ccai.__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog="ccai", help=argparse.SUPPRESS
    )
    for name in (name for group in COMMANDS.values() for name in group):
        command = commands.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == subcommand:  # the others import torch, pandas or DVC for nothing
            module = import_module(f"ccai.cli.{name}")
            command.description, command.epilog = module.__doc__, EXIT_CODES
            module.arguments(command)
            command.set_defaults(run=module.main)
    options, unknown = parser.parse_known_args()
    if unknown:  # told by the subcommand, whose usage helps
        commands.choices[subcommand].error(f"unrecognized arguments: {' '.join(unknown)}")
    options.run(options)


def _overview() -> str:
    groups = (
        "\n".join([group, *(f"  {name:<12} {about}" for name, about in names.items())])
        for group, names in COMMANDS.items()
    )
    return "\n\n".join(["Contemplative constitutional AI, stage by stage.", *groups])


def _same_project() -> None:
    """A `ccai` that is installed from one checkout must not work on the files of another."""
    local, running = Path("ccai/__init__.py").resolve(), Path(ccai.__file__).resolve()
    if local.is_file() and local != running:
        raise UserError(f"{local.parent} is not the ccai that is running ({running.parent}); run python -m ccai here")
