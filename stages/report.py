"""Draw the evaluation and write the report.

python -m stages.report
"""

from __future__ import annotations

from pathlib import Path

from ccai.base.errors import run
from ccai.base.metrics_json import read
from ccai.report import figures, page

METRICS = Path("metrics/eval.json")
PLOTS = Path("metrics/plots")


def main() -> None:
    """Draw and write."""
    measured = read(METRICS)
    figures.differences(measured, PLOTS / "differences.png")
    figures.refusals(measured, PLOTS / "refusals.png")
    page.write()


if __name__ == "__main__":
    run(main, __doc__)
