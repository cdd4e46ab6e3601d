"""The curves and figures of runs as a page that opens without a network.

    python -m ccai.curves show
    python -m ccai.curves diff main another-branch --open

What follows show or diff goes to `dvc plots`. The page of that command alone has its drawing library loaded from the
network; in this one the library is part of the page (0.9 MB), as vl-convert-python ships it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import vl_convert

from ccai.errors import run
from ccai.records import write_text

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <title>Curves and figures</title>
    <script>{library}</script>
</head>
<body>
    {plot_divs}
</body>
</html>"""


def template() -> str:
    """A page for `dvc plots --html-template`, which puts the plots in the place of its name for them."""
    return PAGE.replace("{library}", vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ccai.curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("show", "diff"), help="one revision's, or several laid over each other")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        write_text(page, template())
        command = [sys.executable, "-m", "dvc", "plots", options.command, "--html-template", str(page), *rest]
        raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    run(main)
