"""What a piece of work depends on in this project's own code, as one hash."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("ccai", "stages")
"""Packages whose code counts. That of libraries is told by their versions."""


def fingerprint(module: str) -> str:
    """sha256 over the code that importing `module` brings with it, without comments, docstrings and layout.

    Files that code reads are no part of it; whoever has such gives them to the key by themselves.

    Args:
        module: a name such as `ccai.training`.
    """
    whole = hashlib.sha256()
    for name, tree in sorted(closure(module).items()):
        whole.update(f"{name}\n{_plain(tree)}\n".encode())
    return whole.hexdigest()


def closure(module: str) -> dict[str, ast.Module]:
    """Code by module: `module`, and what it imports of `OURS` through any number of imports, also within functions."""
    found: dict[str, ast.Module] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        found[name] = ast.parse(path.read_bytes())
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        todo += [name.rpartition(".")[0], *_imported(found[name], package)]
    return found


def _file(module: str) -> Path | None:
    """None if it is not one of ours, or no module but a name in one."""
    if module.partition(".")[0] not in OURS:
        return None
    at = ROOT.joinpath(*module.split("."))
    return next((path for path in (at / "__init__.py", at.with_suffix(".py")) if path.is_file()), None)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names that may be modules; `from ccai import models` is `ccai.models`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _plain(tree: ast.Module) -> str:
    """Code as its syntax tree. A string that stands by itself does nothing, so it is a docstring, and is left out."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            lines = getattr(node, field, None)
            if isinstance(lines, list):
                setattr(node, field, [line for line in lines if not _documents(line)])
    return ast.dump(tree)


def _documents(line: ast.AST) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
