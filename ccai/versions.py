"""The library versions that shape what stages write: pinned in conf/versions.yaml, where DVC sees them change."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from ccai.errors import UserError

VERSIONS = Path("conf/versions.yaml")


def check(*packages: str) -> dict[str, str]:
    """The pinned versions of `packages`, once the installed ones are seen to equal them (builds may differ: +cpu).

    Raises:
        UserError: a pinned version is not the installed one: what DVC records would not be what ran.
    """
    try:
        pins: dict[str, str] = yaml.safe_load(VERSIONS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{VERSIONS}: no such file; run this from the project's top folder") from None
    for package in packages:
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            installed = "none"
        if installed != pins[package]:
            raise UserError(
                f"{VERSIONS}: {package} {pins[package]} is pinned, {installed} is installed; "
                f"pip install {package}=={pins[package]}, or pin what you have"
            )
    return {package: pins[package] for package in packages}
