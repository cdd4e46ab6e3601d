"""Malformed inputs, made from what the real stages wrote: every command ends well or in one line with exit code 2.

A few dozen of each kind here; more with CCAI_MALFORMED=100 (mutations of each file).
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.project import Built

from ccai import cli
from ccai.base.errors import run

EACH = int(os.environ.get("CCAI_MALFORMED", "4"))
"""Mutations of each input of each command."""

TRAIN, HELD_OUT = "data/prompts/train.jsonl", "data/prompts/eval.jsonl"
ANSWERED, CRITICISED, REVISED = "data/responses.jsonl", "data/critiques.jsonl", "data/revisions.jsonl"
PAIRS = tuple(f"data/pairs/{name}.jsonl" for name in ("train", "validation", "dropped"))
BASE, TUNED = (f"data/eval/heldout/{arm}.jsonl" for arm in ("base", "tuned"))
METRICS = tuple(f"metrics/{name}.json" for name in ("prompts", "pairs", "train", "eval"))

COMMANDS: dict[str, tuple[str, ...]] = {
    "stages.critiques": (TRAIN, ANSWERED),
    "stages.revisions": (TRAIN, ANSWERED, CRITICISED),
    "stages.pairs": (TRAIN, HELD_OUT, ANSWERED, REVISED, "metrics/responses.json", "metrics/revisions.json"),
    "stages.train": (*PAIRS[:2], "data/pairs/sft/train.jsonl", "data/pairs/sft/validation.jsonl", HELD_OUT),
    "ccai show prompts": (TRAIN, HELD_OUT),
    "ccai show responses": (TRAIN, ANSWERED),
    "ccai show critiques": (TRAIN, ANSWERED, CRITICISED),
    "ccai show revisions": (ANSWERED, CRITICISED, REVISED),
    "ccai show pairs": (CRITICISED, *PAIRS[:2]),
    "ccai show dropped": (ANSWERED, PAIRS[2]),
    "ccai show answers": (HELD_OUT, BASE, TUNED),
    "ccai trace PAIR": (TRAIN, ANSWERED, CRITICISED, REVISED, *PAIRS, *METRICS),
    "ccai trace PROMPT/tuned": (HELD_OUT, BASE, TUNED, *METRICS),
    "ccai trace metrics/eval.json:heldout.length.tokens": (BASE, TUNED, "metrics/eval.json"),
    "ccai trace metrics/pairs.json:kept": (PAIRS[0], "metrics/pairs.json"),
    "ccai summary": METRICS,
    "ccai milestone": METRICS[1:],
    "ccai report": (*METRICS, HELD_OUT, BASE, TUNED, "params.yaml", "metrics/runtime/eval.json"),
    "ccai review --agreement": (*PAIRS, "data/reviews/anna.jsonl"),
    "ccai check": ("params.yaml",),
    "ccai score data/asked.jsonl --out scored.jsonl": ("data/asked.jsonl",),
    f"ccai compare {BASE} {TUNED} --key prompt_id --score scores.declining --by hazard": (BASE, TUNED),
    "ccai preferences data/imports/ready.jsonl": ("data/imports/ready.jsonl",),
    "stages.prompts": ("data/sources/contemplative.jsonl",),
}
"""What each reads."""


@pytest.fixture(scope="module")
def toy(unjudged: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages wrote in the toy run, without git and DVC's cache, and what users bring."""
    folder = tmp_path_factory.mktemp("toy") / "project"
    for name in ("conf", "data", "metrics", "models"):
        shutil.copytree(unjudged.project.folder / name, folder / name)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(unjudged.project.folder / name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        brought()
    return folder


def brought() -> None:
    """What users bring: answers to be scored, ready-made pairs, reviews; in the current folder."""
    texts = {row["prompt_id"]: row["text"] for row in rows(HELD_OUT)}
    write("data/asked.jsonl", [{"prompt": texts[row["prompt_id"]], "response": row["text"]} for row in rows(BASE)])
    kept = rows(PAIRS[0])
    write("data/imports/ready.jsonl", [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in kept])
    from ccai.base.records import Pair
    from ccai.review.log import Log, Review, content

    log = Log(Path("data/reviews/anna.jsonl"))
    for row in kept:
        shown = content(Pair.model_validate(row))
        log.append(Review(pair_id=row["pair_id"], content=shown, first="chosen", choice="first", note="", at="2026"))
    log.close()


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def write(name: str, values: Sequence[Any]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    10**30,
    10**400,
    1e300,
    float("nan"),
    float("inf"),
    True,
    "",
    "x",
    "\ud800",
    "\0",
    "\u2028",
    "../../x",
    "/etc/passwd",
    [],
    {},
    [1],
    {"n": 1},
    [[[[[]]]]],
    "x" * 300_000,
)


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> tuple[str, bytes | None]:
    """What was done, and the file's new content; None: no file."""
    name = rng.choice([*WHOLE, *(["value"] * 8), *(["lines"] * 4), *(["bytes"] * 3)])
    if name == "value":
        return change_value(data, rng)
    if name == "lines":
        lines = data.splitlines(keepends=True)
        other = rng.choice(others).splitlines(keepends=True) or [b""]
        at = rng.randrange(len(lines))
        new = rng.choice(
            [
                lines[at] * 2,
                b"",
                rng.choice(other),
                lines[at][: len(lines[at]) // 2],
                b"\n",
                b"\xef\xbb\xbf" + lines[at],
            ]
        )
        if rng.random() < 0.3:
            rng.shuffle(lines)
        return f"line {at + 1} becomes {new[:30]!r}", b"".join([*lines[:at], new, *lines[at + 1 :]])
    if name == "bytes":
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 3, 30])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return "bytes changed", bytes(changed)
    if name == "swapped":
        return name, rng.choice(others)
    return name, WHOLE[name](data)


