"""YAML that people edit: what is wrong is one line that names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccai.base import yaml_io
from ccai.base.errors import UserError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BOMB, 5),
        ("a: &a [*a]", 1),
        ("a: 1\nb: &b\n  c: *b", 2),
        ("x: 1\nx: 2", 2),
        ("a: {}\nb: {y: 1, y: 2}", 2),
        ("1: a\n01: b", 2),
        ("a: 1\nb: 2024-13-45", 2),
        ("a: 1" + "0" * 5000, 1),
        ("a: 0x" + "f" * 9000, 1),
        ("a: !!timestamp x", 1),
        ("a: !!bool x", 1),
        ("a: !!int ''", 1),
        ("a: !!python/object:os.system x", 1),
        ("\ta: 1", 1),
    ],
)
def test_what_is_wrong_is_named_by_its_line(text: str, line: int) -> None:
    with pytest.raises(UserError, match=rf"^p\.yaml:{line}: "):
        yaml_io.parse(text, Path("p.yaml"))


@pytest.mark.parametrize("text", ["[" * 20_000, "- " * 2000 + "x", "\0", "a" * 2**21])
def test_what_has_no_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^p\.yaml: "):
        yaml_io.parse(text, Path("p.yaml"))


def test_small_anchors_are_followed() -> None:
    text = "base: &b {k: 1, l: 2}\nc: {<<: *b, k: 3}\nd: [*b, *b]"
    base = {"k": 1, "l": 2}
    assert yaml_io.parse(text, Path("p.yaml")) == {"base": base, "c": {"k": 3, "l": 2}, "d": [base, base]}
