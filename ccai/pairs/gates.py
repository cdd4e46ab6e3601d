"""Gates: reasons to drop a preference pair that would teach nothing, or something wrong.

They are pure functions of the pair's texts and verdict:

    gates.by_text(pair, cut=None, params=settings.pairs)  # "near_identical", or None if the pair passes
    gates.by_verdict(verdict, require_violation=True)  # "no_violation", or None
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from types import MappingProxyType

from rapidfuzz.distance import Indel

from ccai.base.params import Pairs as PairsParams
from ccai.base.records import Message, Pair, Verdict
from ccai.rules.language import language

GATES = {
    "different_prompts": "the two transcripts of a ready-made pair differ before the last answer",
    "evaluation_prompt": "the prompt of a ready-made pair is, or contains, one that is held out for evaluation",
    "broken_turns": "the prompt is not user and assistant in turn, ending with the user",
    "empty": "the answer or the revision has no letter or digit",
    "rejected_truncated": "the answer was cut by its token limit",
    "chosen_truncated": "the revision was cut by its token limit",
    "too_short": "the revision has fewer words than `pairs.min_words`",
    "echo": "the revision gives the prompt back instead of answering it",
    "repetitive": "more than half of the revision's word 3-grams occurred before in it",
    "copied": "the revision repeats, word for word, what every revision is shown: an example, a request",
    "meta_talk": "the revision speaks of itself, or of the answer, instead of answering",
    "identical": "answer and revision have the same words",
    "near_identical": "answer and revision are `pairs.max_similarity` alike or more, word by word in order",
    "language_changed": "the revision is in another language than both prompt and answer",
    "longer": "the revision has more than `pairs.max_length_ratio` times the words of the answer",
    "shorter": "the revision has less than `pairs.min_length_ratio` times the words of the answer",
    "over_length": "prompt and completion are more than `train.max_length` tokens, in the trained model's own count",
    "no_violation": "the judge finds nothing to correct in the answer (`pairs.require_violation`)",
    "prefers_original": "the judge prefers the answer, in both orders",
    "off_topic": "the judge says that the revision does not address the prompt",
    "duplicate": "another pair of the same prompt has the same words",
    "balance": "left out so that principles, or hazards, have equally many pairs (`pairs.balance`)",
}
"""Reasons to drop a pair, in the order in which they are tried; the first that applies is recorded."""

MOST_REPEATED = 0.5
"""Share of word 3-grams that repeat an earlier one, above which a text is looping."""

MOST_ECHOED = 0.8
"""Share of a revision's word 3-grams that occur in the prompt, from which it only repeats the prompt."""

COPIED = 8
"""Length of a word run that is not chance: that of the runs by which Chowdhery et al. 2022 (PaLM, arXiv 2204.02311,
section 8) look for test data in training data.
"""

FEWEST_COPIED = 4
"""Words of the shortest text that counts as copied when repeated whole; shorter ones occur in any prose."""

LIKELY = 0.5
"""Probability from which a judge's verdict counts."""

# A character of Chinese or Japanese counts as a word, because they have no spaces.
_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W{_CHARACTERS}]+")

Runs = Mapping[int, Set[tuple[str, ...]]]
"""Runs of consecutive words, by their length."""

NOTHING: Runs = MappingProxyType({})

