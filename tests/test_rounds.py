"""Rounds of critique and revision: what is asked, of which answer, by which principle, and what the records name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Critiques as Params
from ccai.base.params import Generation
from ccai.base.records import Critique, Prompt, Response, Revision
from ccai.constitution import dialogue
from ccai.constitution import principles as constitution
from ccai.engines.transformers import Transformers
from ccai.generate import critique_revise
from ccai.generate.completions import Job
from ccai.generate.critique_revise import Completer, Method

CONSTITUTION = ROOT / "data/constitutions/contemplative.md"
SAMPLING = Generation(temperature=0.7, min_p=0.05, repetition_penalty=1.2)
TOKENS = 6
SEED = 7


def params(**values: Any) -> Params:
    return Params(
        **{
            "constitution": CONSTITUTION.relative_to(ROOT),
            "format": "conversation",
            "examples": 0,
            "rounds": 1,
            "principles": "all",
            "max_new_tokens": 8,
            **values,
        }
    )


def method(count: int) -> Method:
    prompts = {f"prompt {number}": f"Question {number}?" for number in range(count)}
    principles = {principle.slug: principle for principle in constitution.load(CONSTITUTION).principles}
    return Method(prompts, principles, dialogue.load_format("conversation", ROOT / dialogue.TEMPLATES), 0)


def fields(job: Job, text: str) -> dict[str, Any]:
    """Those of a completion."""
    messages = [message.model_dump() for message in job.turns.messages]
    return {
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "conversation": digest(messages),
        "model": "m",
        "unverified_weights": False,
        "seed": int(digest(job.key)[:8], 16),
    }


class Scribe:
    """Completes a job with its own key, and remembers what it was asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.jobs: dict[str, Job] = {}

    def __call__(self, what: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        self.asked.append(f"{what}: {len(jobs)}")
        self.jobs |= {"/".join(job.key): job for job in jobs}
        return [fields(job, "/".join(job.key)) for job in jobs]


def respond(method: Method) -> list[Response]:
    return [
        Response(prompt_id=name, **fields(Job(("answer", name), dialogue.to_answer("", text), 8), f"answer {name}"))
        for name, text in method.prompts.items()
    ]


class Run:
    """Both stages, one after the other."""

    def __init__(self, method: Method, asked: Params) -> None:
        self.responses = respond(method)
        self.first, self.second = Scribe(), Scribe()
        self.critiques = critique_revise.criticise(method, self.responses, asked, TOKENS, SEED, self.first)
        self.revisions = critique_revise.revise(method, self.responses, self.critiques, TOKENS, self.second)


def test_one_round_asks_what_it_always_asked() -> None:
    task = method(2)
    run = Run(task, params())
    assert run.first.asked == ["critiques: 8"]
    assert run.second.asked == ["revisions: 8"]
    principle = task.principles["emptiness"]
    jobs = run.first.jobs | run.second.jobs
    assert jobs["critique/prompt 1/emptiness/1"] == Job(
        ("critique", "prompt 1", "emptiness", "1"),
        dialogue.to_criticise(task.format, principle, 0, "Question 1?", "answer prompt 1"),
        8,
    )
    assert jobs["revision/prompt 1/emptiness/1"] == Job(
        ("revision", "prompt 1", "emptiness", "1"),
        dialogue.to_revise(
            task.format, principle, 0, "Question 1?", "answer prompt 1", "critique/prompt 1/emptiness/1"
        ),
        TOKENS,
    )
    expected = [(name, slug, 1, by.sha256) for name in task.prompts for slug, by in task.principles.items()]
    for written in (run.critiques, run.revisions):
        assert [(row.prompt_id, row.principle, row.round, row.principle_sha256) for row in written] == expected


@pytest.mark.parametrize("principles", ["all", "random"])
def test_revisions_ask_again_for_what_critiques_asked_for(principles: str) -> None:
    run = Run(method(5), params(rounds=3, principles=principles))
    shared = {key: job for key, job in run.first.jobs.items() if key in run.second.jobs}
    chains = 5 if principles == "random" else 20
    assert len(shared) == 2 * chains
    assert all(run.second.jobs[key] == job for key, job in shared.items())
    assert (
        run.first.asked
        == [f"{what}, round {round}: {chains}" for round in (1, 2, 3) for what in ("critiques", "revisions")][:-1]
    )
    assert run.second.asked == [f"revisions, round {round}: {chains}" for round in (1, 2, 3)]


@pytest.mark.parametrize("principles", ["all", "random"])
def test_each_round_takes_up_the_revision_of_the_one_before(principles: str) -> None:
    run = Run(method(3), params(rounds=3, principles=principles))
    parents = {record.sha256: record for record in (*run.responses, *run.critiques, *run.revisions)}
    assert len(parents) == len(run.responses) + 2 * len(run.critiques)
    for critique in run.critiques:
        criticised = parents[critique.parent]
        assert criticised.prompt_id == critique.prompt_id
        if critique.round == 1:
            assert isinstance(criticised, Response)
        else:
            assert isinstance(criticised, Revision)
            assert criticised.round == critique.round - 1
            assert principles == "random" or criticised.principle == critique.principle
        job = run.first.jobs[critique.text]
        assert job.turns.messages[2].content == criticised.text
    for critique, revision in zip(run.critiques, run.revisions, strict=True):
        assert revision.parent == critique.sha256
        assert (revision.prompt_id, revision.principle, revision.round) == (
            critique.prompt_id,
            critique.principle,
            critique.round,
        )
        assert run.second.jobs[revision.text].turns.messages[2].content == parents[critique.parent].text
    final = [revision for revision in run.revisions if revision.round == 3]
    named = {critique.parent for critique in run.critiques}
    assert [revision for revision in run.revisions if revision.sha256 not in named] == final
    assert [critique.round for critique in run.critiques] == [1, 2, 3] * len(final)


def drawn(task: Method, seed: int = SEED) -> dict[tuple[str, int], str]:
    critiques = critique_revise.criticise(
        task, respond(task), params(rounds=2, principles="random"), TOKENS, seed, Scribe()
    )
    return {(critique.prompt_id, critique.round): critique.principle for critique in critiques}


def test_random_principles_are_drawn_evenly_for_each_prompt_and_round() -> None:
    task = method(200)
    found = drawn(task)
    for round in (1, 2):
        counts = Counter(slug for (_, at), slug in found.items() if at == round)
        assert set(counts) == set(task.principles)
        assert all(30 <= count <= 70 for count in counts.values())  # 50 expected; about 3.3 standard deviations
    same = sum(found[name, 1] == found[name, 2] for name in task.prompts)
    assert 30 <= same <= 70
    assert drawn(task, seed=8) != found
    assert drawn(task) == found


def test_order_of_principles_means_nothing_and_a_new_one_takes_its_share_alone() -> None:
    task = method(100)
    found = drawn(task)
    assert drawn(replace(task, principles=dict(reversed(task.principles.items())))) == found
    new = replace(task.principles["emptiness"], slug="new")
    more = drawn(replace(task, principles={"new": new, **task.principles}))
    changed = {key for key in found if more[key] != found[key]}
    assert changed
    assert {more[key] for key in changed} == {"new"}


def test_edited_entry_of_a_json_constitution_asks_anew_for_itself_alone() -> None:
    text = (ROOT / "data/constitutions/example.json").read_text(encoding="utf-8")
    jobs = []
    for edited in (text, text.replace('and say who.",\n', 'and say whom.",\n', 1)):
        principles = {p.slug: p for p in constitution.parse_json(edited, "f.json").principles}
        run = Run(replace(method(3), principles=principles, examples=2), params(examples=2))
        jobs.append(run.first.jobs | run.second.jobs)
    before, after = jobs
    assert len(before) == len(after) == 12
    assert len(set(before) & set(after)) == 6
    assert all(before[key] == after[key] for key in set(before) & set(after))


def test_critiques_of_something_else_are_refused() -> None:
    task = method(2)
    run = Run(task, params())
    with pytest.raises(UserError, match=r"^data/responses\.jsonl: .* prompt 0"):
        critique_revise.revise(task, run.responses[1:], run.critiques, TOKENS, Scribe())
    other = [run.responses[0], run.responses[1].model_copy(update={"text": "Another."})]
    place = next(at for at, one in enumerate(run.critiques, start=1) if one.prompt_id == "prompt 1")
    with pytest.raises(UserError, match=rf"^data/critiques\.jsonl:{place}: parent"):
        critique_revise.revise(task, other, run.critiques, TOKENS, Scribe())
    fewer = replace(task, principles={"mindfulness": task.principles["mindfulness"]})
    edited = replace(task.principles["emptiness"], statement="Another.")
    for principles in (fewer.principles, task.principles | {"emptiness": edited}):
        with pytest.raises(UserError, match=r"^data/critiques\.jsonl:1: principle: .* by emptiness"):
            critique_revise.revise(replace(task, principles=principles), run.responses, run.critiques, TOKENS, Scribe())


def test_second_stage_pays_for_the_last_round_only(tiny_engine: Transformers) -> None:
    task, asked = method(2), params(rounds=2, principles="random")
    first, second = Completer(tiny_engine, SAMPLING, SEED), Completer(tiny_engine, SAMPLING, SEED)
    responses = respond(task)
    critiques = critique_revise.criticise(task, responses, asked, TOKENS, SEED, first)
    revisions = critique_revise.revise(task, responses, critiques, TOKENS, second)
    assert (first.runtime["generated"], first.runtime["reused"]) == (6, 0)
    assert (second.runtime["generated"], second.runtime["reused"]) == (2, 2)
    written: list[Critique | Revision] = [*critiques, *(row for row in revisions if row.round == 1)]
    assert first.runtime["generated_tokens"] == sum(row.completion_tokens for row in written)
    assert first.runtime["tokens_per_second"] > 0
    assert first.runtime["device"] == "cpu"
    third = Completer(tiny_engine, SAMPLING, SEED)
    assert critique_revise.revise(task, responses, critiques, TOKENS, third) == revisions
    assert (third.runtime["generated"], third.runtime["tokens_per_second"]) == (0, None)


def test_load_warns_of_principles_with_fewer_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    prompt = Prompt(
        prompt_id="a", text="Why?", source="s", source_id="1", hazard="none", persona="p", principle="x", split="train"
    )
    found = critique_revise.load([prompt], CONSTITUTION, "conversation", 2)
    assert (found.prompts, found.examples, len(found.principles)) == ({"a": "Why?"}, 2, 4)
    assert capsys.readouterr().out == ""
    critique_revise.load([prompt], CONSTITUTION, "conversation", 3)
    assert capsys.readouterr().out.endswith(" has fewer for emptiness, non-duality, mindfulness, boundless-care\n")
