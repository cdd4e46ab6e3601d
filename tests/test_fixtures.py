"""No test writes by hand what a stage writes: a copy of its shape goes stale unseen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from conftest import ROOT
from helpers.project import STAGES

METRICS = re.compile(rf"\b({'|'.join(STAGES)})\.json|stage[^.]*\.json|metrics", re.IGNORECASE)
"""In the text of an argument: the file of a stage's metrics."""


def by_hand(value: ast.expr) -> bool:
    """Whether a JSON object is built from nothing, not on top of one that was read or measured."""
    if isinstance(value, ast.BinOp):
        return by_hand(value.left)
    return isinstance(value, ast.Dict) and bool(value.keys) and value.keys[0] is not None


def found(text: str) -> Iterator[int]:
    """Lines that write a stage's metrics by hand."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and len(node.args) == 2 and ast.unparse(node.func).endswith("write_json"):
            path, value = node.args
            if METRICS.search(ast.unparse(path)) and by_hand(value):
                yield node.lineno


def test_metrics_are_those_that_a_stage_wrote() -> None:
    assert list(found('records.write_json(Path("metrics/eval.json"), {"seed": 7})')) == [1]
    assert list(found('write_json(folder / f"{stage}.json", {"kept": 3} | more)')) == [1]
    assert not list(found('write_json(METRICS, read_json(METRICS) | {"seed": 8})'))
    for path in (ROOT / "tests").rglob("*.py"):
        assert list(found(path.read_text(encoding="utf-8"))) == [], path.name
