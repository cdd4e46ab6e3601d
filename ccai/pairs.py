"""Preference pairs: the first answer is rejected, its revision chosen, unless a gate says the pair teaches nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from ccai.conversation import to_answer
from ccai.errors import UserError
from ccai.params import Pairs as PairsParams
from ccai.records import DroppedPair, Message, Pair, Prompt, Response, Revision, digest

GATES = (
    "rejected_truncated",
    "chosen_truncated",
    "too_short",
    "repetitive",
    "meta_talk",
    "unchanged",
    "duplicate",
)
"""Reasons a pair is dropped, in the order they are tried; the first that applies is recorded."""

MOST_REPEATED = 0.5
"""Share of word 3-grams that repeat an earlier one, above which a text is looping."""

_META_TALK = re.compile(
    r"""^\W*(
        (here(\ is|'s)|this\ is)\ (a|an|the|my|your)\ (\w+\ )?(revised|revision|rewritten|improved|new|updated|better)
      | (the|this|that|my|your)\ ((first|previous|original|revised|new|above|old|given)\ )?
        (answer|response|reply|revision|critique|criticism)\b
      | (revised|revision|new\ answer|critique)\s*:
    )""",
    re.IGNORECASE | re.VERBOSE,
)


class Built(NamedTuple):
    """Kept pairs, split by prompt, and those a gate took."""

    train: list[Pair]
    validation: list[Pair]
    dropped: list[DroppedPair]


def build(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    revisions: Sequence[Revision],
    params: PairsParams,
    system: str,
    seed: int,
) -> Built:
    """One pair for each revision.

    Args:
        system: the system message under which the prompts were answered; it stands in each pair's prompt, so that
            the model is trained on the conversation it will be asked in.

    Raises:
        UserError: records that do not belong together, or fewer than two prompts left after the gates.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    answers = {response.prompt_id: response for response in responses}
    kept: list[Pair] = []
    dropped: list[DroppedPair] = []
    seen: set[str] = set()
    for revision in revisions:
        if revision.prompt_id not in by_id or revision.prompt_id not in answers:
            raise UserError(
                f"data/revisions.jsonl: prompt {revision.prompt_id} has no prompt or response; run dvc repro"
            )
        pair = _pair(by_id[revision.prompt_id], answers[revision.prompt_id], revision, system)
        reason = _gate(pair, answers[revision.prompt_id], revision, params)
        content = digest([revision.prompt_id, revision.text])
        if reason is None and content in seen:
            reason = "duplicate"
        seen.add(content)
        if reason is None:
            kept.append(pair)
        else:
            dropped.append(DroppedPair(**pair.model_dump(), reason=reason))
    validation = _held_out({pair.prompt_id for pair in kept}, params.validation_share, seed)
    if not validation:
        counts = ", ".join(f"{reason} {n}" for reason, n in Counter(p.reason for p in dropped).most_common())
        raise UserError(
            f"pairs: {len(kept)} of {len(revisions)} pairs passed the gates ({counts}), too few to train and validate "
            "on different prompts; use an abler models.revise or more prompts.train"
        )
    return Built(
        [pair for pair in kept if pair.prompt_id not in validation],
        [pair for pair in kept if pair.prompt_id in validation],
        dropped,
    )


def summary(built: Built) -> dict[str, Any]:
    """Counts for metrics: kept, per principle and hazard, and dropped per gate."""
    kept = [*built.train, *built.validation]
    return {
        "chosen_model": kept[0].chosen_model,
        "rejected_model": kept[0].rejected_model,
        "kept": len(kept),
        "train": len(built.train),
        "validation": len(built.validation),
        "dropped": len(built.dropped),
        "dropped_by": {gate: sum(p.reason == gate for p in built.dropped) for gate in GATES},
        "kept_by_principle": _counts(p.principle for p in kept),
        "kept_by_hazard": _counts(p.hazard for p in kept),
        "length_ratio": sum(p.chosen_tokens for p in kept) / sum(p.rejected_tokens for p in kept),
    }


def _counts(values: Any) -> Mapping[str, int]:
    return dict(sorted(Counter(values).items()))


def _pair(prompt: Prompt, response: Response, revision: Revision, system: str) -> Pair:
    return Pair(
        pair_id=digest([prompt.prompt_id, revision.principle, revision.round])[:16],
        prompt=list(to_answer(system, prompt.text).messages),
        chosen=[Message(role="assistant", content=revision.text)],
        rejected=[Message(role="assistant", content=response.text)],
        prompt_id=prompt.prompt_id,
        principle=revision.principle,
        hazard=prompt.hazard,
        round=revision.round,
        chosen_tokens=revision.completion_tokens,
        rejected_tokens=response.completion_tokens,
        chosen_model=revision.model,
        rejected_model=response.model,
    )


def _gate(pair: Pair, response: Response, revision: Revision, params: PairsParams) -> str | None:
    chosen, rejected = revision.text, response.text
    if response.finish_reason == "length":
        return "rejected_truncated"
    if revision.finish_reason == "length":
        return "chosen_truncated"
    if len(chosen.split()) < params.min_words:
        return "too_short"
    if repetition(chosen) > MOST_REPEATED:
        return "repetitive"
    if _META_TALK.search(chosen):
        return "meta_talk"
    if similarity(chosen, rejected) >= params.max_similarity:
        return "unchanged"
    return None


def repetition(text: str) -> float:
    """Share in [0, 1] of a text's word 3-grams that occurred before in it; 0 for fewer than four words."""
    words = re.findall(r"\w+", text.lower())
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def similarity(a: str, b: str) -> float:
    """Share in [0, 1] of words in common and in order (difflib's ratio over lower-case words)."""
    first, second = re.findall(r"\w+", a.lower()), re.findall(r"\w+", b.lower())
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _held_out(prompt_ids: set[str], share: float, seed: int) -> set[str]:
    """The validation prompts: at least one, and never all; by hash, so that order means nothing."""
    if len(prompt_ids) < 2:
        return set()
    ranked = sorted(prompt_ids, key=lambda prompt_id: digest(["validation", seed, prompt_id]))
    return set(ranked[: min(math.ceil(len(ranked) * share), len(ranked) - 1)])