_WRITTEN = r"(answer|response|reply|revision|critique|criticism|rewrite)"
_META_TALK = re.compile(
    rf"""
    ^\W*((sure|certainly|of\ course|okay|ok|absolutely)\W+)?(
        (here(\ is|'s|’s)|this\ is|below\ is)\ (a|an|the|my|your|one)\ (\w+\ )?
            (revised|revision|rewritten|rewrite|rephrased|improved|new|updated|better)
      | (here(\ is|'s|’s))\ how\ (i|you|one)('d|’d|\ would|\ could|\ might)?\ (revise|rewrite|rephrase|reword)
      | (the|this|that|my)\ ((first|previous|original|revised|new|above|old|given)\ )?{_WRITTEN}\b
      | your\ ((previous|original|revised)\ )?{_WRITTEN}\b
      | (revised|revision|critique|(new|improved|better|final|rewritten)\ {_WRITTEN})(\ {_WRITTEN})?\W*:
      | i(\ have|'ve|’ve|'ll|’ll|\ will|'d|’d|\ would)?(\ now)?\ (revised?|rewrit(e|ten)|rephrased?|reworded?)\b
      | to\ (improve|revise|rewrite|rephrase)\ (the|this|that|my|your)\ ((first|previous|original)\ )?{_WRITTEN}\b
    )
    | \b(the|this|my|a)\ (revised|rewritten|improved|previous|original)\ {_WRITTEN}\b
    | \bthis\ (response|revision)\b
    | [.!?]\W{{1,3}}the\ answer\ (has|does|treats|turns|leaves|misses|shuts|lacks|fails|should|could|needs)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def by_prompt(prompt: Sequence[Message]) -> str | None:
    """The gate that drops every pair of a prompt, or None."""
    turns = [message.role for message in prompt]
    if turns[:1] == ["system"]:
        del turns[0]
    return None if len(turns) % 2 and turns == (["user", "assistant"] * len(turns))[: len(turns)] else "broken_turns"


def by_text(pair: Pair, cut: str | None, params: PairsParams, shown: Runs = NOTHING) -> str | None:
    """The first gate that drops a pair for its texts, or None.

    Args:
        cut: the side that reached its token limit, `rejected` or `chosen`.
        shown: word runs (`runs`) of the reviser's request other than prompt, answer and critique.
    """
    prompt, chosen, rejected = pair.prompt[-1].content, pair.chosen[-1].content, pair.rejected[-1].content
    new, old = words(chosen), words(rejected)
    if not new or not old:
        return "empty"
    if cut is not None:
        return f"{cut}_truncated"
    if len(new) < params.min_words:
        return "too_short"
    if echo(new, words(prompt)) >= MOST_ECHOED:
        return "echo"
    if repetition(new) > MOST_REPEATED:
        return "repetitive"
    if copied(new, shown) - copied(words(prompt), shown) - copied(old, shown):
        return "copied"
    if _META_TALK.search(chosen):
        return "meta_talk"
    if new == old:
        return "identical"
    if similarity(new, old) >= params.max_similarity:
        return "near_identical"
    if language_changed(prompt, rejected, chosen):
        return "language_changed"
    if len(new) > len(old) * params.max_length_ratio:
        return "longer"
    if len(new) < len(old) * params.min_length_ratio:
        return "shorter"
    return None


def by_verdict(verdict: Verdict, require_violation: bool) -> str | None:
    """The first gate that drops a pair for its verdict, or None. An unreadable verdict drops nothing."""
    if require_violation and verdict.rejected_violation is not None and verdict.rejected_violation < LIKELY:
        return "no_violation"
    if verdict.preference == "rejected":
        return "prefers_original"
    if verdict.addresses is not None and verdict.addresses < LIKELY:
        return "off_topic"
    return None


def words(text: str) -> list[str]:
    """A text's words in lower case, without punctuation; in Chinese and Japanese, its characters."""
    return _WORD.findall(text.lower())


def repetition(words: Sequence[str]) -> float:
    """Share in [0, 1] of 3-grams that repeat an earlier one; 0 for fewer than four words."""
    grams = _in_a_row(words, 3)
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def echo(words: Sequence[str], prompt: Sequence[str]) -> float:
    """Share in [0, 1] of 3-grams that occur in the prompt; 0 for fewer than three words."""
    grams, of_prompt = _in_a_row(words, 3), set(_in_a_row(prompt, 3))
    return sum(gram in of_prompt for gram in grams) / len(grams) if grams else 0.0


def runs(texts: Iterable[str]) -> Runs:
    """All runs of `COPIED` words in the texts; a shorter text of at least `FEWEST_COPIED` words is one run."""
    by_length = defaultdict(set)
    for text in texts:
        of_text = words(text)
        length = min(len(of_text), COPIED)
        if length >= FEWEST_COPIED:
            by_length[length].update(_in_a_row(of_text, length))
    return dict(by_length)


def copied(words: Sequence[str], shown: Runs) -> set[tuple[str, ...]]:
    """The runs that occur among the words, in time linear in their number."""
    return {run for length, of_length in shown.items() for run in _in_a_row(words, length) if run in of_length}


def similarity(words: Sequence[str], others: Sequence[str]) -> float:
    """Share in [0, 1] of words in common and in order: twice the longest common subsequence over all words."""
    return Indel.normalized_similarity(words, others)


def language_changed(prompt: str, rejected: str, chosen: str) -> bool:
    """Whether the revision's language differs from both the answer's and the prompt's.

    Only where both languages are certain, which they rarely are for a few words.
    """
    new, old = language(chosen), language(rejected)
    return new is not None and old is not None and new not in (old, language(prompt))


def _in_a_row(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(length)), strict=False))
