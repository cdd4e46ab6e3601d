"""A label's score against a verdict of 64 written tokens, for the judge's own question.

    python -m bench.scoring

Both are asked one at a time and all together. All together, scores are asked for in both orders of A and B, as judges
do, and the time is that of one of them. Shares compare like with like; `in use` compares scores all together with a
verdict written one at a time. A score costs the question's prefill, a verdict the same and 64 steps: the longer the
question, the larger the share, whatever the engine.

A verdict counts only if it is 64 tokens long: the question ends with a demand for reasons instead of one letter,
verdicts that end earlier are put aside, and their questions with them. Seconds are medians over `--rounds`; scoring
and writing take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch

from bench import machine, work
from bench.prepare import Tokenizer
from ccai.base.errors import UserError, run
from ccai.base.hashing import seed_for
from ccai.base.params import Hardware
from ccai.base.records import Message
from ccai.engines.base import Engine, Request
from ccai.engines.transformers import Transformers
from ccai.judge.judge import HARM, KEEPS, VIOLATES, VIOLATION
from ccai.models import find, placement

LABELS = ("A", "B")
VERDICT_TOKENS = 64
SHORT, LONG = "Reply with one letter, A or B.", "Reply with one letter, then explain your choice in a long paragraph."


@dataclass(frozen=True)
class Timing:
    """Seconds for one question, by how they were asked."""

    score_alone: float
    verdict_alone: float
    score_together: float
    verdict_together: float


def questions(todo: work.Work, first: str, second: str) -> list[str]:
    """The judge's question for each answer of the work, with its options in that order."""
    return [
        VIOLATION.format(rule=HARM, prompt=prompt, answer=answer, first=first, second=second)
        for prompt, answer in todo.answers
    ]


def verdict(question: str, todo: work.Work) -> Request:
    """The question, to be answered in writing."""
    turn = Message(role="user", content=question.replace(SHORT, LONG))
    return Request((turn,), 0, seed_for(todo.seed, "verdict", question), VERDICT_TOKENS, todo.items[0].request.sampling)


def long_enough(engine: Engine, asked: list[str], todo: work.Work) -> list[str]:
    """Questions whose verdict is cut at 64 tokens."""
    batches = engine.complete([verdict(question, todo) for question in asked])
    return [asked[index] for batch in batches for index, done in batch if done.finish_reason == "length"]


def measure(engine: Engine, asked: list[str], alone: list[str], todo: work.Work) -> Timing:
    """One round; `alone` are the questions that are asked one at a time."""
    swapped = dict(zip(questions(todo, VIOLATES, KEEPS), questions(todo, KEEPS, VIOLATES), strict=True))

    def score(texts: list[str]) -> Iterable[object]:
        return engine.score([[Message(role="user", content=text)] for text in texts], LABELS)

    def write(texts: list[str]) -> Iterable[object]:
        return engine.complete([verdict(text, todo) for text in texts])

    def one_by_one(ask: Callable[[list[str]], Iterable[object]]) -> float:
        return sum(_seconds(ask, [text]) for text in alone) / len(alone)

    return Timing(
        one_by_one(score),
        one_by_one(write),
        _seconds(score, [order for text in asked for order in (text, swapped[text])]) / (2 * len(asked)),
        _seconds(write, asked) / len(asked),
    )


def _seconds(ask: Callable[[list[str]], Iterable[object]], texts: list[str]) -> float:
    start = time.monotonic()
    list(ask(texts))
    return time.monotonic() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work.add_options(parser)
    machine.add_results(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=8, help="questions asked one at a time (default: 8)")
    options = parser.parse_args()
    _, todo = work.prepare(options)
    torch.set_num_threads(machine.threads())
    model = find.find(todo.model)
    hardware = Hardware(engine="transformers", device="cpu", dtype=options.dtype, quantization="none")
    engine = Transformers(model, placement.place(model, hardware))
    asked = long_enough(engine, questions(todo, VIOLATES, KEEPS), todo)
    if not asked:
        raise UserError(f"model {todo.model}: no verdict is {VERDICT_TOKENS} tokens long; raise --prompts")
    rounds = [measure(engine, asked, asked[: options.alone], todo) for _ in range(options.rounds)]
    middle = Timing(*(statistics.median(values) for values in zip(*(asdict(r).values() for r in rounds), strict=True)))
    shares = {
        "alone": middle.score_alone / middle.verdict_alone,
        "together": middle.score_together / middle.verdict_together,
        "in use": middle.score_together / middle.verdict_alone,
    }
    tokenizer = Tokenizer(model.folder)
    tokens = statistics.mean(len(tokenizer.prompt(verdict(question, todo))) for question in asked)
    print(
        f"{options.dtype}, {len(asked)} of {len(todo.answers)} questions with a verdict of {VERDICT_TOKENS} tokens; "
        f"questions have {tokens:.0f}"
    )
    for name, seconds in asdict(middle).items():
        print(f"{name.replace('_', ' '):<18}{seconds * 1e3:8.1f} ms")
    for name, share in shares.items():
        print(f"score over verdict, {name}: {share:.3f}")
    values = {"seed": todo.seed, "model": todo.model, "questions": len(asked), "alone": min(options.alone, len(asked))}
    values |= {
        "question_tokens_mean": tokens,
        "seconds": asdict(middle),
        "rounds": [asdict(r) for r in rounds],
        "share": shares,
    }
    path = machine.write(options.results, f"scoring-{options.dtype}", "bench.scoring", sys.argv[1:], values)
    print(f"written: {path}")


if __name__ == "__main__":
    run(main)
