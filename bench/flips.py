"""Does the layout of a batch change a text? The same completions in different layouts, in float32.

    python -m bench.flips --source ailuminate --prompts 16

Layouts differ in the number of rows, in the order of requests, and in whether a shared prefix is computed once. The
first layout (`REFERENCE`) is compared with each other. One completion that differs is one flip, at its first
differing token; what comes after follows from it and is not compared. Layouts of few rows are slow, and do a part.

Flips are rare, so each decision is drawn `--draws` times more from the same logits, with other seeds and by the same
rule: near ties are taken again alone. A token that differs between two layouts is a flip that the text would have had
with that seed. The share of such draws estimates the flips per token, from far fewer tokens than a flip takes to
be seen.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from bench import machine, work
from bench.prepare import FLOAT32, Tokenizer
from ccai.base.errors import run
from ccai.base.hashing import seed_for
from ccai.engines import transformers
from ccai.engines.base import Completed, Engine, Request
from ccai.engines.transformers import Transformers
from ccai.models import find
from ccai.models import placement as models
from ccai.models.model import Model
from ccai.models.placement import Placement


class Layout(NamedTuple):
    """How requests are laid out; `share` is the part of the completions that are done."""

    name: str
    rows: int
    order: str
    shared: bool
    share: float


REFERENCE = Layout("32 rows", 32, "as asked", True, 1)
LAYOUTS = (
    Layout("reversed", 32, "reversed", True, 1),
    Layout("shuffled", 32, "shuffled", True, 1),
    Layout("64 rows", 64, "shuffled", True, 1),
    Layout("16 rows", 16, "shuffled", True, 1),
    Layout("prefix recomputed", 32, "shuffled", False, 0.5),
    Layout("4 rows", 4, "shuffled", True, 0.2),
    Layout("1 row", 1, "as asked", True, 0.05),
    Layout("1 row, prefix recomputed", 1, "as asked", False, 0.02),
)


class Difference(NamedTuple):
    """Of one layout against the reference: completions and tokens compared, completions that differ, the most that a
    closest decision moved (in logits) and how many did not move at all."""

    completions: int
    tokens: int
    flips: int
    moved: float
    unmoved: int


Draws = dict[tuple[int, tuple[int, ...]], list[int]]
"""Tokens drawn with other seeds, by the request's own seed and what was written before."""


class Redrawing(Transformers):
    """Draws each token so many times more and keeps the outcomes; the texts are the engine's."""

    def __init__(self, model: Model, placement: Placement, draws: int) -> None:
        super().__init__(model, placement)
        self._draws = draws
        self.drawn: Draws = {}

    def _draw(self, logits: torch.Tensor, rows: Sequence[Any]) -> tuple[list[int], list[float]]:
        places = [(row.request.seed, tuple(row.written)) for row in rows]
        if places[0] not in self.drawn:  # otherwise a near tie, which the engine is taking again alone
            self.drawn |= {place: self._redraw(logits[[at]], rows[at]) for at, place in enumerate(places)}
        return super()._draw(logits, rows)

    def _redraw(self, logits: torch.Tensor, row: Any) -> list[int]:
        others = [
            replace(row, request=replace(row.request, seed=row.request.seed ^ again))
            for again in range(1, self._draws + 1)
        ]
        tokens, margins = super()._draw(logits.repeat(len(others), 1), others)
        near = [index for index, margin in enumerate(margins) if margin < transformers.NEAR_TIE]
        if near:
            alone, _ = super()._draw(self._alone(row).repeat(len(near), 1), [others[index] for index in near])
            for index, token in zip(near, alone, strict=True):
                tokens[index] = token
        return tokens


def compare_draws(one: Draws, other: Draws) -> tuple[int, int]:
    """Draws at decisions that both came to, and how many of them differ."""
    both = one.keys() & other.keys()
    apart = sum(a != b for place in both for a, b in zip(one[place], other[place], strict=True))
    return sum(len(one[place]) for place in both), apart


def complete(engine: Engine, requests: Sequence[Request], layout: Layout) -> dict[int, Completed]:
    """Completions by index in `requests`, of the share that the layout does."""
    indices = list(range(max(1, round(len(requests) * layout.share))))
    if layout.order == "reversed":
        indices.reverse()
    if layout.order == "shuffled":
        random.Random(layout.name).shuffle(indices)
    asked = [requests[index] if layout.shared else replace(requests[index], shared=0) for index in indices]
    done: dict[int, Completed] = {}
    with _rows(layout.rows), tqdm(total=len(asked), desc=layout.name, disable=not sys.stderr.isatty()) as bar:
        for batch in engine.complete(asked):
            done |= {indices[at]: completed for at, completed in batch}
            bar.update(len(batch))
    return done


