"""The tiny model under the journal: what is generated, what is reused, what a kill costs."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, as_model, load_engine, save_model, save_tokenizer
from peft import LoraConfig, get_peft_model

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.hashing import digest, seed_for
from ccai.base.params import Generation, Hardware
from ccai.base.records import Message, Response
from ccai.constitution.dialogue import Turns, to_answer
from ccai.engines.base import Completed, Engine, Request
from ccai.engines.transformers import Transformers
from ccai.generate import completions
from ccai.generate.completions import Job, journal_key
from ccai.generate.journal import Journal, _encode
from ccai.models.model import Model
from ccai.models.placement import Placement

SAMPLING = Generation(temperature=1, min_p=0, repetition_penalty=1)
GREEDY = SAMPLING.model_copy(update={"temperature": 0.0})
SEED = 7


def jobs(count: int, limit: int = 16) -> list[Job]:
    return [Job(("answer", str(n)), to_answer("Be brief.", f"Question {n}?"), limit) for n in range(count)]


def run(engine: Engine, wanted: Sequence[Job], sampling: Generation = SAMPLING) -> completions.Result:
    return completions.complete("test", engine, wanted, sampling, SEED)


def alone(engine: Engine, request: Request) -> Completed:
    [(_, done)] = chain.from_iterable(engine.complete([request]))
    return done


def journal() -> Journal:
    return Journal(cache.folder("journal"))


def spent(result: completions.Result | completions.Scores) -> tuple[int, int]:
    return result.runtime["generated"], result.runtime["reused"]


def test_weights_are_loaded_only_if_something_is_missing(
    tiny_engine: Transformers, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run of a 32B model must not load it to find that nothing is left to write."""
    first = run(tiny_engine, jobs(3))

    def load(model: Model, placement: Placement) -> Any:
        raise UserError("loaded")

    monkeypatch.setattr("ccai.models.load.weights", load)
    again = run(load_engine(tiny_model), jobs(3))
    assert (again.completions, spent(again)) == (first.completions, (0, 3))
    with pytest.raises(UserError, match="loaded"):
        run(load_engine(tiny_model), jobs(4))


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
        assert (response.model, response.unverified_weights) == ("org/tiny", False)
        first_two = [seed_for(SEED, *job.key), seed_for(SEED, *job.key, "attempt 1")]
        assert response.seed in first_two
        asked = Request(job.turns.messages, 0, response.seed, 16, SAMPLING)
        done = alone(tiny_engine, asked)._asdict()
        del done["margin"]
        assert response == Response(prompt_id="p", **fields | done)
    assert len({fields["seed"] for fields in result.completions}) == 30


class OneByOne(Transformers):
    """Hands on every completion and score by itself, with nothing in between; is stopped after so many."""

    stop_after = 1000

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        return self._apart(super().complete(requests))

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        return self._apart(super().score(conversations, labels))

    def _apart(self, batches: Iterator[list[tuple[int, Any]]]) -> Iterator[list[tuple[int, Any]]]:
        for number, finished in enumerate(chain.from_iterable(batches)):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield []
            yield [finished]


@pytest.fixture
def one_by_one(tiny_model: Path) -> OneByOne:
    return OneByOne(as_model(tiny_model), CPU)


