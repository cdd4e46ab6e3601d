"""Text for the terminal: titled blocks, wrapped, without control characters."""

from __future__ import annotations

import re
import shutil
import textwrap

NOTICE = "Some of this text is harmful or distressing: prompts that ask for harm, and answers that may give it."

WIDEST = 110
"""Maximum columns, however wide the terminal: longer lines are hard to read."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters. A model may write some that move the cursor or recolour the terminal."""


def block(title: str, text: str, width: int) -> str:
    """A title with its text below, wrapped and indented, without control characters."""
    wrapped = [
        textwrap.fill(line, width, initial_indent="    ", subsequent_indent="    ")
        for line in CONTROL.sub("", text).expandtabs(4).split("\n")
    ]
    return "\n".join([f"  {title}", *wrapped])


def terminal_width() -> int:
    """Columns to write in."""
    return min(shutil.get_terminal_size().columns, WIDEST)
