"""Switch params.yaml to a named scale, recipe or model, so that it stays switched.

    ccai use                               # where it is now, and what there is
    ccai use poc
    ccai use dev --model qwen2.5-7b --judge llama-3.1-8b
    ccai use --recipe zephyr-qlora
    ccai use demo --recipe default         # back
    ccai use --model qwen2.5-14b --role judge --quantization 4bit

A scale (conf/scales) and a recipe (conf/recipes) are files whose values replace those of params.yaml. Scales say how
much is done, recipes how it is trained, neither by which model, so a model chosen stays chosen. Both set the batch; the
recipe's is the one that counts if both are given, and a scale chosen later sets it again.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark

from ccai.base import params, yaml_io
from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.base.params import PARAMS
from ccai.models.catalogue import CATALOGUE, catalogue

SCALES = Path("conf/scales")
RECIPES = Path("conf/recipes")
ROLES = tuple(params.Models.model_fields)

WHOLE = ("eval.primary",)
"""Sections that may also be null, and so are set as one value."""

COMMENT_COLUMN = 24
"""Where comments at the end of a line begin, or at the next multiple of 8 after a longer value."""


class Change(NamedTuple):
    """A key that got another value; both as they are written."""

    key: str
    old: str
    new: str


class Overlaid(NamedTuple):
    """params.yaml after an overlay, and what is different."""

    text: str
    changes: list[Change]


def overlay(text: str, values: Mapping[str, Any], where: str) -> Overlaid:
    """Replace values (by dotted key) in the text of params.yaml.

    The text becomes what `dvc exp run -S` writes, lists below their key and null as nothing, so that neither undoes
    the other's work. Quotes and the spelling of numbers stay.

    Raises:
        UserError: a key that params.yaml does not have, or a wrong value; `where` says who set it.
    """
    root = _loaded(text)
    changes = []
    for key, new in values.items():
        *above, name = key.split(".")
        section = root
        for part in above:
            section = section.get(part) if isinstance(section, CommentedMap) else None
        known = isinstance(section, CommentedMap) and name in section
        if not known or (isinstance(section[name], CommentedMap) and key not in WHOLE):
            raise UserError(f"{where}: {key}: {PARAMS} has no such value; remove it or correct its name")
        if new != section[name]:
            changes.append(Change(key, _inline(section[name]), _inline(new)))
            _replace(section, name, new, indent=2 * len(above))
    if changes:
        text = _dumped(root)
    params.parse(yaml.safe_load(text), where)
    return Overlaid(text, changes)


def _replace(section: CommentedMap, key: str, new: Any, indent: int) -> None:
    """Set a value. The comment on its line goes to a column that depends on the value alone.

    ruamel leaves it where it was, or pushes it, so that a switch and the switch back would not undo each other.
    """
    old = section[key]
    section[key] = _bare(new)
    if isinstance(old, CommentedSeq) and isinstance(new, list):
        if not new or (old and old.fa.flow_style()):
            section[key].fa.set_flow_style()
        elif len(old) - 1 in old.ca.items:  # the lines between the list and the next key
            section[key].ca.items[len(new) - 1] = old.ca.items[len(old) - 1]
    comments = section.ca.items.get(key)
    if comments and comments[2]:
        column = indent + len(_dumped({key: section[key]}).partition("\n")[0])
        comments[3] = None  # without what says that a list stands below
        comments[2].start_mark = CommentMark(max(COMMENT_COLUMN, (column // 8 + 1) * 8))


def _bare(value: Any) -> Any:
    """A value without the comments and the layout that came with it."""
    if isinstance(value, list):
        return CommentedSeq(map(_bare, value))
    return CommentedMap({key: _bare(item) for key, item in value.items()}) if isinstance(value, dict) else value


def _loaded(text: str) -> Any:
    """As DVC reads it, but that quotes stay."""
    reader = YAML()
    reader.preserve_quotes = True
    return reader.load(text)


def _dumped(value: Any, inline: bool = False) -> str:
    """As DVC writes it, or on one line."""
    writer, stream = YAML(), io.StringIO()
    writer.default_flow_style = inline
    if inline:
        writer.width = 10**6
    writer.dump(value, stream)
    return stream.getvalue()


def _inline(value: Any) -> str:
    return _dumped([_bare(value)], inline=True).strip()[1:-1]


def scale_values(name: str, folder: Path = SCALES) -> dict[str, Any]:
    """What a scale sets, as `file_values` has it, `scale` among them."""
    return {"scale": name, **file_values(name, folder)}


def file_values(name: str, folder: Path) -> dict[str, Any]:
    """What an overlay file sets, by dotted key. Numbers know how they are written there.

    Raises:
        UserError: no such file (names those there are), or not YAML.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such {_kind(folder)}; there are {', '.join(_names(folder)) or 'none'}")
    if not isinstance(yaml_io.read(path), dict):
        raise UserError(f"{path}: not a mapping of keys to values; correct it")
    return dict(_leaves(_loaded(path.read_text(encoding="utf-8"))))


