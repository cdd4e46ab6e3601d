"""Uploads to the Hugging Face Hub: the pairs, the trained adapter, or a model that `ccai.publish.export` merged.

The adapter's card is rewritten for the upload, with the evaluation if it is of these weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from httpx2 import HTTPError
from huggingface_hub import CommitOperationAdd, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ccai.base.errors import UserError
from ccai.pairs import card
from ccai.publish import export
from ccai.train import model_card

PAIRS = Path("data/pairs")
CARD = "README.md"


class Upload(NamedTuple):
    """An upload: the kind of repository, the card, and local files by their path in the repository."""

    kind: Literal["dataset", "model"]
    message: str
    card: str
    files: dict[str, Path]


def pairs(folder: Path = PAIRS) -> Upload:
    """The preference pairs, the SFT data and their card. Dropped pairs are not published.

    Raises:
        UserError: a file is missing, or the card is malformed.
    """
    names = [name for splits in card.FILES.values() for name in splits.values()]
    files = _existing(folder, [CARD, *names], "run the stage that writes it (dvc repro pairs)")
    return Upload("dataset", "Preference pairs", _card(files.pop(CARD)), files)


def adapter(folder: Path = export.ADAPTER) -> Upload:
    """The output of the train stage, with a current card.

    Raises:
        UserError: it is missing, or its training.yaml is.
    """
    text = export.card(folder)
    return Upload("model", "Trained adapter", text, _all_but_card(folder))


def merged(folder: Path) -> Upload:
    """A folder from `ccai.publish.export.merge`.

    Raises:
        UserError: no such folder, or not written by it.
    """
    names = [CARD, model_card.FACTS, "config.json"]
    files = _existing(folder, names, "write the folder with ccai export --merge")
    return Upload("model", "Merged model", _card(files[CARD]), _all_but_card(folder))


def push(name: str, upload: Upload, private: bool) -> str:
    """Upload to the Hub in one commit; returns the commit's URL.

    Raises:
        UserError: HF_TOKEN is not set, or the Hub's error.
    """
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise UserError("HF_TOKEN is not set; make a token with write access on the Hub and set it")
    sent = [CommitOperationAdd(CARD, upload.card.encode())]
    sent += [CommitOperationAdd(remote, local) for remote, local in upload.files.items()]
    hub = HfApi(token=token)
    try:
        hub.create_repo(name, repo_type=upload.kind, private=private, exist_ok=True)
        if private and not hub.repo_info(name, repo_type=upload.kind).private:
            raise UserError(f"{name}: exists already and is public; make it private on the Hub, or push with --public")
        done = hub.create_commit(name, sent, repo_type=upload.kind, commit_message=upload.message)
        return str(done.commit_url)
    except HFValidationError:
        raise UserError(f"{name}: not a name for a {upload.kind}; write OWNER/NAME") from None
    except HfHubHTTPError as error:
        raise UserError(f"{name}: the Hub refused: {error}; check the name and what HF_TOKEN may do") from None
    except (HTTPError, OSError) as error:
        raise UserError(f"{name}: the Hub can't be reached ({type(error).__name__}); try again") from None


def _existing(folder: Path, names: Sequence[str], remedy: str) -> dict[str, Path]:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; {remedy}")
    return {name: folder / name for name in names}


def _all_but_card(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.name != CARD}


def _card(path: Path) -> str:
    """The card's text, after a check of its metadata: the Hub refuses a card without."""
    try:
        text = path.read_text(encoding="utf-8")
        RepoCard(text)
    except ValueError as error:
        raise UserError(f"{path}: no card ({error}); run the stage that writes it again") from None
    return text
