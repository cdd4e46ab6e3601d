"""Models from a Hugging Face hub: fetched at a commit, safetensors only, with errors in one line."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ccai.base.errors import UserError
from ccai.models.files import FILES


def from_hub(repository: str, revision: str | None) -> Path:
    """The folder of a model's files at a commit, fetched if needed. Raises UserError."""
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise UserError(f"model {repository}: not pinned to a commit; write {repository}@{_newest(repository)}")
    if not isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str):
        print(f"models: fetching {repository} from the hub", flush=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs each attempt; errors are reported below
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except GatedRepoError:
        raise UserError(
            f"model {repository}: gated (401/403); accept its licence on its hub page and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"model {repository}: the hub has no revision {revision}; correct the commit") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model {repository}: not on the hub, or private (401/404); correct the id or set HF_TOKEN"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _answered(repository, error.__cause__) from None
        hint = "unset HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "connect, or set HF_ENDPOINT to a mirror"
        raise UserError(
            f"model {repository}: not in the local cache and the hub can't be reached; {hint}, or give a folder"
        ) from None
    except HfHubHTTPError as error:
        raise _answered(repository, error) from None
    except HFValidationError:
        raise UserError(f"model {repository!r}: neither a folder nor a hub id; correct params.yaml") from None
    except Exception as error:  # a broken connection or disk, or a reply that is not a hub's
        message = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"model {repository}: {message}; check network and disk") from None
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"model {repository}: no safetensors at {revision}; only safetensors are loaded")
    return folder


def _answered(repository: str, error: HfHubHTTPError) -> UserError:
    status = error.response.status_code
    remedy = "set HF_TOKEN to a token that may read it" if status in (401, 403) else "try again later"
    return UserError(f"model {repository}: the hub answered {status}; {remedy}")


def _newest(repository: str) -> str:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return HfApi().model_info(repository).sha or "COMMIT"
    except Exception:  # as above; it is only a hint
        return "COMMIT (see 'History' on its hub page)"
