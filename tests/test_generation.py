"""The tiny model under the journal: what is generated, what is reused, what a kill costs."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, as_model, load_engine, save_model, save_tokenizer

from ccai import cache, generation
from ccai.conversation import Turns, to_answer
from ccai.engines import transformers as engines
from ccai.engines.request import Completed, Request
from ccai.engines.transformers import Transformers
from ccai.errors import UserError
from ccai.generation import Job, journal_key
from ccai.journal import Journal
from ccai.models import Placement
from ccai.params import Generation
from ccai.records import Message, Response, digest, seed_for

SAMPLING = Generation(temperature=1, min_p=0, repetition_penalty=1)
SEED = 7


def jobs(count: int, limit: int = 16) -> list[Job]:
    return [Job(("answer", str(n)), to_answer("Be brief.", f"Question {n}?"), limit) for n in range(count)]


def run(engine: Transformers, wanted: Sequence[Job], seed: int = SEED) -> generation.Result:
    return generation.complete("test", engine, wanted, SAMPLING, seed)


def journal() -> Journal:
    return Journal(cache.folder("journal"))


def spent(result: generation.Result) -> tuple[int, int]:
    return result.runtime["generated"], result.runtime["reused"]


def test_second_run_generates_nothing_and_a_longer_one_only_the_rest(tiny_engine: Transformers) -> None:
    first = run(tiny_engine, jobs(30))
    assert spent(first) == (30, 0)
    again = run(tiny_engine, jobs(30)[::-1])
    assert spent(again) == (0, 30)
    assert again.completions == first.completions[::-1]
    assert again.runtime["tokens_per_second"] is None
    more = run(tiny_engine, jobs(40))
    assert spent(more) == (10, 30)
    assert more.completions[:30] == first.completions


def test_completions_are_records_that_can_be_traced(tiny_engine: Transformers) -> None:
    result = run(tiny_engine, jobs(30))
    for job, fields in zip(jobs(30), result.completions, strict=True):
        response = Response(prompt_id="p", **fields)
        assert response.conversation == digest([message.model_dump() for message in job.turns.messages])
        assert response.model == "org/tiny"
        first_two = [seed_for(SEED, *job.key), seed_for(SEED, *job.key, "attempt 1")]
        assert response.seed in first_two
        asked = Request(job.turns.messages, 0, response.seed, 16, SAMPLING)
        [[(_, done)]] = tiny_engine.complete([asked])
        assert response == Response(prompt_id="p", **fields | done._asdict())
    assert len({fields["seed"] for fields in result.completions}) == 30


class Stopped(Transformers):
    """Is interrupted after so many batches."""

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        for number, batch in enumerate(super().complete(requests)):
            if number == 4:
                raise KeyboardInterrupt
            yield batch


def test_after_a_kill_only_the_rest_is_generated(
    tiny_model: Path, tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(engines.MAX_ROWS, "cpu", 8)
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(as_model(tiny_model), CPU), jobs(50))
    kept = len(journal())
    assert 0 < kept < 50
    resumed = run(tiny_engine, jobs(50))
    assert spent(resumed) == (50 - kept, kept)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    assert run(tiny_engine, jobs(50)).completions == resumed.completions


def test_damaged_line_is_said_and_generated_again(
    tiny_engine: Transformers, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tiny_engine, jobs(10))
    [segment] = cache.folder("journal").iterdir()
    segment.write_bytes(segment.read_bytes()[:-5])
    again = run(tiny_engine, jobs(10))
    assert "test: the journal has 1 damaged lines; passed over" in capsys.readouterr().out
    assert spent(again) == (1, 9)
    assert again.completions == first.completions


def test_empty_completions_are_drawn_again_and_never_kept(tiny_engine: Transformers) -> None:
    """At one token a completion, many hold no letter or digit; some do not at the third attempt either."""
    attempts: dict[int, int] = {}
    for job in jobs(60, limit=1):
        seeds = [seed_for(SEED, *job.key), *(seed_for(SEED, *job.key, f"attempt {n}") for n in (1, 2))]
        try:
            result = run(tiny_engine, [job])
        except UserError as error:
            assert str(error) == (
                f"test: org/tiny wrote nothing for {'/'.join(job.key)} in 3 attempts; "
                "take that prompt out or raise generation.temperature"
            )
            at = 3
        else:
            [fields] = result.completions
            assert any(character.isalnum() for character in fields["text"])
            at = seeds.index(fields["seed"])
            assert spent(run(tiny_engine, [job])) == (0, 1)
        for seed in seeds[:at]:
            [[(_, done)]] = tiny_engine.complete([Request(job.turns.messages, 1, seed, 1, SAMPLING)])
            assert not any(character.isalnum() for character in done.text)
        attempts[at] = attempts.get(at, 0) + 1
    assert set(attempts) == {0, 1, 2, 3}
    assert len(journal()) == 60 - attempts[3]


def test_empty_completion_does_not_cost_the_others(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match="wrote nothing"):
        run(tiny_engine, jobs(60, limit=1))
    assert len(journal()) > 30


def test_greedy_is_asked_once(tiny_engine: Transformers) -> None:
    greedy = SAMPLING.model_copy(update={"temperature": 0.0})
    with pytest.raises(UserError, match=r"wrote nothing for answer/[0-9]+ in 1 attempts"):
        generation.complete("test", tiny_engine, jobs(60, limit=1), greedy, SEED)


# --- the key ------------------------------------------------------------------------------------------------

REQUEST = Request(
    to_answer("Be brief.", "Why?").messages, 1, 5, 16, Generation(temperature=0.7, min_p=0.05, repetition_penalty=1.2)
)


def messages(*changes: tuple[str, str]) -> dict[str, Any]:
    return {"messages": tuple(Message(role=role, content=content) for role, content in changes)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        messages(("system", "Be brief."), ("user", "Why not?")),
        messages(("system", "Be kind."), ("user", "Why?")),
        messages(("user", "Be brief."), ("user", "Why?")),
        messages(("user", "Why?")),
        {"seed": 6},
        {"max_new_tokens": 17},
        {"sampling": REQUEST.sampling.model_copy(update={"temperature": 0.8})},
        {"sampling": REQUEST.sampling.model_copy(update={"temperature": 0.0})},
        {"sampling": REQUEST.sampling.model_copy(update={"min_p": 0.06})},
        {"sampling": REQUEST.sampling.model_copy(update={"repetition_penalty": 1.3})},
    ],
    ids=str,
)
def test_key_changes_with_all_that_can_change_the_text(tiny_engine: Transformers, change: dict[str, Any]) -> None:
    assert journal_key(tiny_engine, replace(REQUEST, **change)) != journal_key(tiny_engine, REQUEST)


def test_key_stays_with_what_cannot_change_the_text(
    tiny_engine: Transformers, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = journal_key(tiny_engine, REQUEST)
    assert journal_key(tiny_engine, replace(REQUEST, shared=0)) == key
    monkeypatch.setitem(engines.MAX_ROWS, "cpu", 2)
    elsewhere = load_engine(shutil.copytree(tiny_model, tmp_path / "elsewhere"))
    assert journal_key(elsewhere, REQUEST) == key
    greedy = REQUEST.sampling.model_copy(update={"temperature": 0.0})
    other_seed = replace(REQUEST, sampling=greedy.model_copy(update={"min_p": 0.5}), seed=99)
    assert journal_key(tiny_engine, replace(REQUEST, sampling=greedy)) == journal_key(tiny_engine, other_seed)


def test_key_changes_with_every_part_of_the_identity(tiny_engine: Transformers) -> None:
    keys = {journal_key(tiny_engine, REQUEST)}
    for part in tiny_engine.identity:
        other = copy.copy(tiny_engine)
        other.identity = tiny_engine.identity | {part: "other"}
        keys.add(journal_key(other, REQUEST))
    assert len(keys) == 1 + len(tiny_engine.identity)


def test_identity_tells_weights_template_and_dtype_apart(
    tiny_engine: Transformers, tiny_model: Path, tmp_path: Path
) -> None:
    save_model(tmp_path / "other", seed=1)
    folder = shutil.copytree(tiny_model, tmp_path / "template")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    save_tokenizer(folder, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    half = Transformers(as_model(tiny_model), Placement("cpu", "bfloat16", "none", ""))
    others = [load_engine(tmp_path / "other"), load_engine(folder), half]
    keys = [journal_key(engine, REQUEST) for engine in [tiny_engine, *others]]
    assert len(set(keys)) == 4


def test_metrics_are_counts_of_the_completions(tiny_engine: Transformers) -> None:
    written = [Response(prompt_id="p", **fields) for fields in run(tiny_engine, jobs(40)).completions]
    ended = [done for done in written if done.finish_reason == "stop"]
    assert 0 < len(ended) < 40
    assert generation.metrics(written, tiny_engine, SEED) == {
        "model": "org/tiny",
        "revision": "0123abcd",
        "seed": SEED,
        "completions": 40,
        "ended": len(ended) / 40,
        "tokens_mean": sum(done.completion_tokens for done in written) / 40,
    }


def test_says_before_it_starts_what_there_is_to_do(
    tiny_engine: Transformers, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_engine, jobs(3))
    assert capsys.readouterr().out.startswith("test: 3 completions to generate (0 reused), up to 48 tokens, about ")
    run(tiny_engine, jobs(3))
    assert capsys.readouterr().out == "test: 0 completions to generate (3 reused)\n"


def test_shared_prefix_and_single_messages_are_the_same_text(
    tiny_engine: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`shared` is no part of the key, so it must be none of the text."""
    wanted = jobs(30)
    shared = run(tiny_engine, wanted)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    apart = [job._replace(turns=Turns(job.turns.messages, 0)) for job in wanted]
    assert run(tiny_engine, apart).completions == shared.completions
