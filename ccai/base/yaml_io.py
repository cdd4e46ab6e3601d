"""YAML files that people edit: read and checked, with errors in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ccai.base.errors import UserError, first

Kind = TypeVar("Kind", bound=BaseModel)

LARGEST = 2**20
"""Size limit of a file in bytes."""

LONGEST_INT = 1024
"""Size limit of an integer in bits: a float holds no more."""

MERGE = "tag:yaml.org,2002:merge"

MOST_NODES = 50_000
"""Limit of keys and values, counting aliases each time they are used."""


def load(path: Path, kind: type[Kind]) -> Kind:
    """A file as a model.

    Raises:
        UserError: as `read`, or names the first wrong key.
        FileNotFoundError: callers handle it.
    """
    try:
        return kind.model_validate(read(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first(error)}; correct it") from None


def read(path: Path) -> Any:
    """The content of a file.

    Raises:
        UserError: it cannot be read, is larger than `LARGEST`, or as `parse`.
        FileNotFoundError: callers handle it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name that no file can have
        raise UserError(f"{path}: cannot be read ({error}); restore it or save it as UTF-8") from None
    return parse(text, path)


def parse(text: str, where: Path) -> Any:
    """The content of a text. Anchors are resolved up to a limit.

    Raises:
        UserError: too large, not YAML, a key twice in one mapping, anchors that multiply or contain themselves; names
            the line.
    """
    if len(text) > LARGEST:
        raise UserError(f"{where}: more than {LARGEST} bytes; restore it")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise malformed(where, error) from None
    except (ValueError, ArithmeticError, RecursionError) as error:  # an impossible date, a number, brackets too deep
        raise UserError(f"{where}: not valid YAML ({error}); correct it") from None


class _Loader(yaml.SafeLoader):
    """The safe loader with stricter rules.

    By itself it keeps only the last of equal keys, resolves any anchor, and passes on Python's own message for a value
    that does not match its tag.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError):
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"no {kind}", problem_mark=node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > LONGEST_INT:
            raise yaml.MarkedYAMLError(problem="a number too long", problem_mark=node.start_mark)
        return value

    def _count(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """The number of nodes in a node, counting those behind aliases each time; `sizes` holds earlier counts.

        Raises:
            yaml.MarkedYAMLError: more than `MOST_NODES`, a node inside itself, or a repeated key.
        """
        size = sizes.get(id(node))
        if size is None:
            sizes[id(node)] = MOST_NODES  # until it is counted: a node inside itself is endless
            below = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                below = [part for pair in node.value for part in pair]
                self._once([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            size = sizes[id(node)] = 1 + sum(self._count(part, sizes) for part in below)
        if size >= MOST_NODES:
            raise yaml.MarkedYAMLError(problem="anchors that multiply", problem_mark=node.start_mark)
        return size

    def _once(self, nodes: Sequence[yaml.ScalarNode]) -> None:
        keys = set()
        for node in nodes:
            key = MERGE if node.tag == MERGE else self.construct_object(node)
            if key in keys:
                raise yaml.MarkedYAMLError(problem="a key twice", problem_mark=node.start_mark)
            keys.add(key)


def malformed(where: Path, error: yaml.YAMLError) -> UserError:
    """The error for a text that is not YAML. It quotes nothing: the text may contain a secret."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    # The parser's own errors are subclasses of this class, and quote the text.
    detail = f" ({error.problem})" if type(error) is yaml.MarkedYAMLError else ""
    return UserError(f"{where}{line}: not valid YAML{detail}; correct it")
