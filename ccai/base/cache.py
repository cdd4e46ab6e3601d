"""The folder beside DVC for work in progress: journal, converted models, checkpoints, adapters.

DVC deletes a stage's outputs before it runs the stage, so nothing that must survive a kill may lie in them.
"""

from __future__ import annotations

import os
from pathlib import Path

from ccai.base.errors import UserError


def folder(name: str) -> Path:
    """`$CCAI_CACHE/name`, else `$DVC_ROOT/.ccai-cache/name`, else `./.ccai-cache/name`; created if missing.

    DVC_ROOT is the original root even under `dvc exp run --temp`, so experiments share completions and models.

    Raises:
        UserError: the folder cannot be created.
    """
    base = os.environ.get("CCAI_CACHE") or Path(os.environ.get("DVC_ROOT", ".")) / ".ccai-cache"
    path = Path(base) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; set CCAI_CACHE to a folder that can be written to") from None
    return path
