"""The same work by every contender, side by side in one run, and how near ours comes to the machine's limit.

    python -m bench.generation --prompts 128 --source ailuminate --dtype float32
    python -m bench.generation --prompts 4 --seconds-each 10 --contenders naive,fixed-8,ours

The work is that of the stages responses, critiques and revisions for `--prompts` prompts of one source. Ours does
all of it. The others do a sample: whole batches, in turn from the three stages, until `--seconds-each` are over,
with at least one batch of each stage. Their time for the whole work is Σ over stages of completions x mean seconds
a completion; the rates follow from it. Loading a model and one short completion first are in nobody's time.

Contenders: naive, fixed-N, sorted-N, continuous-N, llama.cpp, ours; see bench/contenders.py.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import machine, roofline, work
from bench.work import STAGES, Item, Work
from ccai.base.errors import UserError, run
from ccai.base.files import read_json
from ccai.prompts import sources

OURS = "ours"
CONTENDERS = "naive,fixed-8,fixed-16,fixed-32,fixed-64,continuous-16,llama.cpp,ours"
NAME = re.compile(r"naive|(fixed|sorted|continuous)-[1-9]\d*|llama\.cpp|ours")

COLUMNS = {
    "contender": "",
    "completions_done": "done",
    "whole_work_seconds": "all, s",
    "standard_error": "±",
    "completions_per_second": "compl/s",
    "tokens_per_second": "gen tok/s",
    "prompt_tokens_per_second": "prompt tok/s",
    "positions": "positions",
    "padding": "padding",
    "stopped": "stop",
    "cut": "length",
    "same_texts": "same texts",
    "peak_memory_mb": "peak MB",
    "ours_is_faster": "ours is",
}
"""Fields of a row and their headings in the table."""


@dataclass(frozen=True)
class Run:
    """What a contender did: its batches (fields as in contenders.Batch) and the most bytes it held."""

    batches: list[dict[str, Any]]
    peak_memory: int

    def whole(self, total: dict[str, int], field: str) -> float:
        """A field for the whole work: completions of a stage times its mean, summed over stages."""
        return sum(total[stage] * self.mean(stage, field) for stage in STAGES)

    def standard_error(self, total: dict[str, int]) -> float | None:
        """Of the whole work's seconds, from how a stage's batches differ; None where a stage has one batch only."""
        variance = 0.0
        for stage in STAGES:
            means = [batch["seconds"] / len(batch["outcomes"]) for batch in self.batches if batch["stage"] == stage]
            if len(means) < 2:
                return None
            variance += total[stage] ** 2 * statistics.variance(means) / len(means)
        return float(variance**0.5)

    @property
    def outcomes(self) -> dict[int, tuple[str, int, str]]:
        """By item: digest of the text, completion tokens, finish reason."""
        return {index: (text, n, reason) for batch in self.batches for index, text, n, reason in batch["outcomes"]}

    def mean(self, stage: str, field: str) -> float:
        """A field for one completion of a stage."""
        batches = [batch for batch in self.batches if batch["stage"] == stage]
        return float(sum(batch[field] for batch in batches) / sum(len(batch["outcomes"]) for batch in batches))


def compete(name: str, path: Path, options: argparse.Namespace, number: int, longest: bool = False) -> Run | None:
    """Run a contender in a process of its own; None if that did not come through, which is printed."""
    out = path.with_name(f"{name}.json")
    arguments = ["--dtype", options.dtype, "--seconds", options.seconds_each, "--round", number]
    arguments += ["--longest"] if longest else []
    arguments += ["--gguf", options.gguf] if options.gguf else []
    print(f"round {number}: {name}{' on the longest prompts, for its memory' if longest else ''}", flush=True)
    code = machine.alone("bench.contenders", name, path, out, *arguments)
    if code:
        print(f"{name}: ended with {code}; left out", flush=True)
        return None
    return Run(**read_json(out))


def row(name: str, runs: Sequence[Run], ours: Sequence[Run], todo: Work) -> dict[str, Any]:
    """The numbers of one contender."""
    total = work.count(todo.items)
    all_of = Run([batch for run in runs for batch in run.batches], max(run.peak_memory for run in runs))
    seconds = statistics.median(run.whole(total, "seconds") for run in runs)
    outcomes, reference = all_of.outcomes, ours[0].outcomes
    same = sum(outcomes[index][0] == reference[index][0] for index in outcomes)
    reasons = Counter(reason for _, _, reason in outcomes.values())
    counted = all(batch["positions"] is not None for batch in all_of.batches)
    positions = all_of.whole(total, "positions") if counted else None
    least = sum(_distinct(todo.items).values()) + sum(_steps(end) for end in reference.values())
    padding = None
    if positions and name == OURS:
        padding = 1 - least / positions
    elif positions and not name.startswith("continuous"):  # which shares pages: not to be told from padding
        steps = Run([{**b, "steps": sum(_steps(end[1:]) for end in b["outcomes"])} for b in all_of.batches], 0)
        padding = 1 - (all_of.whole(total, "prompt_tokens") + steps.whole(total, "steps")) / positions
    return {
        "completions_done": len(outcomes),
        "whole_work_seconds": seconds,
        "each_round": [run.whole(total, "seconds") for run in runs],
        "standard_error": all_of.standard_error(total),
        "completions_per_second": len(todo.items) / seconds,
        "tokens_per_second": all_of.whole(total, "completion_tokens") / seconds,
        "prompt_tokens_per_second": all_of.whole(total, "prompt_tokens") / seconds,
        "seconds_by_stage": {stage: total[stage] * all_of.mean(stage, "seconds") for stage in STAGES},
        "positions": positions and positions / least,
        "padding": padding,
        "stopped": reasons["stop"],
        "cut": reasons["length"],
        "same_texts": same / len(outcomes),
        "peak_memory_mb": all_of.peak_memory / 1e6,
        "ours_is_faster": seconds / statistics.median(run.whole(total, "seconds") for run in ours),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows under headings, in columns."""
    cells = [list(COLUMNS.values())]
    for name, values in rows.items():
        cells.append([_cell(key, ({"contender": name} | values)[key]) for key in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(columns))
        for columns in ([*zip(line, widths, strict=True)] for line in cells)
    )


