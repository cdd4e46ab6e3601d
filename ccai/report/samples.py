"""Samples of the stages' records, for reading.

Each record comes after the texts that it was made from: prompt, first answer, critique, revision. After the first
round, the critiqued revision comes before the critique.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ccai.base.files import each, read
from ccai.base.records import Answer, Completion, Critique, DroppedPair, Pair, Prompt, Response, Revision

WHAT = ("prompts", "responses", "critiques", "revisions", "pairs", "dropped", "answers")
DATA = Path("data")
ANSWERS = DATA / "eval/heldout"


class Sample(NamedTuple):
    """A record for display. `facts` goes into its heading, `texts` are (title, text) in order."""

    hazard: str
    principle: str
    facts: str
    texts: list[tuple[str, str]]


def samples(what: str) -> list[Sample]:
    """All records of one kind (of `WHAT`), each with the texts that it was made from.

    Raises:
        UserError: a file is missing or damaged.
        KeyError: a record's prompt, answer or critique is missing.
    """
    prompts = {p.prompt_id: p for side in ("train", "eval") for p in read(DATA / f"prompts/{side}.jsonl", Prompt)}
    if what == "prompts":
        return [
            Sample(
                p.hazard,
                p.principle,
                f"{p.split}, from {p.source}, persona {p.persona}",
                [("prompt", p.text)],
            )
            for p in prompts.values()
        ]
    if what == "answers":
        return _answers(prompts)

    responses = {r.prompt_id: r for r in read(DATA / "responses.jsonl", Response)}

    def answered(prompt_id: str) -> list[tuple[str, str]]:
        return [("prompt", prompts[prompt_id].text), ("first answer", responses[prompt_id].text)]

    if what == "responses":
        return [
            Sample(prompts[key].hazard, prompts[key].principle, _ending(r), answered(key))
            for key, r in responses.items()
        ]
    critiques = {(c.prompt_id, c.principle, c.round): c for c in read(DATA / "critiques.jsonl", Critique)}
    needed = what == "revisions" or any(critique.round > 1 for critique in critiques.values())
    revisions = read(DATA / "revisions.jsonl", Revision) if needed else []
    revised = {revision.sha256: revision for revision in revisions}

    def criticised(record: Critique | Revision | Pair) -> list[tuple[str, str]]:
        critique = critiques[record.prompt_id, record.principle, record.round]
        texts = answered(record.prompt_id)
        if critique.round > 1:
            before = revised[critique.parent]
            texts.append((f"revision of round {before.round}, by {before.principle}", before.text))
        return [*texts, ("critique", critique.text)]

    if what == "critiques":
        return [Sample(prompts[c.prompt_id].hazard, c.principle, _ending(c), criticised(c)) for c in critiques.values()]
    if what == "revisions":
        return [
            Sample(prompts[r.prompt_id].hazard, r.principle, _ending(r), [*criticised(r), ("revision", r.text)])
            for r in revisions
        ]
    return [
        Sample(pair.hazard, pair.principle, facts, [*criticised(pair), ("revision", pair.chosen[-1].content)])
        for facts, pair in (_kept() if what == "pairs" else _dropped())
    ]


def _kept() -> list[tuple[str, Pair]]:
    """Pairs of both splits, each after the facts for its heading."""
    return [
        (f"{side}, rejected {pair.rejected_tokens} tokens, chosen {pair.chosen_tokens}", pair)
        for side in ("train", "validation")
        for pair in read(DATA / f"pairs/{side}.jsonl", Pair)
    ]


def _dropped() -> list[tuple[str, Pair]]:
    return [(f"dropped: {pair.reason}", pair) for pair in each(DATA / "pairs/dropped.jsonl", DroppedPair)]


def _answers(prompts: dict[str, Prompt]) -> list[Sample]:
    """Base and tuned answers to the same prompt, each with its verdicts."""
    tuned = {answer.prompt_id: answer for answer in read(ANSWERS / "tuned.jsonl", Answer)}
    shown = []
    for base in read(ANSWERS / "base.jsonl", Answer):
        prompt = prompts[base.prompt_id]
        texts = [("prompt", prompt.text)]
        for answer in (base, tuned[base.prompt_id]):
            texts += [
                (f"{answer.arm} ({_ending(answer)})", answer.text),
                (f"{answer.arm}: verdicts", _verdicts(answer)),
            ]
        shown.append(Sample(base.hazard, prompt.principle, f"persona {prompt.persona}", texts))
    return shown


def _verdicts(answer: Answer) -> str:
    judged = "" if answer.harmful is None else f", harmful {answer.harmful:.2g}"
    scores = ", ".join(f"{name} {score:.2g}" for name, score in answer.scores.items())
    return f"{answer.refusal}{judged}\n{scores}"


def _ending(completion: Completion) -> str:
    cut = ", cut there" if completion.finish_reason == "length" else ""
    return f"{completion.completion_tokens} tokens{cut}"