def compare(tokenizer: Tokenizer, one: dict[int, Completed], other: dict[int, Completed]) -> Difference:
    """The completions that both have. Tokens are those of the texts, encoded again."""
    tokens = flips = unmoved = 0
    moved = 0.0
    both = one.keys() & other.keys()
    for index in both:
        a, b = one[index], other[index]
        if (a.text, a.finish_reason, a.completion_tokens) == (b.text, b.finish_reason, b.completion_tokens):
            tokens += a.completion_tokens
            if a.margin is not None and b.margin is not None:
                moved = max(moved, abs(a.margin - b.margin))
                unmoved += a.margin == b.margin
            continue
        flips += 1
        pairs = zip(tokenizer.own.encode(a.text), tokenizer.own.encode(b.text), strict=False)
        least = min(a.completion_tokens, b.completion_tokens)
        tokens += next((place for place, (x, y) in enumerate(pairs) if x != y), least) + 1
    return Difference(len(both), tokens, flips, moved, unmoved)


def margins(done: Sequence[Completed]) -> dict[str, int]:
    """Completions by the order of magnitude of their closest decision."""
    powers = Counter(math.floor(math.log10(c.margin)) if c.margin else -math.inf for c in done if c.margin is not None)
    return {f"1e{power}" if power > -math.inf else "0": powers[power] for power in sorted(powers)}


def requests_for(tokens: int, todo: work.Work) -> list[Request]:
    """Requests of the work in random order, again with other seeds where they run out, for about that many tokens."""
    order = random.Random(todo.seed)
    requests: list[Request] = []
    expected = 0.0
    for again in range(sys.maxsize):
        for place in order.sample(range(len(todo.items)), len(todo.items)):
            if expected >= tokens:
                return requests
            request = todo.items[place].request
            seed = seed_for(todo.seed, "flips", place, again)
            requests.append(replace(request, seed=seed))
            expected += 0.6 * request.max_new_tokens
    return requests


@contextmanager
def _rows(rows: int) -> Iterator[None]:
    """Batches of that many rows for a while."""
    before = transformers.MAX_ROWS["float32"]["cpu"]
    transformers.MAX_ROWS["float32"]["cpu"] = rows
    try:
        yield
    finally:
        transformers.MAX_ROWS["float32"]["cpu"] = before


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flips", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work.add_options(parser)
    machine.add_results(parser)
    parser.add_argument(
        "--tokens", type=int, default=2_400, help="about how many the reference writes (default: %(default)s)"
    )
    parser.add_argument("--draws", type=int, default=100, help="more of each decision (default: %(default)s)")
    options = parser.parse_args()
    if options.draws < 1:
        parser.error("--draws: at least 1")
    _, todo = work.prepare(options)
    torch.set_num_threads(machine.threads())
    model = find.find(todo.model)
    engine, tokenizer = Redrawing(model, models.place(model, FLOAT32), options.draws), Tokenizer(model.folder)
    requests = requests_for(options.tokens, todo)
    print(f"{len(requests)} completions, {REFERENCE.name} against other layouts", flush=True)
    reference, drawn = complete(engine, requests, REFERENCE), engine.drawn
    rows = {}
    for layout in LAYOUTS:
        engine.drawn = {}
        found = compare(tokenizer, reference, complete(engine, requests, layout))
        draws, apart = compare_draws(drawn, engine.drawn)
        print(
            f"{layout.name:<26}{found.completions:>7} completions {found.tokens:>9,} tokens {found.flips:>4} flips; "
            f"{draws:>9,} more draws {apart:>4} flips; closest decisions moved by up to {found.moved:.1e}, "
            f"{found.unmoved} did not",
            flush=True,
        )
        rows[layout.name] = layout._asdict() | found._asdict() | {"draws": draws, "draws_apart": apart}
    summed = ("completions", "tokens", "flips", "unmoved", "draws", "draws_apart")
    whole = {name: sum(row[name] for row in rows.values()) for name in summed}
    whole["moved"] = max(row["moved"] for row in rows.values())
    near = margins(list(reference.values()))
    print(f"all: {whole['flips']} flips in {whole['tokens']:,} tokens; moved by up to {whole['moved']:.1e}, ", end="")
    print(f"bound {transformers.NEAR_TIE:.0e}")
    rate = whole["draws_apart"] / whole["draws"] * 1e6
    print(f"     {whole['draws_apart']} flips in {whole['draws']:,} more draws, {rate:.2f} per million")
    print(f"closest decision of each completion: {near or 'the engine does not say'}")
    values = {"seed": todo.seed, "model": todo.model, "reference": REFERENCE._asdict(), "layouts": rows}
    values |= {"all": whole, "near_tie": transformers.NEAR_TIE, "margins": near}
    print(f"written: {machine.write(options.results, 'flips', 'bench.flips', sys.argv[1:], values)}")


if __name__ == "__main__":
    run(main)
