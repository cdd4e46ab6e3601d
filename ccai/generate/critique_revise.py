"""Rounds of critique and revision: which answer is critiqued by which principle, as jobs and as records.

Round 1 critiques the first answer and revises it. Round r does the same with the revision of round r - 1 in the
answer's place (Bai et al. 2022, arXiv 2212.08073, section 3.1). The critiques stage needs the revisions of all rounds
but the last; the revisions stage requests the same jobs again and finds them in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Critiques as Params
from ccai.base.params import Generation
from ccai.base.records import Critique, Prompt, Response, Revision
from ccai.constitution import dialogue
from ccai.constitution import principles as constitution
from ccai.constitution.dialogue import Format
from ccai.constitution.principles import Principle
from ccai.engines.base import Engine
from ccai.generate import completions
from ccai.generate.completions import Job

Answer = Response | Revision
"""An answer to critique: a first answer, or the revision of an earlier round."""

Complete = Callable[[str, Sequence[Job]], Sequence[Mapping[str, Any]]]
"""Takes a name for the jobs and the jobs; returns the fields of their `records.Completion`, in order."""


class Completer:
    """A `Complete` through journal and engine that adds up the costs of its calls."""

    def __init__(self, engine: Engine, sampling: Generation, seed: int) -> None:
        self._engine, self._sampling, self._seed = engine, sampling, seed
        self._costs: list[dict[str, Any]] = []

    def __call__(self, what: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        done = completions.complete(what, self._engine, jobs, self._sampling, self._seed)
        self._costs.append(done.runtime)
        return done.completions

    @property
    def runtime(self) -> dict[str, Any]:
        """The costs of all calls, as in `completions.Result`."""
        return completions.total(self._costs)


@dataclass(frozen=True)
class Method:
    """What shapes a job besides the model: prompts by id, principles by slug, format, number of examples."""

    prompts: Mapping[str, str]
    principles: Mapping[str, Principle]
    format: Format
    examples: int

    def critique_job(self, answer: Answer, principle: Principle, max_new_tokens: int) -> Job:
        """The critique of an answer by a principle."""
        key = ("critique", answer.prompt_id, principle.slug, str(_next_round(answer)))
        prompt = self.prompts[answer.prompt_id]
        turns = dialogue.to_criticise(self.format, principle, self.examples, prompt, answer.text)
        return Job(key, turns, max_new_tokens)

    def revision_job(self, answer: Answer, critique: Critique, max_new_tokens: int) -> Job:
        """The revision of an answer after its critique."""
        key = ("revision", critique.prompt_id, critique.principle, str(critique.round))
        principle, prompt = self.principles[critique.principle], self.prompts[critique.prompt_id]
        turns = dialogue.to_revise(self.format, principle, self.examples, prompt, answer.text, critique.text)
        return Job(key, turns, max_new_tokens)


def load(prompts: Sequence[Prompt], path: Path, format: str, examples: int) -> Method:
    """The method of params.yaml; warns where a principle has fewer worked examples than requested.

    Raises:
        UserError: a bad constitution or format.
    """
    principles = {principle.slug: principle for principle in constitution.load(path).principles}
    if few := [slug for slug, principle in principles.items() if len(principle.examples) < examples]:
        print(f"warning: critiques.examples is {examples}; {path} has fewer for {', '.join(few)}", flush=True)
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    return Method(texts, principles, dialogue.load_format(format), examples)


def criticise(
    method: Method,
    responses: Sequence[Response],
    params: Params,
    revision_tokens: int,
    seed: int,
    complete: Complete,
) -> list[Critique]:
    """The critiques of all rounds, grouped by prompt. Revisions between rounds are generated, but not returned.

    With `all` principles every prompt has a chain of rounds for each principle. With `random` it has one chain, and
    each round draws its principle by a hash of seed, prompt and round: adding a principle changes only the draws that
    it wins.

    Args:
        revision_tokens: `revisions.max_new_tokens`.

    Raises:
        UserError: the responses do not belong to the method's prompts.
    """
    _belong(method, responses)
    answers: Sequence[Answer] = responses
    rounds = []
    for round in range(1, params.rounds + 1):
        note = f", round {round}" if params.rounds > 1 else ""
        work = [(answer, principle) for answer in answers for principle in _principles(method, answer, params, seed)]
        jobs = [method.critique_job(answer, principle, params.max_new_tokens) for answer, principle in work]
        critiques = [
            Critique(
                prompt_id=answer.prompt_id,
                principle=principle.slug,
                round=round,
                principle_sha256=principle.sha256,
                parent=answer.sha256,
                **fields,
            )
            for (answer, principle), fields in zip(work, complete(f"critiques{note}", jobs), strict=True)
        ]
        rounds.append(critiques)
        if round < params.rounds:
            by_sha256 = {answer.sha256: answer for answer in answers}
            answers = _revise(method, by_sha256, critiques, revision_tokens, complete, note)
    return [critique for chain in zip(*rounds, strict=True) for critique in chain]


def revise(
    method: Method,
    responses: Sequence[Response],
    critiques: Sequence[Critique],
    max_new_tokens: int,
    complete: Complete,
) -> list[Revision]:
    """One revision for each critique, in the critiques' order, round by round.

    Raises:
        UserError: responses to other prompts, a critique of an unknown answer, or by a principle that the constitution
            lacks or words differently; names its line.
    """
    _belong(method, responses)
    answers: dict[str, Answer] = {response.sha256: response for response in responses}
    written: dict[str, Revision] = {}
    rounds = sorted({critique.round for critique in critiques})
    for round in rounds:
        todo = [critique for critique in critiques if critique.round == round]
        note = f", round {round}" if len(rounds) > 1 else ""
        for line, critique in enumerate(critiques, start=1):
            if critique.round == round:
                _check_parent(method, answers, critique, line)
        revisions = _revise(method, answers, todo, max_new_tokens, complete, note)
        answers |= {revision.sha256: revision for revision in revisions}
        written |= {revision.parent: revision for revision in revisions}
    return [written[critique.sha256] for critique in critiques]


def _belong(method: Method, responses: Sequence[Response]) -> None:
    """Raise UserError unless each prompt has exactly one response."""
    if odd := method.prompts.keys() ^ {response.prompt_id for response in responses}:
        raise UserError(
            f"data/responses.jsonl: not the answers to data/prompts/train.jsonl, {len(odd)} prompts are in one of them "
            f"alone, such as {min(odd)}; run dvc repro"
        )


def _check_parent(method: Method, answers: Mapping[str, Answer], critique: Critique, line: int) -> None:
    """Raise UserError unless the critique is of one of the answers, by a principle worded as in the constitution."""
    parent, principle = answers.get(critique.parent), method.principles.get(critique.principle)
    same_prompt = parent is not None and parent.prompt_id == critique.prompt_id
    if not (same_prompt and principle is not None and principle.sha256 == critique.principle_sha256):
        wrong = "principle: of another constitution" if same_prompt else "parent: of other answers"
        raise UserError(
            f"data/critiques.jsonl:{line}: {wrong} (a critique of {critique.prompt_id} by {critique.principle}); "
            "run dvc repro"
        )


def _principles(method: Method, answer: Answer, params: Params, seed: int) -> list[Principle]:
    """The principles by which the next round critiques an answer."""
    if params.principles == "random":

        def rank(principle: Principle) -> str:
            return digest(["principle", seed, answer.prompt_id, _next_round(answer), principle.slug])

        return [min(method.principles.values(), key=rank)]
    if isinstance(answer, Revision):
        return [method.principles[answer.principle]]
    return list(method.principles.values())


def _next_round(answer: Answer) -> int:
    return answer.round + 1 if isinstance(answer, Revision) else 1


def _revise(
    method: Method,
    answers: Mapping[str, Answer],
    critiques: Sequence[Critique],
    max_new_tokens: int,
    complete: Complete,
    note: str,
) -> list[Revision]:
    """One round; `answers` by `sha256`."""
    jobs = [method.revision_job(answers[critique.parent], critique, max_new_tokens) for critique in critiques]
    return [
        Revision(
            prompt_id=critique.prompt_id,
            principle=critique.principle,
            round=critique.round,
            principle_sha256=critique.principle_sha256,
            parent=critique.sha256,
            **fields,
        )
        for critique, fields in zip(critiques, complete(f"revisions{note}", jobs), strict=True)
    ]
