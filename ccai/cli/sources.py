"""List, fetch or pin sources of prompts.

Examples:

    ccai sources list                                   # prompts, licences, whom to credit
    ccai sources fetch ailuminate                       # from its URL
    ccai sources fetch ailuminate --from ~/Downloads    # from a copy, recognised by its sha256
    ccai sources pin NAME --url URL --like ailuminate   # another locale: same licence, same columns
    ccai sources pin NAME --url URL --licence MIT --attribution … --citation … --column text=question
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ccai.base.errors import UserError
from ccai.prompts.fetch import fetch, pin
from ccai.prompts.sources import SOURCES, credits, load, named, names


def _state(name: str) -> str:
    try:
        return f"{len(load(name)):>6}"
    except UserError:
        return "changed" if named(name).path.exists() else "not fetched"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names, prompts, licences, whom to credit")
    getter = commands.add_parser("fetch", help="put a public source into data/public")
    getter.add_argument("name", metavar="NAME")
    getter.add_argument("--from", dest="folder", type=Path, help="take it from a copy under this folder")
    pinner = commands.add_parser("pin", help="add a public source as it is today")
    pinner.add_argument("name", metavar="NAME")
    pinner.add_argument("--url", required=True, help="where the file is; name a commit, not a branch")
    pinner.add_argument("--from", dest="file", type=Path, help="a copy of the file; else it is downloaded")
    pinner.add_argument("--like", metavar="NAME", help="a pinned source whose terms and columns these are, too")
    for term in ("licence", "attribution", "citation"):
        pinner.add_argument(f"--{term}")
    pinner.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="e.g. text=question")
    pinner.add_argument("--first-turn", action="store_true", help="the text is a transcript: take its first human turn")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.command == "fetch":
        path = fetch(options.name, options.folder)
        print(f"{path}: {len(load(options.name))} prompts, as pinned")
    elif options.command == "pin":
        rows = pin(options.name, _terms(options), options.file)
        print(f"{SOURCES / options.name}.yaml: {len(rows)} prompts, pinned")
    else:
        _list()


def _terms(options: argparse.Namespace) -> dict[str, object]:
    """The terms of a new pin, from the command line and the source it is like."""
    terms: dict[str, object] = {}
    if options.like:
        like = named(options.like).pin
        if like is None:
            raise UserError(f"--like {options.like}: not a pinned source; name one that is")
        terms = like.model_dump(exclude={"file"})
    overrides = {key: getattr(options, key) for key in ("licence", "attribution", "citation") if getattr(options, key)}
    if options.column:
        overrides["columns"] = dict(column.partition("=")[::2] for column in options.column)
    if options.first_turn:
        overrides["first_turn"] = True
    return {**terms, **overrides, "url": options.url}


def _list() -> None:
    print(f"{'name':<16}{'prompts':<13}{'licence':<17}from")
    for credit in credits(names()):
        print(f"{credit.name:<16}{_state(credit.name):<13}{credit.licence:<17}{credit.attribution}")
        for line in (credit.citation and f"cite: {credit.citation}", credit.url):
            if line:
                print(f"{'':<16}{line}")
