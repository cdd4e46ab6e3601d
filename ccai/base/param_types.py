"""Value types of params.yaml: counts, shares, names and paths inside the project, and the base of its sections."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

SHOWN = reprlib.Repr()
"""Shortens wrong values in messages."""
SHOWN.maxstring = SHOWN.maxother = 80

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Several = Annotated[int, Field(ge=1, le=65_536)]
Tokens = Annotated[int, Field(ge=8, le=32_768)]
Column = Literal["text", "id", "hazard", "persona", "principle"]
"""A column of a prompt set that is read."""


def _name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", value):
        raise ValueError(f"{SHOWN.repr(value)} is not a name; use letters, digits, _ . + and - only")
    return value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value:
        raise ValueError(
            f"{SHOWN.repr(value)} is outside the project; put the file, or a link to it, into its folder data"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
"""Part of a file name; it cannot lead into another folder."""

Inside = Annotated[str, AfterValidator(_inside)]
"""A name, or a file inside the project, where DVC sees it change."""

PathInside = Annotated[Path, AfterValidator(lambda path: Path(_inside(str(path))))]


class Section(BaseModel):
    """A section of params.yaml. Numbers written as text (`5e-4` is text in YAML 1.1) become numbers; booleans don't."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        if isinstance(value, str) and "\0" in value:  # valid in neither file names nor prompts
            raise ValueError("holds a NUL character")
        return value
