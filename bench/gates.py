"""A million synthetic pairs through the pairs stage: is its memory bounded, its time linear?

    python -m bench.gates
    python -m bench.gates --pairs 10000 100000

The stage runs as `dvc repro` runs it, in a process and a folder of its own, with the judge off: the records are
read, each pair passes the gates (language detection and token counts included), and pairs, SFT data and card are
written. The texts are words of the constitution in random order, as long as the default model's answers; some are
made to fail a gate. CPU seconds are what to compare: other work on the machine changes the others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench import machine
from ccai.base import files
from ccai.base.errors import UserError, run
from ccai.base.params import PARAMS
from ccai.constitution import principles

ROOT = Path(__file__).parents[1]
NEEDED = ("conf", "data/sources", "data/constitutions", "data/templates", "data/imports")
CONSTITUTION = ROOT / "data/constitutions/contemplative.md"
PRINCIPLES = ("boundless-care", "emptiness", "mindfulness", "non-duality")
HAZARDS = ("everyday", "prv", "ipv", "hte")
COMPLETION = {
    "prompt_tokens": 60,
    "conversation": "0" * 64,
    "model": "synthetic",
    "unverified_weights": False,
    "seed": 1,
}
ABOUT = {"model": "synthetic", "revision": "none", "unverified_weights": False}


def main() -> None:
    """Measure each size, print a table, write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m bench.gates")
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    machine.add_results(parser)
    options = parser.parse_args()
    sizes = {}
    print(f"{'pairs':>10} {'kept':>10} {'CPU s':>8} {'pairs/CPU s':>12} {'wall s':>8} {'peak MB':>8}", flush=True)
    for pairs in options.pairs:
        sizes[str(pairs)] = found = measure(pairs)
        print(
            f"{pairs:>10,} {found['kept']:>10,} {found['cpu_seconds']:>8} {found['pairs_per_cpu_second']:>12} "
            f"{found['wall_seconds']:>8} {found['peak_memory_mb']:>8}",
            flush=True,
        )
    path = machine.write(options.results, "gates", "bench.gates", sys.argv[1:], {"sizes": sizes})
    print(path)


def measure(pairs: int) -> dict[str, Any]:
    """Run the stage on that many pairs.

    Raises:
        UserError: the stage failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _project(folder, pairs)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "stages.pairs"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise UserError(f"{PARAMS}: the pairs stage failed: {done.stderr.strip()[-300:]}")
        metrics = files.read_json(folder / "metrics/pairs.json")
        cost = files.read_json(folder / "metrics/runtime/pairs.json")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "kept": metrics["kept"],
        "dropped_by": {gate: count for gate, count in metrics["dropped_by"].items() if count},
        "cpu_seconds": round(cpu, 1),
        "pairs_per_cpu_second": round(pairs / cpu),
        "wall_seconds": cost["seconds"],
        "peak_memory_mb": cost["peak_memory_mb"],
    }


def _project(folder: Path, pairs: int) -> None:
    for name in NEEDED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target)
    settings = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
    settings["pairs"]["judge"] = False
    (folder / PARAMS).write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copytree(ROOT / "data/exam", folder / "data/exam")
    for stage in ("responses", "revisions"):
        files.write_json(folder / f"metrics/{stage}.json", ABOUT)
    words = re.findall(r"[a-z]{2,}", CONSTITUTION.read_text(encoding="utf-8").lower())
    prompts = -(-pairs // len(PRINCIPLES))
    _write(folder / "data/prompts/train.jsonl", _prompts(words, prompts, "train"))
    _write(folder / "data/prompts/eval.jsonl", _prompts(words, 100, "eval"))
    _write(folder / "data/responses.jsonl", _responses(words, prompts))
    _write(folder / "data/revisions.jsonl", _revisions(words, pairs))


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _prompts(words: list[str], count: int, side: str) -> Iterator[dict[str, Any]]:
    for at in range(count):
        drawn = random.Random(f"{side} {at}")
        yield {
            "prompt_id": f"{at:016x}",
            "text": f"{_text(words, drawn, 12, 30)}?",
            "source": "contemplative",
            "source_id": str(at),
            "hazard": HAZARDS[at % len(HAZARDS)],
            "persona": "unskilled",
            "principle": PRINCIPLES[at % len(PRINCIPLES)],
            "split": side,
        }


def _responses(words: list[str], count: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        drawn = random.Random(f"response {at}")
        yield _completion(f"{at:016x}", _text(words, drawn, 30, 70), drawn)


def _revisions(words: list[str], count: int) -> Iterator[dict[str, Any]]:
    shown = {principle.slug: principle.examples[0].revision for principle in principles.load(CONSTITUTION).principles}
    for at in range(count):
        prompt, principle = divmod(at, len(PRINCIPLES))
        drawn = random.Random(f"revision {at}")
        text = _text(words, drawn, 30, 70)
        fault = drawn.random()
        if fault < 0.02:
            text = _text(words, random.Random(f"response {prompt}"), 30, 70)  # the answer again
        elif fault < 0.04:
            text = f"Here is the revised answer: {text}"
        elif fault < 0.05:
            text = f"{text} " * 6
        elif fault < 0.06:
            text = " ".join(text.split()[:3])
        elif fault < 0.07:
            text = f"{shown[PRINCIPLES[principle]]} {text}"
        labels = {"principle": PRINCIPLES[principle], "round": 1, "principle_sha256": "0" * 64, "parent": "0" * 64}
        yield _completion(f"{prompt:016x}", text, drawn) | labels


def _completion(prompt_id: str, text: str, drawn: random.Random) -> dict[str, Any]:
    reason = "length" if drawn.random() < 0.03 else "stop"
    tokens = len(text.split())
    return {**COMPLETION, "prompt_id": prompt_id, "text": text, "finish_reason": reason, "completion_tokens": tokens}


def _text(words: list[str], drawn: random.Random, least: int, most: int) -> str:
    return " ".join(drawn.choices(words, k=drawn.randint(least, most))).capitalize()


if __name__ == "__main__":
    run(main)
