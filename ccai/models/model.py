"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccai.models.files import fingerprint


@dataclass(frozen=True)
class Model:
    """A model on this machine.

    Attributes:
        name: logical (hub id, catalogue name, local/FOLDER); goes into records, as `folder` never does.
        pin: the hub's commit, or the sha256 of the package's file; None for a folder of the user's.
        template: variables that its chat template is given.
    """

    name: str
    pin: str | None
    folder: Path
    licence: str
    template: dict[str, Any] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """The pin, or the sha256 of the folder's files (seconds for large ones, so only when it is asked for)."""
        return self.pin or f"sha256:{fingerprint(self.folder)}"
