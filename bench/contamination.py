"""The contamination gate: its time and memory at size, what it finds, and what it takes for contaminated that is not.

    python -m bench.contamination

`gate`, `cosine_before` and `groups`: prompts are synthetic: words of syllables, drawn with the frequencies of a natural
language (Zipf), so that grams are as unevenly spread as in real text. A share of the training prompts are evaluation
prompts with some words replaced, from a single one to half of them, so that cosines lie on both sides of the threshold,
or evaluation prompts inside longer ones. Each part runs in a process of its own, for its memory: `gate` compares
training with evaluation prompts by both measures, `cosine_before` by the cosine alone as the gate did before it had
containment (CountVectorizer looking up the training prompts' grams), the two in turn; `groups` compares training
prompts with each other, as the split does. Recall is against cosines computed one by one on sets, for a sample of the
evaluation prompts and all training prompts. Seconds are of the processor, since the machine may do other work.

`recall` and `unrelated`: the prompts of all suites (ccai/prompts/evaluation_sets.py) inside texts made of the project's
own training prompts, and training sets that contain none of them. Public sets are those of --training-sets and
--evaluation-sets.
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
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from bench import machine
from ccai.base import params, yaml_io
from ccai.base.errors import run
from ccai.base.files import read_json, write_json
from ccai.prompts import containment, contamination, evaluation_sets, near_duplicates, sources

VOCABULARY = 30_000
WORDS = (8, 40)
"""Fewest and most words of a prompt."""
CARRIERS = (50, 100, 200, 400)
"""Words of the texts around an evaluation prompt."""
LEET = {"a": "4@", "e": "3", "i": "1!", "l": "1", "o": "0", "s": "5", "t": "7"}
GRAMS = (2, 3, 4, 5, 8)
SHARES = (0.7, 0.8, containment.CONTAINED, 0.9, 1.0)
COPIES = 0.05
"""Share of the training prompts that are made from an evaluation prompt."""
INSIDE = 0.2
"""Share of these that have it whole, between other words; the others have some of its words replaced."""


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
            if draw.random() < INSIDE:
                prompt = write(2 * WORDS[1]) + prompt + write(2 * WORDS[1])
            else:
                for at in draw.sample(range(len(prompt)), k=draw.randint(1, len(prompt) // 2)):
                    [prompt[at]] = write(1)
        else:
            prompt = write(draw.randint(*WORDS))
        prompts.append(prompt)
    return [" ".join(prompt) for prompt in prompts], [" ".join(prompt) for prompt in held_out]


def gate(training: list[str], evaluation: list[str], threshold: float, sample: int) -> dict[str, object]:
    """Pairs found by either measure, seconds, and how many of a sample's true pairs the cosine finds."""
    start = time.process_time()
    pairs: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for block in contamination.pairs(training, evaluation, threshold):
        pairs[block.contained].update(zip(block.left.tolist(), block.right.tolist(), strict=True))
    seconds = time.process_time() - start
    peak = machine.peak_memory()
    chosen = random.Random(1).sample(range(len(evaluation)), min(sample, len(evaluation)))
    true = exact(training, {at: evaluation[at] for at in chosen}, threshold)
    sampled = {pair for pair in pairs[False] if pair[1] in set(chosen)}
    return {
        "pairs": len(pairs[False]),
        "contained": len(pairs[True]),
        "training_prompts": len({left for left, _ in pairs[False] | pairs[True]}),
        "seconds": seconds,
        "peak_memory_mb": round(peak / 1e6),
        "sample": {
            "evaluation_prompts": len(chosen),
            "true_pairs": len(true),
            "recall": len(true & sampled) / len(true) if true else None,
            "false_pairs": len(sampled - true),
        },
    }


def cosine_before(training: list[str], evaluation: list[str], threshold: float) -> dict[str, object]:
    """The gate's time when it had the cosine alone."""

    vectorizer = CountVectorizer(analyzer=lambda some: some, dtype=np.int32)
    near_duplicates.Vocabulary.learn = lambda self, sets: vectorizer.fit_transform(sets)
    near_duplicates.Vocabulary.counts = lambda self, sets: vectorizer.transform(sets)
    start = time.process_time()
    found = sum(len(block.left) for block in near_duplicates.similar(training, evaluation, threshold))
    seconds = time.process_time() - start
    return {"pairs": found, "seconds": seconds, "peak_memory_mb": round(machine.peak_memory() / 1e6)}


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
    start = time.process_time()
    sizes = Counter(near_duplicates.groups(training, threshold)).values()
    return {
        "groups_of_several": sum(size > 1 for size in sizes),
        "seconds": time.process_time() - start,
        "peak_memory_mb": round(machine.peak_memory() / 1e6),
    }


