"""Library versions that affect the outputs: pinned in conf/versions.yaml, a dependency of the stages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ccai.base import yaml_io
from ccai.base.errors import UserError

VERSIONS = Path("conf/versions.yaml")


def check(*packages: str) -> dict[str, str]:
    """The pinned versions of `packages`, after a check that they are installed (builds such as +cpu may differ).

    Raises:
        UserError: the file is missing or wrong, or the installed version is not the pinned one, which DVC would record.
    """
    try:
        pins = yaml_io.read(VERSIONS)
    except FileNotFoundError:
        raise UserError(f"{VERSIONS}: no such file; run this from the project's top folder") from None
    if not isinstance(pins, dict):
        raise UserError(f"{VERSIONS}: not a mapping of packages to versions; restore it (git checkout {VERSIONS})")
    for package in packages:
        if not isinstance(pins.get(package), str) or not pins[package]:
            raise UserError(f"{VERSIONS}: {package}: no version as text, such as {package}: '1.10'; correct it")
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
