"""TODO."""

from __future__ import annotations

from ccai.base.errors import run
from ccai.report import run_files
from ccai.report.summary import METRICS, text


def main() -> None:
    """Print it."""
    if told := run_files.origin():
        print(f"{METRICS / 'eval.json'}: {told}\n")
    print(text())


if __name__ == "__main__":
    run(main, __doc__)
