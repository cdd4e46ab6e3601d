"""YAML files that people edit: read and checked; what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ccai.errors import UserError, first

Kind = TypeVar("Kind", bound=BaseModel)


def load(path: Path, kind: type[Kind]) -> Kind:
    """A file as a model.

    Raises:
        UserError: as `read`, or the first key that is wrong.
        FileNotFoundError: the caller knows what to do about it.
    """
    try:
        return kind.model_validate(read(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first(error)}; correct it") from None


def read(path: Path) -> Any:
    """What a file says.

    Raises:
        UserError: it can't be read, or as `parse`.
        FileNotFoundError: the caller knows what to do about it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it or save it as UTF-8") from None
    return parse(text, path)


def parse(text: str, where: Path) -> Any:
    """What a text says.

    Raises:
        UserError: not YAML; names the line.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise malformed(where, error) from None
    except (ValueError, RecursionError) as error:  # an impossible date, brackets too deep
        raise UserError(f"{where}: not valid YAML ({error}); correct it") from None


def malformed(where: Path, error: yaml.YAMLError) -> UserError:
    """The line for a text that is not YAML. It quotes nothing: the text may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return UserError(f"{where}{line}: not valid YAML; correct it")
