"""conf/models.yaml, the catalogue of models by name: on a hub, in a Python package, or behind an endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ccai.base import yaml_io
from ccai.base.errors import UserError, first
from ccai.base.param_types import Section

CATALOGUE = Path("conf/models.yaml")


def _url(value: str) -> str:
    """A base URL without its last slash. Messages quote no part of it: the wrong part may be a password."""
    if "@" in value:
        raise ValueError("has a user or password in it; name an environment variable in `key` instead")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL such as http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or # in it; leave off what follows")
    return value.rstrip("/")


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", value):
        raise ValueError("is not the NAME of an environment variable, in capitals")
    return value


HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
"""OWNER/NAME. A path that begins with a dot or a slash never matches."""


class CatalogueEntry(Section):
    """Keys of any entry in conf/models.yaml.

    Attributes:
        template: variables for the chat template; a server receives them as `chat_template_kwargs`.
        family, guard: see ccai/judge/judge.py.
    """

    template: dict[str, Any] = {}
    family: str | None = None
    guard: str | None = None


class OnHub(CatalogueEntry):
    """A model on a hub, at a commit."""

    hub: str = Field(pattern=f"^{HUB_ID}$")
    revision: str = Field(min_length=1)
    licence: str = Field(min_length=1)


class Packaged(CatalogueEntry):
    """A model in a Python package: `file` is a GGUF in the wheel of `package`."""

    package: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*==[\w.+!-]+$")
    file: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)


class Served(CatalogueEntry):
    """A model behind OpenAI-compatible endpoints.

    Attributes:
        endpoints: base URLs, usually ending in /v1; requests are spread over them.
        model: the servers' name for it.
        revision: of the weights, as the server's operator declares it; it cannot be verified from here.
        key: name of the environment variable that holds the key; None: the servers need none.
        concurrency: simultaneous requests to each endpoint.
        timeout: seconds that one request may take.
        verdicts: how a judge's verdicts are read: from the probabilities of labels, or from one label as JSON.
    """

    endpoints: list[Annotated[str, AfterValidator(_url)]] = Field(min_length=1)
    model: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    key: Annotated[str, AfterValidator(_variable)] | None = None
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout: float = Field(default=600, gt=0)
    verdicts: Literal["logprobs", "json"] = "logprobs"

    @model_validator(mode="after")
    def _readable(self) -> Served:
        if self.guard and self.verdicts == "json":
            raise ValueError("a guard answers in a format of its own; leave out verdicts: json")
        return self


Kind = TypeVar("Kind", bound=CatalogueEntry)

KINDS: dict[str, type[CatalogueEntry]] = {"hub": OnHub, "package": Packaged, "endpoints": Served}
"""Kind of entry by the key that identifies it."""


def served(name: str, entry: Mapping[str, Any]) -> Served:
    """The catalogue's entry for a model behind endpoints, checked.

    Raises:
        UserError: names the first wrong key and what is wrong with it.
    """
    return _checked(Served, name, entry)


def _checked(kind: type[Kind], name: str, entry: Mapping[str, Any]) -> Kind:
    """An entry, checked. Messages do not quote the value of a wrong key: people paste secrets into wrong places."""
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        raise UserError(f"{CATALOGUE}: {name}: {first(error)}; correct it") from None


def catalogue() -> dict[str, dict[str, Any]]:
    """conf/models.yaml, checked: each name with the source of its files, or with its endpoints.

    Raises:
        UserError: missing, not YAML, not a mapping, an invalid name, an entry of no kind, or a wrong key in an entry.
    """
    try:
        value = yaml_io.read(CATALOGUE)
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
