"""The benchmark on the tiny model: everybody does the same work, and the arithmetic of the limit is right."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from bench import contenders, flips, generation, limits, machine, prepare, roofline, scoring, work
from bench.roofline import Linear, Machine
from bench.work import STAGES, Item, Work
from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.engines.attention import Pass
from ccai.engines.base import Completed, Request
from ccai.engines.transformers import NEAR_TIE, Transformers
from ccai.judge.judge import KEEPS, VIOLATES
from ccai.models import find, load
from ccai.models.placement import Placement, place

SAMPLING = Generation(temperature=1, min_p=0, repetition_penalty=1)
REQUEST = Request((Message(role="user", content="Why?"),), 0, 1, 8, SAMPLING)


@pytest.fixture(scope="module")
def todo(shared_cache: None, tiny_model: Path) -> Work:
    """Two prompts, two principles: two responses, four critiques, four revisions."""
    options = argparse.Namespace(
        prompts=2,
        source="contemplative",
        principles=2,
        examples=1,
        format="conversation",
        model=str(tiny_model),
        greedy=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return prepare.build(options)


def placement(folder: Path) -> Placement:
    return place(find.find(str(folder)), prepare.FLOAT32)


def test_work_is_that_of_the_stages(todo: Work) -> None:
    assert [item.stage for item in todo.items] == ["responses"] * 2 + ["critiques"] * 4 + ["revisions"] * 4
    tokenizer = prepare.Tokenizer(Path(todo.model))
    for group in {item.group for item in todo.items}:
        rows = [tokenizer.prompt(item.request) for item in todo.items if item.group == group]
        [shared] = {item.shared_tokens for item in todo.items if item.group == group}
        assert all(row[:shared] == rows[0][:shared] for row in rows)
        assert len({row[shared] for row in rows}) > 1
    answer = todo.answers[0][1]
    assert answer in [message.content for message in todo.items[2].request.messages]


def test_contenders_write_the_same_texts(todo: Work) -> None:
    items = [item._replace(request=replace(item.request, max_new_tokens=8)) for item in todo.items]
    written = {}
    for name in ("naive", "fixed-3", "sorted-3", "ours"):
        contender = contenders.load(name, find.find(todo.model), "float32", None)
        batches = contenders.plan(name, contender.rows, items, seed=1)
        done = contenders.measure(contender, items, batches, seconds=600)
        written[name] = sorted(outcome for batch in done for outcome in batch.outcomes)
        assert contender.positions and contender.positions >= sum(batch.completion_tokens for batch in done)
    assert len(written["ours"]) == len(todo.items)
    assert {"stop", "length"} == {reason for _, _, _, reason in written["ours"]}
    for name, outcomes in written.items():
        assert outcomes == written["ours"], name


def test_a_sample_takes_whole_batches_from_each_stage_in_turn() -> None:
    sizes = {"responses": 10, "critiques": 40, "revisions": 40}
    items = [Item(stage, 0, 5, 0, REQUEST) for stage, size in sizes.items() for _ in range(size)]
    batches = list(contenders.plan("fixed-4", 4, items, seed=1))
    assert sorted(index for batch in batches for index in batch) == list(range(len(items)))
    assert {items[batch[0]].stage for batch in batches[:3]} == set(STAGES)
    for stop in range(3, len(batches)):
        done = [items[index].stage for batch in batches[:stop] for index in batch]
        shares = [done.count(stage) / size for stage, size in sizes.items()]
        assert max(shares) - min(shares) <= 0.5
    assert list(contenders.plan("fixed-4", 4, items, seed=2)) != batches


def test_a_contender_stops_when_its_time_is_up_but_sees_some_of_each_stage(
    todo: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    contender = contenders.load("naive", find.find(todo.model), "float32", None)

    def stages() -> list[str]:
        plan = contenders.plan("naive", 1, todo.items, seed=1)
        return [batch.stage for batch in contenders.measure(contender, todo.items, plan, seconds=0)]

    assert len(stages()) == min(contenders.LEAST, len(todo.items))
    monkeypatch.setattr(contenders, "LEAST", 1)
    assert stages() == list(STAGES)


def test_the_whole_is_extrapolated_by_stage() -> None:
    batches = [
        {"stage": stage, "seconds": seconds, "outcomes": [None] * rows}
        for stage, seconds, rows in [
            ("responses", 2, 2),
            ("critiques", 8, 2),
            ("critiques", 12, 2),
            ("revisions", 9, 3),
        ]
    ]
    run = generation.Run(batches, 0)
    total = {"responses": 10, "critiques": 40, "revisions": 40}
    assert run.whole(total, "seconds") == 10 * 1 + 40 * 5 + 40 * 3
    assert run.standard_error(total) is None
    twice = generation.Run([*batches, {**batches[0], "seconds": 4}, batches[-1]], 0)
    assert twice.standard_error(total) == pytest.approx(((10 * 0.5) ** 2 + (40 * 1) ** 2) ** 0.5)


def test_least_time_by_hand() -> None:
    """One layer of one weight, one head of size 2; peak 1 FLOP/s, 1 byte/s. Two prompts of 5 tokens that share 3."""
    weight, head = Linear("weight", 2, 3, 1, 1.0), Linear("head", 4, 3, 1, 1.0)
    limit = Machine("float32", 4, [weight], head, layers=1, heads=1, kv_heads=1, head_size=2, read=0.5, copy=1.0)
    items = [Item("critiques", 0, 5, 3, REQUEST)] * 2
    phases = roofline.least(limit, items, [(4, "stop"), (3, "length")])["phases"]
    prefill, decode = phases["prefill matmul"], phases["decode matmul"]
    assert prefill["flops"] == 7 * 12 + 2 * 24  # 3 shared tokens and 2 x 2 own ones; two draws
    assert prefill["bytes"] == 4 * (6 + 12)
    assert decode["flops"] == 6 * (12 + 24)  # 4 steps, since an end was drawn, and 2
    assert decode["bytes"] == pytest.approx(4 * (6 + 12) * 6 / roofline.ROWS)
    assert phases["prefill attention"]["flops"] == 8 * (1 + 2 + 3 + 2 * (4 + 5))
    assert phases["decode attention"]["flops"] == 8 * ((6 + 7 + 8 + 9) + (6 + 7))
    own = (3 + 4 + 5 + 6) + (3 + 4)
    assert phases["decode attention"]["bytes"] == pytest.approx(16 * (own + 6 * 3 / roofline.ROWS + 6))
    assert prefill["seconds"] == max(prefill["flops"], prefill["bytes"])


def test_limits_are_those_of_the_model(tiny_model: Path) -> None:
    found = limits.measure(tiny_model, torch.float32, repeats=1, buffer=2**20)
    model = load.weights(find.find(str(tiny_model)), placement(tiny_model))
    weights = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name and "embed" not in name)
    assert found.flops_per_token == 2 * weights
    assert min(found.peak, found.read, found.copy) > 0
    assert "GFLOP/s" in roofline.report(found)
    faster = roofline.best(found, roofline.load({**json.loads(json.dumps(vars(found))), "read": 1e15}))
    assert faster.bandwidth == 1e15
    assert faster.peak == found.peak


def test_layouts_do_not_change_texts_and_a_difference_is_counted(todo: Work) -> None:
    model = find.find(todo.model)
    engine, tokenizer = flips.Redrawing(model, placement(Path(todo.model)), 5), prepare.Tokenizer(Path(todo.model))
    requests = flips.requests_for(400, todo)
    reference, drawn = flips.complete(engine, requests, flips.REFERENCE), engine.drawn
    assert sorted(reference) == list(range(len(requests)))
    assert reference == flips.complete(Transformers(model, engine.placement), requests, flips.REFERENCE)
    for layout in flips.LAYOUTS:
        engine.drawn = {}
        found = flips.compare(tokenizer, reference, flips.complete(engine, requests, layout))
        draws, apart = flips.compare_draws(drawn, engine.drawn)
        assert (draws, apart) == (5 * len(engine.drawn), 0), layout.name
        assert draws >= 5 * found.tokens  # the ends that were drawn are none of a completion's tokens
        assert found.flips == 0, layout.name
        assert found.completions == max(1, round(len(requests) * layout.share))
        assert found.moved < NEAR_TIE
    one = {0: Completed("mind is calm", "stop", 5, 9, 0.02), 1: Completed("calm", "stop", 5, 3, 0.0)}
    other = {0: Completed("mind was calm", "stop", 5, 9), 1: one[1], 2: one[1]}
    alike = prepare._common([tokenizer.own.encode(done[0].text) for done in (one, other)])
    assert flips.compare(tokenizer, one, other) == (2, alike + 1 + 3, 1, 0.0, 1)
    closer = {1: one[1]._replace(margin=0.5)}
    assert flips.compare(tokenizer, one, closer) == (1, 3, 0, 0.5, 0)
    assert flips.margins(list(one.values())) == {"0": 1, "1e-2": 1}


def test_rounding_that_depends_on_the_layout_shows_in_more_draws(todo: Work) -> None:
    class Rough(flips.Redrawing):
        def _forward(self, flat: Pass) -> torch.Tensor:
            logits = super()._forward(flat)
            return logits + 0.05 * torch.sin(torch.arange(logits.shape[1]) * len(flat.tokens))

    engine = Rough(find.find(todo.model), placement(Path(todo.model)), 50)
    requests = flips.requests_for(100, todo)
    flips.complete(engine, requests, flips.REFERENCE)
    drawn, engine.drawn = engine.drawn, {}
    flips.complete(engine, requests, flips.LAYOUTS[-1]._replace(share=1))
    draws, apart = flips.compare_draws(drawn, engine.drawn)
    assert 0 < apart < draws / 10


def test_scoring_is_timed_on_verdicts_of_full_length(todo: Work) -> None:
    engine = Transformers(find.find(todo.model), placement(Path(todo.model)))
    asked = scoring.questions(todo, VIOLATES, KEEPS)
    assert all(text.endswith(scoring.SHORT) for text in asked)
    assert scoring.verdict(asked[0], todo).messages[0].content.endswith(scoring.LONG)
    assert set(scoring.long_enough(engine, asked, todo)) <= set(asked)
    assert min(vars(scoring.measure(engine, asked, asked[:1], todo)).values()) > 0


def test_unknown_contender_is_one_line() -> None:
    with pytest.raises(UserError, match="fixed-0: no such contender"):
        generation._names(argparse.Namespace(contenders="naive,fixed-0", gguf=None))


@pytest.mark.slow
def test_one_run_from_end_to_end(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.generation", "--prompts", "2", "--principles", "1", "--examples", "0"]
    command += [
        "--contenders",
        "fixed-2",
        "--seconds-each",
        "0",
        "--model",
        str(tiny_model),
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "generation-float32.json").read_text())
    assert found["work"]["stages"]["revisions"]["completions"] == 2
    assert found["contenders"]["ours"]["completions_done"] == 6
    assert found["contenders"]["fixed-2"]["same_texts"] == 1
    assert found["best_fixed"] == "fixed-2"
    ours = found["contenders"]["ours"]
    assert found["summary"]["share_of_the_limit"] == found["least"]["seconds"] / ours["whole_work_seconds"]
    assert 0 < found["summary"]["memory_over_best_fixed"] < 10
    assert "fixed-2" in done.stdout
    texts = [part for pair in work.read(tmp_path / "cache/bench/work.json").answers for part in pair if len(part) > 20]
    assert texts
    for text in texts:
        assert text not in done.stdout + json.dumps(found, ensure_ascii=False)
    assert found["machine"]["threads"] == machine.threads()