WHOLE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "newlines": lambda data: b"\n\n\n",
    "torn": lambda data: data[: len(data) * 2 // 3],
    "NUL": lambda data: data + b"\0" * 40,
    "not UTF-8": lambda data: data.replace(b"e", b"\xe9", 5),
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "lists": lambda data: b"[]\n" * 3,
    "null": lambda data: b"null\n",
    "numbers": lambda data: b"7\n7\n",
    "objects": lambda data: b"{}\n{}\n",
    "deep": lambda data: b"[" * 100_000,
    "deep values": lambda data: b'{"text": ' * 5_000,
    "twice": lambda data: data * 2,
    "duplicate key": lambda data: re.sub(rb'("?\w+"?: )([^,\n]+)(,|\n)', rb"\1\2\3\1\2\3", data, count=1),
    "swapped": lambda data: data,
}


def change_value(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One value of one record, or its key, somewhere."""
    text = data.decode()
    try:
        records = [json.loads(line) for line in text.splitlines()]
        dump, end = json.dumps, "\n"
    except ValueError:
        records = [yaml.safe_load(text)]
        dump = json.dumps if text.lstrip().startswith("{") else lambda value: yaml.safe_dump(value, sort_keys=False)
        end = ""
    record = records[rng.randrange(len(records))]
    place: Any = record
    path = ""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        path += f".{key}"
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
            place = place[key]
            continue
        break
    if rng.random() < 0.25:
        del place[key]
        told = "gone"
    else:
        place[key] = copy.deepcopy(rng.choice(ODD))
        told = repr(place[key])[:30]
    return f"{path} is {told}", "".join(dump(each) + end for each in records).encode("utf-8", "surrogatepass")


def outcome(command: str) -> Any:
    """Exit code of a command, run here as `python -m` would."""
    name, *arguments = command.split()
    kept = sys.argv, {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    sys.argv = [name, *arguments]
    try:
        run(cli.main if name == "ccai" else import_module(name).main)
    except SystemExit as ended:
        return ended.code
    finally:
        sys.argv = kept[0]
        for number, handler in kept[1].items():
            signal.signal(number, handler)
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_malformed_inputs_end_well_or_in_one_line(
    command: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    shutil.copytree(toy, here)
    monkeypatch.chdir(here)
    names = {"PAIR": rows(PAIRS[0])[0]["pair_id"], "PROMPT": rows(HELD_OUT)[0]["prompt_id"]}
    line = re.sub("PAIR|PROMPT", lambda found: names[found[0]], command)
    monkeypatch.setattr("ccai.generate.completions.load_engine", refuse_to_generate)
    monkeypatch.setattr("ccai.train.run.train", refuse_to_generate)
    for name in COMMANDS[command]:
        path, rng = Path(name), random.Random(f"{command} {name}")
        data = path.read_bytes()
        others = [Path(other).read_bytes() for other in (TRAIN, ANSWERED, CRITICISED, PAIRS[0], BASE, *METRICS)]
        for number in range(EACH if command != "ccai report" else EACH // 4):  # each page takes seconds
            what, new = mutated(data, others, rng)
            path.unlink()
            if new is not None:
                path.write_bytes(new)
            elif number % 3 == 1:
                path.mkdir()
            elif number % 3 == 2:
                path.symlink_to("nowhere")
            capsys.readouterr()
            try:
                code = outcome(line)
            except Exception as error:
                raise AssertionError(f"{command}: {name}: {what}: {error!r}") from error
            said = capsys.readouterr().err.splitlines()
            errors = [text for text in said if text.startswith("error: ")]
            assert code in ((0, 1, 2) if command == "ccai milestone" else (0, 2)), f"{name}: {what}"
            assert len(errors) == (code == 2), f"{name}: {what}: {said}"
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            path.write_bytes(data)
    restored(here, toy, COMMANDS[command])


class Reached(SystemExit):
    """The input was taken: what comes now is dear, and others' tests."""


def refuse_to_generate(*arguments: Any, **options: Any) -> Any:
    raise Reached(0)


def restored(here: Path, toy: Path, names: Sequence[str]) -> None:
    """The inputs are as they were: no command changes what it reads."""
    for name in names:
        if not name.startswith("metrics/runtime"):
            assert (here / name).read_bytes() == (toy / name).read_bytes(), name
