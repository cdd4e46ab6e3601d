"""Fingerprints of this project's own code: a stage is stale when code that it uses has changed, and only then.

DVC runs `python -m ccai.base.code` as its first stage. code.json has one fingerprint per stage, which each stage names
among its params.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ccai.base.errors import run
from ccai.base.files import write_json
from ccai.base.hashing import digest, sha256_of

ROOT = Path(__file__).parents[2]
OURS = ("ccai", "stages")
"""Packages whose code counts. That of libraries is told by their versions."""

CODE = Path("code.json")

STAGES = ("prompts", "responses", "critiques", "revisions", "pairs", "train", "eval", "report")


class _Module(NamedTuple):
    """What counts of a module's code.

    Attributes:
        plain: sha256 of its code without comments, docstrings and layout.
        imports: level, module and names of each import, also within functions.
        texts: strings that could name a file beside it.
    """

    plain: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]
    texts: tuple[str, ...]


def fingerprint(module: str) -> str:
    """sha256 over the code that importing `module` brings with it, without comments, docstrings and layout.

    A data file or folder beside a module (as ccai/rules/refusal.json) counts if the module's code names it.

    Args:
        module: a name such as `stages.train`.
    """
    parts = []
    for name, path in sorted(closure(module).items()):
        read = _module(path.read_bytes())
        parts.append((name, read.plain))
        parts += [(str(file.relative_to(ROOT)), sha256_of(file)) for file in sorted(_beside(path.parent, read.texts))]
    return digest(parts)


def closure(module: str) -> dict[str, Path]:
    """Files by module: `module`, and what it imports of `OURS` through any number of imports."""
    paths: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _file(name)
        if path is None or name in paths:
            continue
        paths[name] = path
        parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        todo.append(name.rpartition(".")[0])
        for level, imported, names in _module(path.read_bytes()).imports:
            base = ".".join([*(parts[: len(parts) - level + 1] if level else []), *filter(None, [imported])])
            todo += [base, *(f"{base}.{each}" for each in names)]  # a name may be a module's
    return paths


def _file(module: str) -> Path | None:
    """None if it is not one of ours, or no module but a name in one."""
    if module.partition(".")[0] not in OURS:
        return None
    at = ROOT.joinpath(*module.split("."))
    return next((path for path in (at / "__init__.py", at.with_suffix(".py")) if path.is_file()), None)


def _beside(folder: Path, texts: Iterable[str]) -> Iterator[Path]:
    for path in (folder / text for text in texts):
        files = path.rglob("*") if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and file.suffix not in (".py", ".pyc"))


@cache  # all stages share most modules
def _module(source: bytes) -> _Module:
    tree = ast.parse(source)
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w[\w.-]*", node.value):
            texts.add(node.value)
    plain = sha256_of(repr(_plain(tree)).encode("utf-8", "surrogatepass"))
    return _Module(plain, tuple(imports), tuple(sorted(texts)))


def _plain(node: object) -> object:
    """A syntax tree without docstrings: a string that stands by itself does nothing.

    What is empty is left out, too: Python 3.12 has fields that 3.11 has not, and its trees must hash the same.
    """
    if isinstance(node, list):
        return [_plain(part) for part in node if not _documents(part)]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
    return type(node).__name__, {name: _plain(value) for name, value in fields.items()}


def _documents(line: object) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def main() -> None:
    """Write code.json."""
    write_json(CODE, {stage: fingerprint(f"stages.{stage}") for stage in STAGES})


if __name__ == "__main__":
    run(main, __doc__)
