"""The train stage against a bare TRL script: the same pairs and settings, side by side in one run.

    python -m bench.training
    python -m bench.training --pairs ../other/data/pairs --rounds 3

Each contender trains in a process of its own, by turns, by DPO with LoRA; all else is that of params.yaml. Both take
the same optimizer steps on the same pairs in the same order. What each number has in it:

- `seconds`, and `cpu_seconds` of all threads: the steps from first to last, checkpoints among them. The reference's
  log-probs are computed in them by both. Neither evaluates in them; but what a process spends once, on memory and
  threads, falls into the stage's evaluation before them and into the script's first step.
- `loop_seconds`: the trainer's `train()`. The stage's has the evaluation of the validation pairs before the first step
  in it; the script makes none there. So the truth lies between `seconds` and this.
- `whole_seconds`: the process from its start to its end, with imports, loading and saving. The stage evaluates before
  and after, and measures rewards and divergence; the script evaluates once, after.

Tokens are those of prompt and completion of both sides of each pair, without padding, times the epochs. Memory is the
most that the process held, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench import machine
from ccai.base import cache, params
from ccai.base.errors import UserError, run
from ccai.base.files import read_json, write_json, write_text
from ccai.models import find

CONTENDERS = ("ours", "trl")
EACH = ("seconds", "cpu_seconds", "loop_seconds", "whole_seconds", "peak_memory")
RATES = {
    "tokens_per_second": "seconds",
    "tokens_per_cpu_second": "cpu_seconds",
    "loop_tokens_per_second": "loop_seconds",
    "whole_tokens_per_second": "whole_seconds",
}
RECIPE = {"method": "dpo", "adapter": "lora", "nll_coefficient": 0, "processes": 1, "sharding": "none"}


def project(folder: Path, pairs: Path, model: str) -> params.Params:
    """What the train stage reads, in a folder of its own; returns the parameters."""
    values = params.load().model_dump(mode="json")
    values["train"] |= RECIPE
    values["models"]["train"] = str(Path(model).absolute()) if Path(model).is_dir() else model
    write_text(folder / "params.yaml", yaml.safe_dump(values))
    shutil.copytree("conf", folder / "conf")
    shutil.copytree(pairs, folder / "data/pairs")
    (folder / "data/prompts").mkdir()
    shutil.copy("data/prompts/eval.jsonl", folder / "data/prompts")
    (folder / "cache").mkdir()
    (folder / "cache/models").symlink_to(cache.folder("models").absolute())
    return params.load(folder / "params.yaml")


def compete(name: str, folder: Path, model: Path, number: int) -> dict[str, Any]:
    """One contender's numbers, from a process of its own."""
    out = folder / f"{name}-{number}.json"
    if name == "ours":
        shutil.rmtree(folder / "cache/training", ignore_errors=True)  # else it would find the last round's
        arguments: list[object] = ["bench.train_stage", "--project", folder]
    else:
        arguments = ["bench.trl_script", "--model", model, "--data", folder / "data/pairs", "--save", folder / name]
        arguments += ["--settings", folder / "settings.json"]
        shutil.rmtree(folder / name, ignore_errors=True)
    started = time.perf_counter()
    code = machine.alone(str(arguments[0]), *arguments[1:], "--out", out)
    if code:
        raise SystemExit(code)
    return read_json(out) | {"whole_seconds": time.perf_counter() - started}


def summary(rounds: dict[str, list[dict[str, Any]]], tokens: int) -> dict[str, Any]:
    """Medians by contender, and ours over the script's: rates above 1 and memory below 1 are to our credit."""
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in rounds.items():
        rows[name] = {
            **{rate: statistics.median(tokens / run[spent] for run in runs) for rate, spent in RATES.items()},
            "peak_memory_mb": statistics.median(run["peak_memory"] for run in runs) / 1e6,
            "steps": runs[0]["steps"],
            "first_loss": runs[0]["losses"][0],
            "last_loss": runs[0]["losses"][-1],
            "validation_loss": runs[0]["validation_loss"],
            "each_round": [{key: run[key] for key in EACH} for run in runs],
        }
    ratios = {key: rows["ours"][key] / rows["trl"][key] for key in (*RATES, "peak_memory_mb")}
    paired = [script["seconds"] / ours["seconds"] for ours, script in zip(rounds["ours"], rounds["trl"], strict=True)]
    return {"ours_over_trl": ratios | {"each_round": paired}, "contenders": rows}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    machine.add_results(parser)
    parser.add_argument("--model", default=params.load().models.train, help="as in params.yaml (default: %(default)s)")
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="folder (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of both, one after the other (default: %(default)s)")
    options = parser.parse_args()
    if not (options.pairs / "train.jsonl").is_file():
        raise UserError(f"{options.pairs}: no train.jsonl in it; make pairs first (dvc repro pairs)")
    with tempfile.TemporaryDirectory(dir=cache.folder("bench")) as scratch:
        folder = Path(scratch).absolute()
        settings = project(folder, options.pairs, options.model)
        model = find.find(settings.models.train)
        used = settings.train.model_dump() | {"seed": settings.seed}
        write_json(folder / "settings.json", used)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for number in range(1, options.rounds + 1):
            for name in CONTENDERS if number % 2 else reversed(CONTENDERS):
                print(f"round {number}: {name}", flush=True)
                rounds[name].append(compete(name, folder, model.folder.absolute(), number))
    tokens = rounds["trl"][0]["tokens"]
    found = summary(rounds, tokens)
    for name, row in found["contenders"].items():
        print(
            f"{name}: {row['tokens_per_second']:.1f} tokens/s in the steps, {row['whole_tokens_per_second']:.1f} in "
            f"the whole process, {row['peak_memory_mb']:.0f} MB, loss {row['first_loss']:.4f} → {row['last_loss']:.4f}"
        )
    print(f"ours over trl: {json.dumps(found['ours_over_trl'])}")
    values = {"model": [model.name, model.revision], "settings": used, "tokens": tokens, **found}
    print(f"written: {machine.write(options.results, 'training', 'bench.training', sys.argv[1:], values)}")


if __name__ == "__main__":
    run(main)