def describe(options: argparse.Namespace, todo: Work) -> dict[str, Any]:
    """The work, in numbers."""
    stages = {}
    for stage in STAGES:
        items = [item for item in todo.items if item.stage == stage]
        stages[stage] = {
            "completions": len(items),
            "prompt_tokens_mean": statistics.mean(item.prompt_tokens for item in items),
            "prompt_tokens_max": max(item.prompt_tokens for item in items),
            "shared_tokens_mean": statistics.mean(item.shared_tokens for item in items),
            "max_new_tokens": items[0].request.max_new_tokens,
        }
    chosen = {name: vars(options)[name] for name in ("prompts", "principles", "examples", "greedy", "dtype")}
    sampling = todo.items[0].request.sampling.model_dump()
    source = sources.named(options.source).name
    return chosen | {"source": source, "seed": todo.seed, "sampling": sampling, "stages": stages}


def limits(path: Path, options: argparse.Namespace) -> roofline.Machine:
    """Measured now, in a process of its own."""
    out = path.with_name("limits.json")
    code = machine.alone("bench.limits", "--dtype", options.dtype, "--model", options.model, "--out", out)
    if code:
        raise SystemExit(code)
    return roofline.load(read_json(out))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work.add_options(parser)
    machine.add_results(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--contenders", default=CONTENDERS, help="default: %(default)s")
    parser.add_argument("--seconds-each", type=float, default=120, help="but ours, which does all (default: 120)")
    parser.add_argument("--rounds", type=int, default=1, help="of all contenders, one after another; medians")
    parser.add_argument("--gguf", type=Path, help="weights for llama.cpp")
    options = parser.parse_args()
    names = _names(options)
    path, todo = work.prepare(options)
    about = describe(options, todo)
    for stage, numbers in about["stages"].items():
        print(
            f"{stage}: {numbers['completions']} completions of up to {numbers['max_new_tokens']} tokens, prompts of "
            f"{numbers['prompt_tokens_mean']:.0f} tokens, {numbers['shared_tokens_mean']:.0f} of them shared"
        )
    before = limits(path, options)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(1, options.rounds + 1):
        for name in names:
            if done := compete(name, path, options, number):
                runs[name].append(done)
    if not runs[OURS]:
        raise SystemExit(1)
    runs = {name: there for name, there in runs.items() if there}
    rows = {name: row(name, there, runs[OURS], todo) for name, there in runs.items()}
    fixed = [name for name in rows if name.startswith("fixed")]
    best = min(fixed, key=lambda name: rows[name]["whole_work_seconds"]) if fixed else None
    if best and (longest := compete(best, path, options, options.rounds, longest=True)):
        rows[best]["peak_memory_mb"] = max(rows[best]["peak_memory_mb"], longest.peak_memory / 1e6)
    peaks = roofline.best(before, limits(path, options))
    ends = [runs[OURS][0].outcomes[index][1:] for index in range(len(todo.items))]
    bound = roofline.least(peaks, todo.items, ends)
    summary = _summary(rows, best, bound)
    print(f"\n{machine.describe()['processor']}, {machine.threads()} threads, {options.dtype}")
    print(f"{table(rows)}\n\n{roofline.report(peaks)}\n{_phases(bound)}\n")
    print("\n".join(f"{key.replace('_', ' ')}: {value:.3g}" for key, value in summary.items()))
    name = f"generation-{options.dtype}{'-greedy' if options.greedy else ''}"
    values = {"work": about, "summary": summary, "best_fixed": best, "contenders": rows}
    values |= {"limits": asdict(peaks), "least": bound}
    print(f"written: {machine.write(options.results, name, 'bench.generation', sys.argv[1:], values)}")


def _names(options: argparse.Namespace) -> list[str]:
    names = options.contenders.split(",")
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(f"--contenders: {name}: no such contender; there are those of {CONTENDERS}, N any number")
    if "llama.cpp" in names and (find_spec("llama_cpp") is None or not options.gguf):
        print("llama.cpp: left out; it needs the package llama-cpp-python[server] and --gguf FILE")
        names.remove("llama.cpp")
    return names if OURS in names else [*names, OURS]


def _steps(end: Sequence[Any]) -> int:
    """Decoding steps of a completion, from its (…, tokens, finish reason): one fewer where the limit cut it."""
    return int(end[-2]) - int(end[-1] == "length")


def _distinct(items: Sequence[Item]) -> dict[str, int]:
    """Prompt tokens that differ, by stage: what a group shares counts once."""
    tokens = dict.fromkeys(STAGES, 0)
    for item in items:
        tokens[item.stage] += item.prompt_tokens - item.shared_tokens
    for stage, shared in {item.group: (item.stage, item.shared_tokens) for item in items}.values():
        tokens[stage] += shared
    return tokens


def _summary(rows: dict[str, dict[str, Any]], best: str | None, bound: dict[str, Any]) -> dict[str, float]:
    ours = rows[OURS]
    summary = {f"ours_over_{name}": values["ours_is_faster"] for name, values in rows.items() if name != OURS}
    if best:
        summary["ours_over_best_fixed"] = rows[best]["ours_is_faster"]
        summary["memory_over_best_fixed"] = ours["peak_memory_mb"] / rows[best]["peak_memory_mb"]
    summary["least_seconds"] = bound["seconds"]
    summary["share_of_the_limit"] = bound["seconds"] / ours["whole_work_seconds"]
    summary["share_of_the_overlapped_limit"] = bound["overlapped"] / ours["whole_work_seconds"]
    return summary


def _phases(bound: dict[str, Any]) -> str:
    lines = [
        f"  {name:<18}{phase['flops'] / 1e12:8.2f} TFLOP {phase['seconds_of_flops']:8.1f} s"
        f"{phase['bytes'] / 1e9:9.1f} GB  least {phase['seconds']:8.1f} s"
        for name, phase in bound["phases"].items()
    ]
    return "\n".join(["the least time for this work:", *lines])


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key in ("padding", "same_texts"):
        return f"{value:.0%}"
    if key in ("positions", "ours_is_faster"):
        return f"{value:.2f}x"
    if key in ("completions_per_second",):
        return f"{value:.2f}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run(main)
