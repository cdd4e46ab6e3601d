"""Switch params.yaml to a named scale, recipe or model, so that it stays switched.

    ccai use                               # where it is now, and what there is
    ccai use poc
    ccai use dev --model qwen2.5-7b
    ccai use --recipe zephyr-qlora
    ccai use demo --recipe default         # back
    ccai use --model qwen2.5-14b --role judge --quantization 4bit

A scale (conf/scales) and a recipe (conf/recipes) are files whose values replace those of params.yaml. Scales say how
much is done, recipes how it is trained, neither by which model, so a model chosen stays chosen. Both set the batch; the
recipe's is the one that counts if both are given, and a scale chosen later sets it again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ccai.base import params, yaml_io
from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.base.params import PARAMS
from ccai.models.catalogue import CATALOGUE, catalogue

SCALES = Path("conf/scales")
RECIPES = Path("conf/recipes")
ROLES = tuple(params.Models.model_fields)

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


class _Leaf(NamedTuple):
    """A value that is no section, and where it stands.

    Attributes:
        column: of its key.
        start, end: from the end of its key to the end of the value, or of the comment on the same line.
        comment: that comment, or the one on the key's line where a list stands below it; else empty.
        written: the value as it is written, without what is around it.
        braced: it stands in a section in braces, where all is on one line.
    """

    column: int
    start: int
    end: int
    comment: str
    written: str
    braced: bool
    value: Any


def overlay(text: str, values: Mapping[str, str], where: str) -> Overlaid:
    """Replace values (by dotted key, as YAML text) in the text of params.yaml; every other byte stays.

    The text is edited, not parsed and dumped again: a dump forgets where comments stood. What is replaced is written as
    `dvc exp run -S` writes it, lists below their key and null as nothing, so that neither undoes the other's work.

    Raises:
        UserError: a key that params.yaml does not have, or a wrong value; `where` says who set it.
    """
    leaves = _leaves(text, PARAMS)
    changes = []
    for key in values:
        if key not in leaves:
            raise UserError(f"{where}: {key}: {PARAMS} has no such value; remove it or correct its name")
    # From the last to the first, so that the places of those still to come stay right.
    for key, leaf in sorted(leaves.items(), key=lambda item: -item[1].start):
        new = yaml.safe_load(values[key]) if key in values else leaf.value
        if new != leaf.value:
            old = _inline(leaf.value) if isinstance(leaf.value, list) or leaf.value is None else leaf.written
            changes.append(Change(key, old, values[key]))
            text = text[: leaf.start] + _as_dvc_writes(new, values[key], leaf, text) + text[leaf.end :]
    params.parse(yaml.safe_load(text), where)
    return Overlaid(text, changes[::-1])


def _as_dvc_writes(value: Any, written: str, leaf: _Leaf, text: str) -> str:
    """What stands from the end of the key on. Numbers stay as they are `written`.

    A comment goes to its own column, which depends on the value alone and not on where the comment was, so that a
    switch and the switch back undo each other.
    """
    below = isinstance(value, list) and value and not leaf.braced
    number = isinstance(value, int | float) and not isinstance(value, bool)
    first = ":" if below or value is None else f": {written if number else _inline(value)}"
    if leaf.comment:
        column = leaf.start - text.rfind("\n", 0, leaf.start) - 1 + len(first)
        first += " " * (max(COMMENT_COLUMN, (column // 8 + 1) * 8) - column) + leaf.comment
    items = [f"{' ' * leaf.column}- {_inline(item)}" for item in value] if below else []
    return "\n".join([first, *items])


def _inline(value: Any) -> str:
    """YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return dumped.removesuffix("...\n").rstrip("\n")


def scale_values(name: str, folder: Path = SCALES) -> dict[str, str]:
    """What a scale sets, as `file_values` has it, `scale` among them."""
    return {"scale": name, **file_values(name, folder)}


def file_values(name: str, folder: Path) -> dict[str, str]:
    """What an overlay file sets: dotted key → value as it is written there.

    Raises:
        UserError: no such file (names those there are), not YAML, or a value that is not on one line.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such {_kind(folder)}; there are {', '.join(_names(folder)) or 'none'}")
    values = {key: leaf.written for key, leaf in _leaves(path.read_text(encoding="utf-8"), path).items()}
    for key, value in values.items():
        if "\n" in value:
            raise UserError(f"{path}: {key}: not on one line; write the list as [a, b]")
    return values


def model_values(name: str, role: str | None) -> dict[str, str]:
    """What choosing a model for one role, or for all of them, sets.

    Raises:
        UserError: no such name; checks the name only, since fetching the model is for whoever uses it.
    """
    named = list(catalogue())
    if name not in named and not Path(name).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+@\w+", name):
        raise UserError(f"--model {name}: no folder, no hub-id@commit, and none of {', '.join(named)}; correct it")
    # Quoted where YAML would read something else into it, as into a folder named 2024.
    return {f"models.{role}": _inline(name) for role in ([role] if role else ROLES)}


def _leaves(text: str, where: Path) -> dict[str, _Leaf]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise yaml_io.malformed(where, error) from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{where}: not a mapping of keys to values; correct it")
    leaves: dict[str, _Leaf] = {}

    def walk(section: yaml.MappingNode, prefix: str, values: Mapping[str, Any]) -> None:
        for key, node in section.value:
            value = values[key.value]
            if isinstance(node, yaml.MappingNode):
                walk(node, f"{prefix}{key.value}.", value)
                continue
            last = node
            # A list in lines "ends" where the next key begins, comments between the two included.
            while isinstance(last, yaml.SequenceNode) and last.value and not last.flow_style:
                last = last.value[-1]
            written = text[node.start_mark.index : last.end_mark.index].rstrip()
            begins, ends = key.end_mark.index, node.start_mark.index + len(written)
            if node.start_mark.line > key.start_mark.line or not written:  # a list below its key, or nothing
                [comment] = re.findall(r":[ \t]*(#.*)?", text[begins:].partition("\n")[0])
                ends = ends if written else begins + len(text[begins:].partition("\n")[0])
            else:
                behind = re.match(r"[ \t]+(#.*)", text[ends:])
                comment = behind[1] if behind else ""
                ends += behind.end() if behind else 0
            leaves[prefix + key.value] = _Leaf(
                key.start_mark.column, begins, ends, comment, written, bool(section.flow_style), value
            )

    walk(root, "", yaml.safe_load(text))
    return leaves


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
        ("--quantization", {"hardware.quantization": options.quantization} if options.quantization else {}),
    ):
        text, changed = overlay(text, values, where)
        changes += changed
    if not (options.name or options.recipe or options.model or options.quantization):
        _show(current, text)
        return
    if changes:
        write_text(PARAMS, text)
    for key, old, new in changes:
        print(f"{key}: {old} → {new}")
    print(f"{PARAMS}: {f'{len(changes)} values' if changes else 'nothing'} changed")
