"""A model by its name in params.yaml: from the catalogue, a hub or a folder."""

from __future__ import annotations

import re
from pathlib import Path

from ccai.base.errors import UserError
from ccai.models.catalogue import HUB_ID, catalogue
from ccai.models.files import shards
from ccai.models.hub import from_hub
from ccai.models.model import Model
from ccai.models.packaged import from_package


def find(name: str) -> Model:
    """The model of that name, its files fetched and checked if they are not on this machine yet.

    Args:
        name: a key of conf/models.yaml, `hub-id@commit`, or a folder with safetensors.

    Raises:
        UserError: unknown, unpinned, gated, not found, no network, wrong hash, no safetensors in it, or behind an
            endpoint. Only names with an @ are sent to the hub, so a mistyped path stays private.
    """
    models = catalogue()
    if name in models:
        entry = models[name]
        if "endpoints" in entry:
            raise UserError(
                f"model {name}: runs behind an endpoint, so it can't be loaded or trained here; it can answer, revise "
                "and judge: set models.train to a model with weights"
            )
        licence, template = entry["licence"], entry.get("template", {})
        if "package" in entry:
            return Model(name, f"sha256:{entry['sha256']}", from_package(name, entry), licence, template)
        folder = from_hub(entry["hub"], entry["revision"])
        return Model(entry["hub"], entry["revision"], folder, licence, template)
    if name and Path(name).is_dir():
        folder = Path(name)
        shards(folder)
        return Model(f"local/{folder.resolve().name}", None, folder, "unknown")
    repository, at, revision = name.partition("@")
    if at and re.fullmatch(HUB_ID, repository):
        return Model(repository, revision, from_hub(repository, revision), "other")
    hub = f"; is it a hub's, write {name}@COMMIT ({name}@main says the newest)" if re.fullmatch(HUB_ID, name) else ""
    raise UserError(f"model {name!r}: no such folder, and none of {', '.join(models)}{hub}; correct params.yaml")
