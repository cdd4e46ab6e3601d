"""TODO."""

from __future__ import annotations

from ccai.base.errors import run
from ccai.report.milestone import conditions


def main() -> None:
    """Print them."""
    found = conditions()
    for condition in found:
        print(f"{condition.verdict:<11} {condition.name}: {condition.figures}")
    if any(condition.verdict != "pass" for condition in found):
        raise SystemExit(1)


if __name__ == "__main__":
    run(main, __doc__)
