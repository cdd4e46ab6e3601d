"""Public prompt sets: downloaded and checked against their pins, and new sets pinned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import requests
import yaml
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ccai.base import files
from ccai.base.errors import UserError, first
from ccai.base.hashing import sha256_of
from ccai.base.params import PromptSet
from ccai.prompts.readers import READERS, suffix
from ccai.prompts.sources import (
    PUBLIC,
    SOURCES,
    Pin,
    Source,
    SourcePrompt,
    check_columns,
    named,
    names,
    read_bytes,
    rows_of,
)

SIZE_LIMIT = 64 * 2**20
"""Bytes at which a download is given up; the largest set pinned here is under one MiB."""


def fetch(name: str, from_dir: Path | None = None, root: Path = Path()) -> Path:
    """Put a public source's file into data/public, from its URL or from a copy anywhere below a folder.

    The content is checked before anything is written: an existing file stays until the right one has arrived.

    Raises:
        UserError: not a public source, no connection, no copy in the folder, wrong content, or not writable.
    """
    source = named(name, root)
    if source.pin is None:
        raise UserError(f"{name}: nothing to fetch; {source.path} is a file of this project or your own")
    if source.path.is_file() and sha256_of(read_bytes(source)) == source.pin.sha256:
        return source.path
    pin = source.pin
    if from_dir is not None:
        data = _find(name, pin, from_dir)
    else:
        instead = f"get a copy and run: ccai sources fetch {name} --from FOLDER"
        data = _download(pin.url, instead)
        if sha256_of(data) != pin.sha256:
            raise UserError(f"{name}: {pin.url} is not the pinned file (sha256 {sha256_of(data)[:12]}…); {instead}")
    files.write_bytes(source.path, data)
    return source.path


def pin(name: str, terms: Mapping[str, object], file: Path | None = None, root: Path = Path()) -> list[SourcePrompt]:
    """Pin a public set in its present state: its file goes to data/public, its pin to data/sources.

    Args:
        terms: the fields of `Pin` except `file` and `sha256`.
        file: a copy of the file at the URL; None: download it.

    Returns:
        The prompts of the set. If it has none, nothing is written.

    Raises:
        UserError: an invalid or existing name; a missing field; no connection; a file that cannot be read.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise UserError(f"{name}: not a name for a source; use a-z, 0-9 and hyphens")
    if name in names(root):
        raise UserError(
            f"{name}: a source of this name exists already; take its file out of {SOURCES} or choose another name"
        )
    url = str(terms["url"])
    path = root / PUBLIC / f"{name}{''.join(Path(url).suffixes[-2 if url.endswith('.gz') else -1 :])}"
    if suffix(path) not in READERS:
        raise UserError(f"{url}: must end in {', '.join(READERS)}, or one of these and .gz; choose another file")
    instead = f"get a copy and run the command with --from {Path(url).name}"
    data = _download(url, instead) if file is None else read_bytes(Source(name, file))
    try:
        meta = Pin.model_validate({"file": path.name, **terms, "sha256": sha256_of(data)})
    except ValidationError as error:
        raise UserError(f"{name}: {first(error)}; correct it") from None
    check_columns(name, meta)
    rows = rows_of(Source(name, path, meta), PromptSet(source=name), data)
    text = yaml.safe_dump(meta.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True, width=1000)
    files.write_bytes(path, data)
    files.write_bytes(root / SOURCES / f"{name}.yaml", text.encode())
    return rows


def _download(url: str, instead: str) -> bytes:
    busy = (429, 500, 502, 503, 504)
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=busy, raise_on_status=False)
    data = b""
    try:
        with requests.Session() as session:
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            with session.get(url, stream=True, timeout=(10, 60)) as response:
                response.raise_for_status()
                for chunk in response.iter_content(2**16):
                    data += chunk
                    if len(data) > SIZE_LIMIT:
                        break
    except requests.RequestException as error:
        status = f"HTTP {error.response.status_code}" if error.response is not None else "no connection"
        raise UserError(f"cannot download {url} ({status}); {instead}") from None
    return data


def _find(name: str, pin: Pin, folder: Path) -> bytes:
    filename = pin.url.rsplit("/", 1)[-1]
    candidates = folder.rglob(f"*{Path(filename).suffix}") if folder.is_dir() else iter([folder])
    # The publisher's file name first, which usually saves reading a whole Downloads folder.
    for path in sorted(candidates, key=lambda p: (p.name != filename, str(p))):
        if path.is_file():
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if sha256_of(data) == pin.sha256:
                return data
    raise UserError(f"{folder}: holds no copy of {name} (sha256 {pin.sha256[:12]}…); get {pin.url}")
