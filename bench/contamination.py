"""The contamination gate at size: every pair of a training and an evaluation prompt that nearly equal each other.

    python -m bench.contamination

Prompts are synthetic: words of syllables, drawn with the frequencies of a natural language (Zipf), so that grams are
as unevenly spread as in real text. A share of the training prompts are evaluation prompts with some words replaced,
from a single one to half of them, so that cosines lie on both sides of the threshold. Each part runs in a process of
its own, for its memory: `gate` compares training with evaluation prompts, `groups` training prompts with each other,
as the split does. Recall is against cosines computed one by one on sets, for a sample of the evaluation prompts
and all training prompts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import machine
from ccai.base.errors import run
from ccai.base.files import read_json, write_json
from ccai.prompts import near_duplicates

VOCABULARY = 30_000
WORDS = (8, 40)
"""Fewest and most words of a prompt."""
COPIES = 0.05
"""Share of the training prompts that are made from an evaluation prompt."""


def made(training: int, evaluation: int, seed: int) -> tuple[list[str], list[str]]:
    """Training and evaluation prompts; the same for the same seed."""
    draw = random.Random(seed)
    syllables = [a + b for a in ("", *"bcdfghjklmnprstvw", "st", "tr", "ch", "pl") for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.choice((1, 2, 2, 3, 3, 4)))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))

    def write(count: int) -> list[str]:
        return draw.choices(words, cum_weights=weights, k=count)

    held_out = [write(draw.randint(*WORDS)) for _ in range(evaluation)]
    prompts = []
    for _ in range(training):
        if draw.random() < COPIES:
            prompt = list(draw.choice(held_out))
            for at in draw.sample(range(len(prompt)), k=draw.randint(1, len(prompt) // 2)):
                [prompt[at]] = write(1)
        else:
            prompt = write(draw.randint(*WORDS))
        prompts.append(prompt)
    return [" ".join(prompt) for prompt in prompts], [" ".join(prompt) for prompt in held_out]


def gate(training: list[str], evaluation: list[str], threshold: float, sample: int) -> dict[str, object]:
    """Pairs found, seconds, and how many of a sample's true pairs are among them."""
    start = time.perf_counter()
    found = {
        (int(left), int(right))
        for pairs in near_duplicates.similar(training, evaluation, threshold)
        for left, right in zip(pairs.left, pairs.right, strict=True)
    }
    seconds = time.perf_counter() - start
    peak = machine.peak_memory()
    chosen = random.Random(1).sample(range(len(evaluation)), min(sample, len(evaluation)))
    true = exact(training, {at: evaluation[at] for at in chosen}, threshold)
    sampled = {pair for pair in found if pair[1] in set(chosen)}
    return {
        "pairs": len(found),
        "training_prompts": len({left for left, _ in found}),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak / 1e6),
        "sample": {
            "evaluation_prompts": len(chosen),
            "true_pairs": len(true),
            "recall": len(true & sampled) / len(true) if true else None,
            "false_pairs": len(sampled - true),
        },
    }


def exact(training: list[str], evaluation: dict[int, str], threshold: float) -> set[tuple[int, int]]:
    """The pairs by comparing every set with every set, in plain Python."""
    sets = {at: near_duplicates.grams(text) for at, text in evaluation.items()}
    pairs = set()
    for left, text in enumerate(training):
        here = near_duplicates.grams(text)
        for right, there in sets.items():
            if len(here & there) >= threshold * math.sqrt(len(here) * len(there)):
                pairs.add((left, right))
    return pairs


def groups(training: list[str], threshold: float) -> dict[str, object]:
    """Groups of near-duplicates among the training prompts, and seconds."""
    start = time.perf_counter()
    sizes = Counter(near_duplicates.groups(training, threshold)).values()
    return {
        "groups_of_several": sum(size > 1 for size in sizes),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_mb": round(machine.peak_memory() / 1e6),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.contamination", description="The contamination gate.")
    parser.add_argument("--training", type=int, default=100_000, help="training prompts (default: %(default)s)")
    parser.add_argument("--evaluation", type=int, default=10_000, help="evaluation prompts (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.7, help="cosine (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=200, help="evaluation prompts checked one by one")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--part", choices=("gate", "groups"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    machine.add_results(parser)
    options = parser.parse_args()
    if options.part:
        training, evaluation = made(options.training, options.evaluation, options.seed)
        measured = (
            gate(training, evaluation, options.threshold, options.sample)
            if options.part == "gate"
            else groups(training, options.threshold)
        )
        write_json(options.out, measured)
        return
    values: dict[str, object] = {key: vars(options)[key] for key in ("training", "evaluation", "threshold", "seed")}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("gate", "groups"):
            out = Path(folder) / f"{part}.json"
            if code := machine.alone("bench.contamination", *sys.argv[1:], "--part", part, "--out", out):
                raise SystemExit(code)
            values[part] = read_json(out)
            print(f"{part}: {json.dumps(values[part])}", flush=True)
    path = machine.write(options.results, "contamination", "bench.contamination", sys.argv[1:], values)
    print(f"written: {path}")


if __name__ == "__main__":
    run(main)
