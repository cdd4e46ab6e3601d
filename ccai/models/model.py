"""A model on this machine: its name, revision, folder, licence and template variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccai.models.files import fingerprint


@dataclass(frozen=True)
class Model:
    """A model on this machine.

    Attributes:
        name: logical name (hub id, catalogue name, local/FOLDER); records contain it, and never `folder`.
        pin: the hub's commit, or the sha256 of the package's file; None for a user's folder.
        template: variables for its chat template.
    """

    name: str
    pin: str | None
    folder: Path
    licence: str
    template: dict[str, Any] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """The pin, or the sha256 of the folder's files (seconds for large ones, so computed on demand)."""
        return self.pin or f"sha256:{fingerprint(self.folder)}"
