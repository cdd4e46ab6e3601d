"""Draw the evaluation and write the report.

python -m stages.report
"""

from __future__ import annotations

from pathlib import Path

from ccai.base.errors import run
from ccai.report import figures, page, run_files

PLOTS = Path("metrics/plots")


def main() -> None:
    """Draw and write."""
    finished = run_files.here()
    figures.differences(finished.suites, PLOTS / "differences.png")
    figures.refusals(finished.suites, PLOTS / "refusals.png")
    page.write(finished)


if __name__ == "__main__":
    run(main, __doc__)
