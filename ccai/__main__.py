"""`python -m ccai`, and the command `ccai`."""

from __future__ import annotations

from ccai.base.errors import run
from ccai.cli import main


def command() -> None:
    """What the installed command calls."""
    run(main)


if __name__ == "__main__":
    command()
