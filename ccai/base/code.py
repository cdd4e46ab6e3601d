"""Fingerprints of this project's own code: a stage is stale when code that it uses has changed, and only then.

DVC runs `python -m ccai.base.code` as its first stage. code.json has one fingerprint per stage, which each stage names
among its params.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ccai.base.errors import run
from ccai.base.files import write_json
from ccai.base.hashing import sha256_of

ROOT = Path(__file__).parents[2]
OURS = ("ccai", "stages")
"""Packages whose code counts. That of libraries is told by their versions."""

CODE = Path("code.json")

STAGES = ("prompts", "responses", "critiques", "revisions", "pairs", "train", "eval", "report")


def fingerprint(module: str) -> str:
    """sha256 over the code that importing `module` brings with it, without comments, docstrings and layout.

    A data file or folder beside a module (as ccai/rules/refusal.json) counts if the module's code names it.

    Args:
        module: a name such as `stages.train`.
    """
    whole = hashlib.sha256()
    for name, tree in sorted(closure(module).items()):
        whole.update(f"{name}\n{_plain(tree)}\n".encode())
        for path in sorted(_beside(name, tree)):
            whole.update(f"{path.relative_to(ROOT)}\n{sha256_of(path)}\n".encode())
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
    """Names that may be modules; `from ccai.models import find` is `ccai.models.find`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _beside(module: str, tree: ast.Module) -> Iterator[Path]:
    """Data files whose name, or whose folder's name, stands in the code as a text of its own."""
    folder = ROOT.joinpath(*module.split(".")).parent
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for path in (folder / text for text in texts if re.fullmatch(r"\w[\w.-]*", text)):
        files = path.rglob("*") if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and file.suffix not in (".py", ".pyc"))


def _plain(tree: ast.Module) -> str:
    """Code as its syntax tree. A string that stands by itself does nothing, so it is a docstring, and is left out."""
    return repr(_written(tree))


def _written(node: object) -> object:
    """A tree without what is empty: Python 3.12 has fields that 3.11 has not, and its trees must hash the same."""
    if isinstance(node, list):
        return [_written(part) for part in node if not _documents(part)]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
    return type(node).__name__, {name: _written(value) for name, value in fields.items()}


def _documents(line: object) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def main() -> None:
    """Write code.json."""
    write_json(CODE, {stage: fingerprint(f"stages.{stage}") for stage in STAGES})


if __name__ == "__main__":
    run(main, __doc__)
