"""The way to the Hugging Face Hub: the pairs, the trained adapter, or a model that ccai.publish.export has merged.

    ccai push pairs OWNER/NAME --dry-run       # what would be sent
    ccai push adapter OWNER/NAME               # a private repository; HF_TOKEN must be set
    ccai push FOLDER OWNER/NAME --public       # a folder that `ccai export --merge` has written

The adapter's card is made anew for this, with the evaluation if it is of these weights.
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
    """What is sent: a kind of repository, and files here by the path they have there, the card as it is to be."""

    kind: Literal["dataset", "model"]
    message: str
    card: str
    files: dict[str, Path]


def pairs(folder: Path = PAIRS) -> Upload:
    """The preference pairs, the SFT data and their card. Dropped pairs stay here.

    Raises:
        UserError: a file is missing, or the card is no card.
    """
    names = [name for splits in card.FILES.values() for name in splits.values()]
    found = _found(folder, [CARD, *names], "run the stage that writes it (dvc repro pairs)")
    return Upload("dataset", "Preference pairs", _card(found.pop(CARD)), found)


def adapter(folder: Path = export.ADAPTER) -> Upload:
    """What the train stage left, with a card of today.

    Raises:
        UserError: nothing is there, or it does not say how it was trained.
    """
    text = export.card(folder)
    return Upload("model", "Trained adapter", text, _all_but_card(folder))


def merged(folder: Path) -> Upload:
    """A folder that `ccai.publish.export.merge` has written.

    Raises:
        UserError: no such folder, or not written by it.
    """
    names = [CARD, model_card.FACTS, "config.json"]
    found = _found(folder, names, "write the folder with ccai export --merge")
    return Upload("model", "Merged model", _card(found[CARD]), _all_but_card(folder))


def push(name: str, upload: Upload, private: bool) -> str:
    """Send it to the Hub in one commit; returns where that is.

    Raises:
        UserError: no HF_TOKEN, or what the Hub says.
    """
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise UserError("HF_TOKEN is not set; make a token with write access on the Hub and set it")
    sent = [CommitOperationAdd(CARD, upload.card.encode())]
    sent += [CommitOperationAdd(there, here) for there, here in upload.files.items()]
    hub = HfApi(token=token)
    try:
        hub.create_repo(name, repo_type=upload.kind, private=private, exist_ok=True)
        if private and not hub.repo_info(name, repo_type=upload.kind).private:
            raise UserError(f"{name}: there already, and public; make it private on the Hub, or push with --public")
        done = hub.create_commit(name, sent, repo_type=upload.kind, commit_message=upload.message)
        return str(done.commit_url)
    except HFValidationError:
        raise UserError(f"{name}: not a name for a {upload.kind}; write OWNER/NAME") from None
    except HfHubHTTPError as error:
        raise UserError(f"{name}: the Hub refused: {error}; check the name and what HF_TOKEN may do") from None
    except (HTTPError, OSError) as error:
        raise UserError(f"{name}: the Hub can't be reached ({type(error).__name__}); try again") from None


def _found(folder: Path, names: Sequence[str], remedy: str) -> dict[str, Path]:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; {remedy}")
    return {name: folder / name for name in names}


def _all_but_card(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.name != CARD}


def _card(path: Path) -> str:
    """Its text, once the metadata can be read: the Hub refuses a card without."""
    try:
        text = path.read_text(encoding="utf-8")
        RepoCard(text)
    except ValueError as error:
        raise UserError(f"{path}: no card ({error}); run the stage that writes it again") from None
    return text
