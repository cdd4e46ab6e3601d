"""Builds preference pairs: the first answer is rejected, its revision chosen, unless a gate drops the pair.

Candidates are read twice, so that a million of them never fill the memory: `decide` sets each one's fate (a side, or
the gate that drops it), `write` writes it to that file.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice, repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ccai.base import files
from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Pairs as PairsParams
from ccai.base.records import Demonstration, DroppedPair, Message, Pair, Prompt, Response, Revision, Verdict
from ccai.constitution.dialogue import Format, to_answer, to_revise
from ccai.constitution.principles import Principle
from ccai.pairs import demonstrations, gates
from ccai.pairs.gates import GATES, Runs

SIDES = ("train", "validation")

CHUNK = 1024
"""Candidates whose tokens are counted together."""

OverLength = Callable[[Sequence[Pair]], Sequence[bool]]
"""For each pair, whether training would truncate it."""


_TASK = "\0"
"""Placeholder for prompt, answer and critique, to split them off a conversation."""

NOTHING: Mapping[str, Runs] = MappingProxyType({})


class Candidate(NamedTuple):
    """A pair before the gates.

    Attributes:
        source: source of its prompt.
        cut: the side that reached its token limit.
        fault: a gate that the pair is already known to fail.
    """

    pair: Pair
    source: str
    cut: Literal["rejected", "chosen"] | None = None
    fault: str | None = None


class _Passed(NamedTuple):
    """The part of a pair that the gates over all pairs need; ids as numbers take less memory than as text."""

    at: int
    pair_id: int
    content: int
    prompt_id: str
    group: str


def joined(
    prompts: Mapping[str, Prompt] | files.Index[Prompt],
    responses: Mapping[str, Response] | files.Index[Response],
    revisions: Iterable[Revision],
    principles: Mapping[str, str] | None = None,
) -> Iterator[tuple[Prompt, Response, Revision]]:
    """Each revision with its prompt and first answer.

    Args:
        principles: the constitution's, `sha256` by slug; None: not checked.

    Raises:
        UserError: prompt or answer is missing, or the constitution lacks the revision's principle or words it
            differently.
    """
    for revision in revisions:
        name, slug = revision.prompt_id, revision.principle
        if name not in prompts or name not in responses:
            raise UserError(f"data/revisions.jsonl: prompt_id {name} has no prompt or response; run dvc repro")
        if principles is not None and principles.get(slug) != revision.principle_sha256:
            raise UserError(
                f"data/revisions.jsonl: principle {slug} of prompt_id {name} is of another constitution; run dvc repro"
            )
        yield prompts[name], responses[name], revision


def candidates(
    triples: Iterable[tuple[Prompt, Response, Revision]],
    system: str,
    verdicts: Iterable[Verdict | None] = repeat(None),
) -> Iterator[Candidate]:
    """One pair for each revision, in their order.

    Args:
        triples: from `joined`.
        system: the system message of the prompts' conversations; it becomes part of each pair's prompt, so that
            training and inference use the same conversation.
        verdicts: a judge's, one for each revision.
    """
    for (prompt, response, revision), verdict in zip(triples, verdicts, strict=False):
        name = prompt.prompt_id
        pair = Pair(
            pair_id=digest([name, revision.principle, revision.round, response.text, revision.text])[:16],
            prompt=list(to_answer(system, prompt.text).messages),
            chosen=[Message(role="assistant", content=revision.text)],
            rejected=[Message(role="assistant", content=response.text)],
            prompt_id=name,
            principle=revision.principle,
            hazard=prompt.hazard,
            round=revision.round,
            chosen_tokens=revision.completion_tokens,
            rejected_tokens=response.completion_tokens,
            chosen_model=revision.model,
            rejected_model=response.model,
            verdict=verdict,
        )
        if response.finish_reason == "length":
            yield Candidate(pair, prompt.source, "rejected")
        else:
            yield Candidate(pair, prompt.source, "chosen" if revision.finish_reason == "length" else None)


def shown(format: Format, principles: Iterable[Principle], examples: int) -> dict[str, Runs]:
    """Word runs, by principle, of the text in every request for a revision: worked examples, principle, format."""
    return {
        principle.slug: gates.runs(
            text
            for message in to_revise(format, principle, examples, _TASK, _TASK, _TASK).messages
            for text in message.content.split(_TASK)
        )
        for principle in principles
    }


class Screened(NamedTuple):
    """The gate that drops each candidate ("" for none), and the candidates that pass."""

    fates: list[str]
    pairs: list[_Passed]


def screen(
    candidates: Iterable[Candidate],
    params: PairsParams,
    seed: int,
    over_length: OverLength,
    shown: Mapping[str, Runs] = NOTHING,
) -> Screened:
    """Apply all gates. The candidates' order has no effect.

    Of pairs of one prompt with the same words the one with the smallest `pair_id` stays; balance keeps those with the
    smallest hashes.
    """
    fates: list[str] = []
    passed: list[_Passed] = []
    stream = iter(candidates)
    while chunk := list(islice(stream, CHUNK)):
        reasons = _reasons(chunk, params, over_length, shown)
        passed += [
            _passed(len(fates) + at, chunk[at].pair, params.balance)
            for at, reason in enumerate(reasons)
            if reason is None
        ]
        fates += [reason or "" for reason in reasons]
    unique = _without_duplicates(passed, fates)
    return Screened(fates, unique if params.balance == "none" else _balanced(unique, fates, seed))


def decide(
    candidates: Iterable[Candidate],
    params: PairsParams,
    seed: int,
    over_length: OverLength,
    shown: Mapping[str, Runs] = NOTHING,
) -> list[str]:
    """The fate of each candidate, in their order: `train`, `validation`, or the gate that drops it.

    Validation pairs are those of `validation_share` of the prompts that have a kept pair.

    Args:
        shown: by principle, word runs that its revisions must not copy (`shown`).

    Raises:
        UserError: fewer than two prompts are left after the gates.
    """
    fates, pairs = screen(candidates, params, seed, over_length, shown)
    held_out = _held_out({pair.prompt_id for pair in pairs}, params.validation_share, seed)
    if not held_out:
        counts = ", ".join(f"{fate} {n}" for fate, n in Counter(filter(None, fates)).most_common())
        raise UserError(
            f"pairs: {len(pairs)} of {len(fates)} pairs passed the gates ({counts}), too few to train and validate "
            "on different prompts; use a stronger models.revise or more prompts.train"
        )
    for pair in pairs:
        fates[pair.at] = "validation" if pair.prompt_id in held_out else "train"
    return fates


def _reasons(
    chunk: Sequence[Candidate], params: PairsParams, over_length: OverLength, shown: Mapping[str, Runs]
) -> list[str | None]:
    reasons = [
        fault or gates.by_prompt(pair.prompt) or gates.by_text(pair, cut, params, shown.get(pair.principle, {}))
        for pair, _, cut, fault in chunk
    ]
    fitting = [at for at, reason in enumerate(reasons) if reason is None]
    for at, long in zip(fitting, over_length([chunk[at].pair for at in fitting]), strict=True):
        verdict = chunk[at].pair.verdict
        if long:
            reasons[at] = "over_length"
        elif verdict is not None:
            reasons[at] = gates.by_verdict(verdict, params.require_violation)
    return reasons


def _passed(at: int, pair: Pair, balance: str) -> _Passed:
    texts = [" ".join(gates.words(side[-1].content)) for side in (pair.chosen, pair.rejected)]
    return _Passed(
        at,
        int(pair.pair_id, 16),
        int(digest([pair.prompt_id, *texts])[:16], 16),
        sys.intern(pair.prompt_id),
        sys.intern(pair.hazard if balance == "hazard" else pair.principle),
    )


def _without_duplicates(passed: Sequence[_Passed], fates: list[str]) -> list[_Passed]:
    first: dict[int, int] = {}
    for pair in passed:
        first[pair.content] = min(pair.pair_id, first.get(pair.content, pair.pair_id))
    unique = []
    for pair in passed:
        if first.get(pair.content) == pair.pair_id:
            del first[pair.content]  # a second, identical row has the same id
            unique.append(pair)
        else:
            fates[pair.at] = "duplicate"
    return unique


def _balanced(pairs: Sequence[_Passed], fates: list[str], seed: int) -> list[_Passed]:
    groups: dict[str, list[_Passed]] = defaultdict(list)
    for pair in pairs:
        groups[pair.group].append(pair)
    fewest = min(map(len, groups.values()), default=0)
    selection = []
    for group in groups.values():
        group.sort(key=lambda pair: digest(["balance", seed, pair.pair_id]))
        selection += group[:fewest]
        for pair in group[fewest:]:
            fates[pair.at] = "balance"
    return selection


def _held_out(prompt_ids: set[str], share: float, seed: int) -> set[str]:
    """The validation prompts: at least one and never all, chosen by hash, so that order has no effect."""
    if len(prompt_ids) < 2:
        return set()
    ranked = sorted(prompt_ids, key=lambda prompt_id: digest(["validation", seed, prompt_id]))
    return set(ranked[: min(math.ceil(len(ranked) * share), len(ranked) - 1)])


class Tally:
    """Counts of pairs by fate."""

    def __init__(self) -> None:
        self.fates: Counter[str] = Counter()
        self.models: dict[str, set[str]] = {"chosen_model": set(), "rejected_model": set()}
        self.kept: dict[str, Counter[str]] = {by: Counter() for by in ("principle", "hazard", "source")}
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.helpful = dict.fromkeys(SIDES, 0)
        self.chosen_tokens = self.rejected_tokens = 0

    def add(self, pair: Pair, source: str, fate: str) -> None:
        """Count one pair."""
        self.fates[fate] += 1
        if fate not in SIDES:
            self.dropped[pair.principle][fate] += 1
            return
        self.kept["principle"][pair.principle] += 1
        self.kept["hazard"][pair.hazard] += 1
        self.kept["source"][source] += 1
        self.models["chosen_model"].add(pair.chosen_model)
        self.models["rejected_model"].add(pair.rejected_model)
        self.chosen_tokens += pair.chosen_tokens
        self.rejected_tokens += pair.rejected_tokens

    def metrics(self) -> dict[str, Any]:
        """Kept and dropped pairs by gate, principle, hazard and source; tokens of revisions over tokens of answers."""
        kept = sum(self.fates[side] for side in SIDES)
        return {
            **{role: ", ".join(sorted(names)) for role, names in self.models.items()},
            "kept": kept,
            **{side: self.fates[side] for side in SIDES},
            "dropped": self.fates.total() - kept,
            "dropped_by": {gate: self.fates[gate] for gate in GATES},
            "dropped_by_principle": {name: _sorted(gates) for name, gates in sorted(self.dropped.items())},
            **{f"kept_by_{by}": _sorted(counts) for by, counts in self.kept.items()},
            "demonstrations": self.helpful,
            "length_ratio": self.chosen_tokens / self.rejected_tokens if self.rejected_tokens else None,
        }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def write(
    folder: Path,
    candidates: Iterable[Candidate],
    fates: Sequence[str],
    helpful: Mapping[str, Sequence[Demonstration]],
) -> Tally:
    """Write each candidate by its fate: to train.jsonl, validation.jsonl or, with its reason, dropped.jsonl.

    sft/train.jsonl and sft/validation.jsonl receive the chosen answers of kept pairs, then the helpful demonstrations
    of that side. All files appear at the end, or none.
    """
    tally = Tally()
    with ExitStack() as stack:
        pairs = {name: stack.enter_context(files.writing(folder / f"{name}.jsonl")) for name in (*SIDES, "dropped")}
        answers = {side: stack.enter_context(files.writing(folder / f"sft/{side}.jsonl")) for side in SIDES}
        for (pair, source, _, _), fate in zip(candidates, fates, strict=True):
            tally.add(pair, source, fate)
            if fate in SIDES:
                pairs[fate].write(files.line(pair))
                answers[fate].write(files.line(demonstrations.of(pair, source)))
            else:
                pairs["dropped"].write(files.line(DroppedPair(**dict(pair), reason=fate)))
        for side, some in helpful.items():
            answers[side].writelines(map(files.line, some))
            tally.helpful[side] += len(some)
    return tally
