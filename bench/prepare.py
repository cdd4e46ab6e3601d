"""Build the work list: prompts chosen as the first stage does, texts by our engine in float32, kept in the journal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import work
from bench.work import GREEDY, Item, Work
from ccai.base import params
from ccai.base.params import Hardware
from ccai.base.records import Response
from ccai.constitution import dialogue
from ccai.engines.base import Request
from ccai.generate import completions, critique_revise
from ccai.generate.completions import Job
from ccai.models import find
from ccai.prompts import select, sources

FLOAT32 = Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none")


class Tokenizer:
    """Prompts as token ids, by the model's chat template."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.own = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def prompt(self, request: Request) -> list[int]:
        """Token ids of a request, ready for the model's turn."""
        turns = [message.model_dump() for message in request.messages]
        return list(self.own.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


class _Group(NamedTuple):
    stage: str
    shared: tuple[object, ...]


def build(options: argparse.Namespace) -> Work:
    """Answer, criticise, revise; each stage's jobs are the items."""
    settings = params.load()
    rows = sources.load(options.source)
    wanted = settings.prompts.model_copy(update={"train": options.prompts, "eval": 1})
    chosen = [prompt for prompt in select.choose(rows, wanted, settings.seed).prompts if prompt.split == "train"]
    asked = settings.critiques.model_copy(update={"rounds": 1, "principles": "all"})
    method = critique_revise.load(chosen, asked.constitution, options.format, options.examples)
    method = replace(method, principles=dict(list(method.principles.items())[: options.principles]))
    sampling = GREEDY if options.greedy else settings.generation
    engine = completions.load_engine(options.model, FLOAT32)
    completer = critique_revise.Completer(engine, sampling, settings.seed)
    jobs: list[tuple[str, Job]] = []

    def complete(stage: str, wanted: Sequence[Job]) -> list[dict[str, Any]]:
        jobs.extend((stage, job) for job in wanted)
        return completer(f"work, {stage}", wanted)

    answers = [
        Job(
            ("answer", prompt.prompt_id),
            dialogue.to_answer(settings.responses.system, prompt.text),
            settings.responses.max_new_tokens,
        )
        for prompt in chosen
    ]
    responses = [
        Response(prompt_id=prompt.prompt_id, **fields)
        for prompt, fields in zip(chosen, complete("responses", answers), strict=True)
    ]
    critiques = critique_revise.criticise(
        method, responses, asked, settings.revisions.max_new_tokens, settings.seed, complete
    )
    parents = {response.sha256: response for response in responses}
    limit = settings.revisions.max_new_tokens
    jobs += [("revisions", method.revision_job(parents[critique.parent], critique, limit)) for critique in critiques]
    requests = [(stage, completions.request(job, sampling, settings.seed)) for stage, job in jobs]
    answered = [(prompt.text, response.text) for prompt, response in zip(chosen, responses, strict=True)]
    return Work(options.model, settings.seed, _items(requests, Tokenizer(find.find(options.model).folder)), answered)


def _items(requests: Sequence[tuple[str, Request]], tokenizer: Tokenizer) -> list[Item]:
    """Requests with their lengths; what a group shares is counted in tokens, so no engine's way of sharing is in it."""
    tokens = [tokenizer.prompt(request) for _, request in requests]
    members: dict[_Group, list[int]] = {}
    for index, (stage, request) in enumerate(requests):
        members.setdefault(_Group(stage, request.messages[: request.shared]), []).append(index)
    items: dict[int, Item] = {}
    for group, indices in enumerate(members.values()):
        shared = _common([tokens[index] for index in indices]) if len(indices) > 1 else 0
        for index in indices:
            stage, request = requests[index]
            items[index] = Item(stage, group, len(tokens[index]), shared, request)
    return [items[index] for index in range(len(requests))]


def _common(rows: Sequence[list[int]]) -> int:
    """Length of the longest common beginning."""
    first, last = min(rows), max(rows)  # what the outermost of a sorted list share, all share
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def main() -> None:
    """Command line, called by `work.prepare`."""
    parser = argparse.ArgumentParser(prog="python -m bench.prepare", description="Build the work list.")
    parser.add_argument("out", type=Path)
    work.add_options(parser)
    options = parser.parse_args()
    work.write(options.out, build(options))


if __name__ == "__main__":
    from ccai.base.errors import run

    run(main)
