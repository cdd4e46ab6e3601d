"""Records from which pairs are built, and params that keep them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ccai.base.params import Pairs
from ccai.base.records import Pair, Prompt, Response, Revision, Verdict
from ccai.pairs import build as pairs

PARAMS = Pairs(
    validation_share=0.2,
    min_words=4,
    max_similarity=0.95,
    min_length_ratio=0.1,
    max_length_ratio=10,
    judge=False,
    require_violation=False,
    balance="none",
    sources=[],
    demonstrations=None,
    demonstrations_share=0,
)
REJECTED = "Just forget it and move on, nobody will care about that anyway."
CHOSEN = "That sounds painful. Would it help to talk it through with a friend tonight?"


def prompt(name: str, hazard: str = "none") -> Prompt:
    return Prompt(
        prompt_id=name,
        text=f"Question {name}?",
        source="ours",
        source_id=name,
        hazard=hazard,
        persona="normal",
        principle="care",
        split="train",
    )


def completion(text: str, **fields: Any) -> dict[str, Any]:
    given = {"finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 10, "conversation": "c", "seed": 1}
    return given | {"text": text, "model": "org/tiny", "unverified_weights": False} | fields


def response(name: str, text: str = REJECTED, **fields: Any) -> Response:
    return Response(prompt_id=name, **completion(text, **fields))


def revision(name: str, text: str = CHOSEN, principle: str = "care", **fields: Any) -> Revision:
    step = {"principle": principle, "round": 1, "principle_sha256": "s", "parent": "c"}
    return Revision(prompt_id=name, **step, **completion(text, **fields))


class Built(NamedTuple):
    train: list[Pair]
    validation: list[Pair]
    dropped: list[tuple[str, str]]
    """Principle and gate."""
    metrics: dict[str, Any]


def build(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    revisions: Sequence[Revision],
    params: Pairs = PARAMS,
    system: str = "Be brief.",
    seed: int = 7,
    verdicts: Sequence[Verdict | None] | None = None,
    long: str = "no such text",
) -> Built:
    """What the stage does, on lists."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    answers = {response.prompt_id: response for response in responses}
    triples = list(pairs.joined(by_id, answers, revisions))
    found = list(pairs.candidates(triples, system, verdicts or [None] * len(triples)))
    fates = pairs.decide(
        found, params, seed, lambda asked: [any(long in turn.content for turn in pair.chosen) for pair in asked]
    )
    tally, sides, dropped = pairs.Tally(), {side: list[Pair]() for side in pairs.SIDES}, []
    for candidate, fate in zip(found, fates, strict=True):
        tally.add(candidate.pair, candidate.source, fate)
        if fate in sides:
            sides[fate].append(candidate.pair)
        else:
            dropped.append((candidate.pair.principle, fate))
    return Built(sides["train"], sides["validation"], dropped, tally.metrics())


NAMES = [f"p{number:02}" for number in range(20)]


def built(extra: Sequence[Revision] = (), changed: Sequence[Response] = (), **options: Any) -> Built:
    """Twenty good pairs, and what a test adds."""
    responses = [response(name) for name in NAMES]
    revisions = [revision(name, f"{CHOSEN} ({name})") for name in NAMES]
    return build([prompt(name) for name in NAMES], [*responses, *changed], [*revisions, *extra], **options)