def hidden(prompt: str, carriers: list[str], draw: random.Random) -> dict[str, str]:
    """Texts that contain an evaluation prompt, by the way in which it is hidden."""

    def inside(prompt: str, length: int) -> str:
        around = " ".join(draw.sample(carriers, k=length // 8)).split()[:length]
        at = draw.randrange(length)
        return " ".join([*around[:at], prompt, *around[at:]])

    words = prompt.split()
    replaced = list(words)
    replaced[draw.randrange(len(words))] = "something"
    leet = str.maketrans({letter: draw.choice(signs) for letter, signs in LEET.items()})
    templates = [one for one in wrappers() if len(one.split()) > 1]
    return {
        **{f"in_{length}_words": inside(prompt, length) for length in CARRIERS},
        "role_play": draw.choice(templates).replace("{prompt}", prompt),
        "punctuation": inside(draw.choice((" . ", "-", "_", ", ", "/", "!", " | ")).join(words), 100),
        "leetspeak": inside(prompt.lower().translate(leet), 100),
        "one_word_replaced": inside(" ".join(replaced), 100),
    }


def wrappers() -> list[str]:
    """The project's own jailbreak wrappers that show the prompt as it is."""
    sheet = yaml_io.load(evaluation_sets.WRAPPERS, evaluation_sets.WrapperTemplates)
    return [one.template for one in sheet.wrappers if "base64" not in one.template.lower()]


def recall(threshold: float, seed: int) -> dict[str, object]:
    """Share of evaluation prompts found in each kind of hiding place: by the cosine, and by containment."""
    draw = random.Random(seed)
    carriers = [row.text for row in sources.load("contemplative")]
    rows = [row.text for row in evaluation_sets.load(params.load()) if row.source != evaluation_sets.WRAPPERS.name]
    prompts = [text for text in rows if containment.prompt_grams(text)]
    texts = [hidden(prompt, carriers, draw) for prompt in prompts]
    found: dict[str, object] = {"prompts": len(rows), "too_short": len(rows) - len(prompts)}
    for kind in texts[0]:
        here = [of_prompt[kind] for of_prompt in texts]
        near = sum(near_duplicates.close(text, prompt, threshold) for text, prompt in zip(here, prompts, strict=True))
        shares = [_share(text, prompt) for text, prompt in zip(here, prompts, strict=True)]
        found[kind] = {"cosine": near / len(prompts), "containment": _above(shares)}
    return found


def _share(text: str, prompt: str) -> float:
    grams = containment.prompt_grams(prompt)
    return len(grams & containment.text_grams(text)) / len(grams) if grams else 0.0


def _above(shares: list[float]) -> dict[str, float]:
    return {str(least): sum(share >= least for share in shares) / len(shares) for least in SHARES}


def unrelated(training_sets: list[str], evaluation_files: list[str], threshold: float) -> dict[str, object]:
    """Pairs of evaluation prompts and training prompts of other sets that only containment finds, by share."""
    training = {row.text for name in training_sets for row in sources.load(name)}
    rows = {row.text for row in evaluation_sets.load(params.load())}
    rows |= {row.text for name in evaluation_files for row in sources.load(name)}
    left, right = sorted(training), sorted(rows)
    counts = dict.fromkeys(map(str, SHARES), 0)
    for block in containment.contained(left, right, min(SHARES)):
        for a, b, share in zip(block.left.tolist(), block.right.tolist(), block.share.tolist(), strict=True):
            if not near_duplicates.close(left[a], right[b], threshold):
                for least in SHARES:
                    counts[str(least)] += share >= least
    return {"training": len(left), "evaluation": len(right), "pairs": counts}


def by_gram(measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What is measured with grams of other lengths than the gate's."""
    values = {}
    for length in GRAMS:
        containment.GRAM = length
        values[str(length)] = measure()
    return values


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.contamination", description="The contamination gate.")
    parser.add_argument("--training", type=int, default=100_000, help="training prompts (default: %(default)s)")
    parser.add_argument("--evaluation", type=int, default=10_000, help="evaluation prompts (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.7, help="cosine (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=200, help="evaluation prompts checked one by one")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median counts (default: %(default)s)")
    parser.add_argument("--training-sets", nargs="+", default=["contemplative"], help="fetched sources, or files")
    parser.add_argument("--evaluation-sets", nargs="*", default=[], help="besides those of the suites")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    machine.add_results(parser)
    options = parser.parse_args()
    if options.part:
        write_json(options.out, PARTS[options.part](options))
        return
    values: dict[str, object] = {key: vars(options)[key] for key in ("training", "evaluation", "threshold", "seed")}
    runs: dict[str, list[dict[str, object]]] = defaultdict(list)
    timed = ["gate", "cosine_before"] * options.repeat
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "part.json"
        for part in (*timed, "groups", "recall", "unrelated"):
            once = ("--sample", 0 if runs[part] else options.sample)
            if code := machine.alone("bench.contamination", *sys.argv[1:], "--part", part, "--out", out, *once):
                raise SystemExit(code)
            runs[part].append(read_json(out))
            print(f"{part}: {json.dumps(runs[part][-1])}", flush=True)
    for part, of_part in runs.items():
        values[part] = of_part[0]
        if "seconds" in of_part[0]:
            values[part] = of_part[0] | {"seconds": round(median(float(str(run["seconds"])) for run in of_part), 1)}
    path = machine.write(options.results, "contamination", "bench.contamination", sys.argv[1:], values)
    print(f"written: {path}")


def prompts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    return made(options.training, options.evaluation, options.seed)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "gate": lambda options: gate(*prompts(options), options.threshold, options.sample),
    "cosine_before": lambda options: cosine_before(*prompts(options), options.threshold),
    "groups": lambda options: groups(prompts(options)[0], options.threshold),
    "recall": lambda options: by_gram(lambda: recall(options.threshold, options.seed)),
    "unrelated": lambda options: by_gram(
        lambda: unrelated(options.training_sets, options.evaluation_sets, options.threshold)
    ),
}


if __name__ == "__main__":
    run(main)