def _leaves(section: CommentedMap, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, CommentedMap) and prefix + key not in WHOLE:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def model_values(name: str, role: str | None) -> dict[str, Any]:
    """What choosing a model for one role, or for all of them, sets.

    Raises:
        UserError: no such name; checks the name only, since fetching the model is for whoever uses it.
    """
    named = list(catalogue())
    if name not in named and not Path(name).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+@\w+", name):
        raise UserError(f"--model {name}: no folder, no hub-id@commit, and none of {', '.join(named)}; correct it")
    return {f"models.{role}": name for role in ([role] if role else ROLES)}


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _kind(folder: Path) -> str:
    return folder.name.removesuffix("s")


def _show(current: params.Params, text: str) -> None:
    for folder in (SCALES, RECIPES):
        print(f"{folder.name}:")
        width = max(map(len, _names(folder)), default=0) + 1
        for name in _names(folder):
            if folder == SCALES:
                active = name == current.scale
            else:
                active = not overlay(text, file_values(name, folder), str(folder / f"{name}.yaml")).changes
            first = (folder / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            print(f"{'*' if active else ' '} {name:<{width}}{first.removeprefix('#')}")
    print("models:")
    roles = current.models.model_dump()
    names = list(catalogue())
    for name in [*names, *sorted(set(roles.values()) - set(names))]:
        using = [role for role, chosen in roles.items() if chosen == name]
        print(f"{'*' if using else ' '} {name}{': ' * bool(using)}{', '.join(using)}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"a file in {SCALES}: {', '.join(_names(SCALES))}")
    parser.add_argument("--recipe", help=f"a file in {RECIPES}: {', '.join(_names(RECIPES))}")
    parser.add_argument("--model", help=f"a name from {CATALOGUE}, hub-id@commit, or a folder")
    parser.add_argument("--role", choices=ROLES, help="the one role that --model is for; without it, all")
    parser.add_argument("--judge", metavar="MODEL", help="who reads answers; --model MODEL --role judge")
    parser.add_argument("--quantization", choices=("auto", "none", "8bit", "4bit"))


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.role and not options.model:
        raise UserError("--role needs --model")
    current = params.load()
    text = PARAMS.read_text(encoding="utf-8")
    changes = []
    for where, values in (
        (str(SCALES / f"{options.name}.yaml"), scale_values(options.name) if options.name else {}),
        (str(RECIPES / f"{options.recipe}.yaml"), file_values(options.recipe, RECIPES) if options.recipe else {}),
        ("--model", model_values(options.model, options.role) if options.model else {}),
        ("--judge", model_values(options.judge, "judge") if options.judge else {}),
        ("--quantization", {"hardware.quantization": options.quantization} if options.quantization else {}),
    ):
        text, changed = overlay(text, values, where)
        changes += changed
    if not (options.name or options.recipe or options.model or options.judge or options.quantization):
        _show(current, text)
        return
    if changes:
        write_text(PARAMS, text)
    for key, old, new in changes:
        print(f"{key}: {old} → {new}")
    print(f"{PARAMS}: {f'{len(changes)} values' if changes else 'nothing'} changed")