def test_after_a_kill_only_the_rest_is_generated(
    one_by_one: OneByOne, tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_by_one.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        run(one_by_one, jobs(50))
    kept = len(journal())
    assert 0 < kept <= 20  # those that said something
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


@pytest.mark.parametrize(
    "change",
    [
        {"text": None},
        {"text": "..."},
        {"finish_reason": "error"},
        {"completion_tokens": 10**30},
        {"completion_tokens": -1},
        {"prompt_tokens": "7"},
        {"prompt_tokens": True},
        {"attempt": []},
        {"margin": "x"},
    ],
    ids=str,
)
def test_value_that_is_none_is_damage_and_generated_again(
    tiny_engine: Transformers, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    """Its checksum is right: somebody wrote the line by hand."""
    first = run(tiny_engine, jobs(3))
    [segment] = cache.folder("journal").iterdir()
    entries = list(journal().entries())
    lines = [entry._replace(value=entry.value | change) if entry is entries[1] else entry for entry in entries]
    segment.write_bytes(b"".join(map(_encode, lines)))
    again = run(tiny_engine, jobs(3))
    assert "the journal has 1 damaged lines" in capsys.readouterr().out
    assert (spent(again), again.completions) == ((1, 2), first.completions)
    if change.get("text") != "...":  # that only its reader knows to be none
        assert spent(run(tiny_engine, jobs(3))) == (0, 3)


@pytest.mark.parametrize("value", [{"probabilities": [0.5]}, {"probabilities": [2, "x"]}, {"text": "A"}, {}], ids=str)
def test_scores_that_are_none_are_damage_and_made_again(
    tiny_engine: Transformers, capsys: pytest.CaptureFixture[str], value: dict[str, Any]
) -> None:
    first = completions.score("test", tiny_engine, conversations(2), LABELS)
    [segment] = cache.folder("journal").iterdir()
    entries = list(journal().entries())
    segment.write_bytes(_encode(entries[0]._replace(value=value)) + _encode(entries[1]))
    again = completions.score("test", tiny_engine, conversations(2), LABELS)
    assert "the journal has 1 damaged lines" in capsys.readouterr().out
    assert spent(again) == (1, 1)
    assert again.probabilities == [pytest.approx(each, abs=1e-6) for each in first.probabilities]


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
                "take that prompt out, raise generation.temperature, or turn off its thinking"
            )
            at = 3
        else:
            [fields] = result.completions
            assert any(character.isalnum() for character in fields["text"])
            at = seeds.index(fields["seed"])
            again = run(tiny_engine, [job])
            assert spent(again) == (0, 1)
            assert again.completions == result.completions
        for seed in seeds[:at]:
            done = alone(tiny_engine, Request(job.turns.messages, 1, seed, 1, SAMPLING))
            assert not any(character.isalnum() for character in done.text)
        attempts[at] = attempts.get(at, 0) + 1
    assert set(attempts) == {0, 1, 2, 3}
    assert len(journal()) == 60 - attempts[3]


def test_empty_completion_does_not_cost_the_others(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match="wrote nothing"):
        run(tiny_engine, jobs(60, limit=1))
    assert len(journal()) > 30


def test_greedy_is_asked_once(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match=r"wrote nothing for answer/[0-9]+ in 1 attempts"):
        run(tiny_engine, jobs(60, limit=1), GREEDY)


class FirstAttemptOnly(Transformers):
    """Is stopped as soon as something is drawn again."""

    asked = False

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        return super().complete(requests)


def test_stopped_between_attempts_ends_with_the_same(
    tiny_model: Path, tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is kept of an empty first attempt: it is made again, and so is the second."""
    wanted = []  # which say something at the first attempt, or later
    for job in jobs(60, limit=1):
        with suppress(UserError):
            run(tiny_engine, [job])
            wanted.append(job)
    whole = run(tiny_engine, wanted).completions
    seeds = [seed_for(SEED, *job.key) for job in wanted]
    at_once = sum(fields["seed"] == seed for fields, seed in zip(whole, seeds, strict=True))
    assert 0 < at_once < len(wanted)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    with pytest.raises(KeyboardInterrupt):
        run(FirstAttemptOnly(as_model(tiny_model), CPU), wanted)
    assert len(journal()) == at_once
    resumed = run(tiny_engine, wanted)
    assert spent(resumed) == (len(wanted) - at_once, at_once)
    assert resumed.completions == whole


def test_jobs_that_must_come_out_the_same_are_generated_once(tiny_engine: Transformers) -> None:
    """At temperature 0 the seed is no part of the key; the records still have seeds of their own."""
    twice = [job._replace(key=(name, *job.key[1:])) for name in ("base", "tuned") for job in jobs(5)]
    greedy = run(tiny_engine, twice, GREEDY)
    assert spent(greedy) == (5, 5)
    assert len(journal()) == 5
    assert [fields["seed"] for fields in greedy.completions] == [seed_for(SEED, *job.key) for job in twice]
    texts = [fields["text"] for fields in greedy.completions]
    assert texts[:5] == texts[5:]
    assert spent(run(tiny_engine, twice)) == (10, 0)


def test_one_key_a_job_is_hashed(tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny_engine, jobs(5))
    hashed: list[str] = []

    def counting(engine: Engine, request: Request) -> str:
        hashed.append(journal_key(engine, request))
        return hashed[-1]

    monkeypatch.setattr(completions, "journal_key", counting)
    assert spent(run(tiny_engine, jobs(30))) == (25, 5)
    assert len(hashed) == 30


def test_journal_of_before_attempts_and_margins_is_still_good(tiny_engine: Transformers) -> None:
    [job] = jobs(1)
    first = run(tiny_engine, [job])
    names = ("text", "finish_reason", "prompt_tokens", "completion_tokens")
    [segment] = cache.folder("journal").iterdir()
    segment.unlink()
    kept = journal()
    request = Request(*job.turns, seed_for(SEED, *job.key), job.max_new_tokens, SAMPLING)
    kept.put({journal_key(tiny_engine, request): {name: first.completions[0][name] for name in names}})
    kept.close()
    again = run(tiny_engine, [job])
    assert spent(again) == (0, 1)
    assert again.completions == first.completions


class Margins(Transformers):
    """Says of each completion how close a call it was."""

    margins: list[float | None]

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        for batch in super().complete(requests):
            yield [(place, done._replace(margin=self.margins[place])) for place, done in batch]


@pytest.mark.parametrize(
    ("margins", "smallest"),
    [([0.5, 0.25, math.inf], 0.25), ([None, 0.5, None], 0.5), ([None] * 3, None), ([math.inf] * 3, None)],
)
def test_smallest_margin_is_told_and_in_no_record(
    tiny_model: Path, margins: list[float | None], smallest: float | None
) -> None:
    engine = Margins(as_model(tiny_model), CPU)
    engine.margins = margins
    for generated in (3, 0):
        result = run(engine, jobs(3), GREEDY)
        assert spent(result) == (generated, 3 - generated)
        assert result.runtime["smallest_margin"] == smallest
        json.dumps(result.runtime, allow_nan=False)
        for fields in result.completions:
            assert Response(prompt_id="p", **fields)


# --- label scores -------------------------------------------------------------------------------------------

LABELS = ("A", "B")


def conversations(count: int) -> list[list[Message]]:
    return [[Message(role="user", content=f"Is {n} even? A) yes B) no")] for n in range(count)]


def scored(engine: Engine, count: int, labels: Sequence[str] = LABELS) -> completions.Scores:
    return completions.score("test", engine, conversations(count), labels)


def test_scores_are_those_of_the_engine_and_kept(tiny_engine: Transformers, capsys: pytest.CaptureFixture[str]) -> None:
    first = scored(tiny_engine, 5)
    assert spent(first) == (5, 0)
    assert capsys.readouterr().out.startswith("test: 5 label scores to generate (0 reused)\ntest: 5/5, ")
    direct = dict(chain.from_iterable(tiny_engine.score(conversations(5), LABELS)))
    assert first.probabilities == [pytest.approx(direct[place], abs=1e-6) for place in range(5)]
    assert len({tuple(found) for found in first.probabilities}) == 5
    more = scored(tiny_engine, 8)
    assert spent(more) == (3, 5)
    assert more.probabilities[:5] == first.probabilities
    assert scored(tiny_engine, 8) == more._replace(runtime=more.runtime | {"generated": 0, "reused": 8})
    assert more.runtime["device"] == "cpu"


def test_scores_of_other_labels_are_others_and_none_is_a_completion(tiny_engine: Transformers) -> None:
    straight, turned = scored(tiny_engine, 2), scored(tiny_engine, 2, ("B", "A"))
    assert spent(turned) == (2, 0)
    assert turned.probabilities == [pytest.approx(found[::-1], abs=1e-6) for found in straight.probabilities]
    asked = [Job(("x", str(n)), Turns(tuple(messages), 0), 16) for n, messages in enumerate(conversations(2))]
    assert spent(run(tiny_engine, asked, GREEDY)) == (2, 0)


def test_scores_are_kept_for_this_engine_this_conversation_and_this_repeat_alone(
    tiny_engine: Transformers, tmp_path: Path
) -> None:
    def asked(engine: Engine, *turns: Message, repeat: int = 0) -> completions.Scores:
        question = Message(role="user", content="Is 1 even? A) yes B) no")
        return completions.score("test", engine, [[*turns, question]], LABELS, repeat)

    system, another = (Message(role="system", content=text) for text in ("Be brief.", "Be kind."))
    save_model(tmp_path / "other", seed=1)
    other = load_engine(tmp_path / "other")
    found = [asked(tiny_engine), asked(tiny_engine, system), asked(tiny_engine, another), asked(other)]
    assert [spent(one) for one in found] == [(1, 0)] * 4
    assert len({tuple(one.probabilities[0]) for one in found}) == 4
    assert [spent(asked(tiny_engine, repeat=times)) for times in (0, 1, 1, 2)] == [(0, 1), (1, 0), (0, 1), (1, 0)]


def test_scores_known_before_a_kill_are_kept(one_by_one: OneByOne) -> None:
    one_by_one.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        scored(one_by_one, 10)
    one_by_one.stop_after = 1000
    assert spent(scored(one_by_one, 10)) == (6, 4)


def test_equal_questions_are_scored_once(tiny_engine: Transformers) -> None:
    result = completions.score("test", tiny_engine, conversations(3) * 2, LABELS)
    assert spent(result) == (3, 3)
    assert result.probabilities[:3] == result.probabilities[3:]


def test_labels_that_cannot_be_scored_leave_nothing(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match="not single tokens"):
        scored(tiny_engine, 2, ("A", "no such token"))
    assert len(journal()) == 0


# --- engines by name ----------------------------------------------------------------------------------------

HARDWARE = Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none")


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own as the current one, whose catalogue has a model behind an endpoint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    entry = "served: {endpoints: [http://127.0.0.1:9/v1], model: m, revision: r1}\n"
    (tmp_path / "conf/models.yaml").write_text(entry, encoding="utf-8")


@pytest.mark.usefixtures("catalogue")
def test_folder_is_placed_once_for_both_arms(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "tiny")
    adapter = tmp_path / "adapter"
    get_peft_model(save_model(tmp_path / "other"), LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    base = completions.load_engine(str(folder), HARDWARE)
    assert capsys.readouterr().out.startswith("model: local/tiny on cpu, float32: needs about ")
    tuned = completions.load_engine(str(folder), HARDWARE, adapter)
    assert capsys.readouterr().out == ""
    assert (base.name, tuned.name) == ("local/tiny", "local/tiny+adapter")
    assert base.revision == tuned.revision
    assert base.runtime == tuned.runtime
    assert {part for part in base.identity if base.identity[part] != tuned.identity[part]} == {"adapter"}


@pytest.mark.usefixtures("catalogue")
def test_endpoint_takes_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model served: an endpoint can't take .*adapter; name a model with local"):
        completions.load_engine("served", HARDWARE, tmp_path / "adapter")


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
    tiny_engine: Transformers, tiny_model: Path, tmp_path: Path
) -> None:
    key = journal_key(tiny_engine, REQUEST)
    assert journal_key(tiny_engine, replace(REQUEST, shared=0)) == key
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


def test_identity_tells_apart_all_that_an_engine_is_made_of(tiny_model: Path, tmp_path: Path) -> None:
    """Two adapters, too: a model trained again must not be given the old one's answers."""

    def adapter(name: str, content: bytes) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
        (tmp_path / name / "adapter_model.safetensors").write_bytes(content)
        return tmp_path / name

    def key(template: dict[str, Any] | None = None, adapter: Path | None = None, **held: Any) -> str:
        placement = CPU._replace(**held)
        model = replace(as_model(tiny_model), template=template or {})
        return journal_key(Transformers(model, placement, adapter), REQUEST)

    one, two = adapter("one", b"1"), adapter("two", b"2")
    assert key(reason="another day") == key()
    assert key(adapter=one) == key(adapter=shutil.copytree(one, tmp_path / "elsewhere"))
    keys = [
        key(),
        *(key(adapter=folder) for folder in (one, two)),
        *(key(device=device) for device in ("cuda", "mps")),
        *(key(dtype=dtype) for dtype in ("bfloat16", "float16")),
        *(key(quantization=form) for form in ("8bit", "4bit")),
        *(key(template={"thinking": value}) for value in (True, False)),
    ]
    assert len(set(keys)) == len(keys)
    assert "gumbel-max-3" in Transformers(as_model(tiny_model), CPU).identity["engine"], "and how tokens are drawn"


def test_metrics_are_counts_of_the_completions(tiny_engine: Transformers) -> None:
    written = [Response(prompt_id="p", **fields) for fields in run(tiny_engine, jobs(40)).completions]
    ended = [done for done in written if done.finish_reason == "stop"]
    assert 0 < len(ended) < 40
    assert completions.metrics(written, tiny_engine, SEED) == {
        "model": "org/tiny",
        "revision": "0123abcd",
        "unverified_weights": False,
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


class Silent(Transformers):
    """Can't tell how long it may take."""

    def estimate(self, requests: Sequence[Request]) -> None:  # type: ignore[override]
        return None


def test_no_estimate_is_no_number(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Silent(as_model(tiny_model), CPU), jobs(3))
    assert capsys.readouterr().out.startswith("test: 3 completions to generate (0 reused), up to 48 tokens\n")


def test_progress_says_what_is_known(
    one_by_one: OneByOne, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Completions come one by one, with nothing in between: no rate before a tenth is there, no end before the end."""
    monkeypatch.setattr(completions, "LINE_EVERY", 0.0)
    result = run(one_by_one, jobs(30))
    _, *lines = capsys.readouterr().out.splitlines()
    counts = [int(line.removeprefix("test: ").partition("/30")[0]) for line in lines]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 30)
    for count, line in zip(counts, lines, strict=True):
        end = r", \d+ tokens/s, about (\d+|a) seconds? left" if count < 30 else r", \d+ tokens/s, (\d+|a) seconds?"
        assert re.fullmatch(f"test: {count}/30" + (end if count >= 3 else ""), line)
    assert result.runtime["generated_tokens"] == sum(fields["completion_tokens"] for fields in result.completions)


def test_log_has_a_line_now_and_then_and_one_at_the_end(
    one_by_one: OneByOne, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completions, "LINE_EVERY", 3600.0)
    run(one_by_one, jobs(30))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_shared_prefix_and_single_messages_are_the_same_text(
    tiny_engine: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`shared` is no part of the key, so it must be none of the text."""
    wanted = jobs(30)
    shared = run(tiny_engine, wanted)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    apart = [job._replace(turns=Turns(job.turns.messages, 0)) for job in wanted]
    assert run(tiny_engine, apart).completions == shared.completions
