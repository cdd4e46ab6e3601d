"""The choice of prompts: by content, whatever the order of rows and whoever else is there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from helpers.prompts import HAZARDS, made, of, settings

from ccai.base import hashing, params
from ccai.base.errors import UserError
from ccai.base.files import read, read_json
from ccai.base.records import Prompt
from ccai.prompts import fetch, sources
from ccai.prompts.select import choose, prompt_id, slips

ROOT = Path(__file__).parents[1]


def sides(prompts: list[Prompt]) -> dict[str, str]:
    return {prompt.text: prompt.split for prompt in prompts}


def test_row_order_changes_nothing() -> None:
    rows = made(200)
    # Equal prompts with different labels, and a near-duplicate, are where order could leak in.
    rows += [rows[0]._replace(hazard="h9", source_id="x"), rows[1]._replace(source="other")]
    rows += [rows[2]._replace(text=rows[2].text + "!")]
    for some in (settings(), settings(train=30, eval=30)):
        first = choose(rows, some, 7)
        for seed in range(5):
            assert choose(random.Random(seed).sample(rows, len(rows)), some, 7) == first


def test_adding_prompts_moves_none() -> None:
    before = sides(choose(made(150), settings(), 7).prompts)
    after = sides(choose(made(150) + made(300, seed=1), settings(), 7).prompts)
    assert {text: after[text] for text in before} == before


def test_side_depends_on_neither_seed_nor_source_nor_exclusions() -> None:
    rows = made(150)
    before = sides(choose(rows, settings(), 7).prompts)
    other = sides(choose([row._replace(source="renamed") for row in rows], settings(), 8).prompts)
    fewer = sides(choose(rows, settings(exclude_hazards=["h1"]), 7).prompts)
    assert other == before
    assert fewer == {text: before[text] for text in fewer}
    assert len(fewer) < len(before)


def test_share_of_eval_is_what_was_asked_for_even_in_groups() -> None:
    rows = [row._replace(text=f"{row.text} {mark}") for row in made(800) for mark in (".", "!", "?")]
    counts = choose(rows, settings(), 7).counts
    assert counts["near_duplicate_groups"] == 800
    available = counts["available"]
    assert isinstance(available, dict)
    assert 0.36 < available["eval"] / len(rows) < 0.44


def test_near_duplicates_stay_on_one_side() -> None:
    rows = made(100)
    near = [row._replace(text=row.text.upper().replace(" ", "  ", 2) + " please") for row in rows]
    side = sides(choose(rows + near, settings(), 7).prompts)
    assert all(side[a.text] == side[b.text] for a, b in zip(rows, near, strict=True))
    assert set(side.values()) == {"train", "eval"}


def test_exact_duplicates_keep_the_smallest_prompt_id() -> None:
    rows = made(20)
    copies = [row._replace(source="other") for row in rows]
    chosen = choose(rows + copies, settings(), 7)
    assert chosen.counts["exact_duplicates"] == 20
    kept = {prompt.text: prompt.prompt_id for prompt in chosen.prompts}
    assert kept == {a.text: min(prompt_id(a), prompt_id(b)) for a, b in zip(rows, copies, strict=True)}


def test_excluded_hazards_go_with_every_copy_of_the_text() -> None:
    rows = made(40)
    relabelled = rows[0]._replace(source="other", hazard="CSE")
    chosen = choose([*rows, relabelled], settings(), 7)
    assert chosen.counts["excluded"] == 2
    assert rows[0].text not in sides(chosen.prompts)
    lower = relabelled._replace(hazard="cse")
    written_otherwise = choose([*rows, lower], settings(exclude_hazards=["CSE"]), 7)
    assert written_otherwise.prompts == chosen.prompts, "whatever the case of letters on either side"


def test_samples_are_even_and_grow() -> None:
    rows = made(400)
    for asked in (1, 5, 10, 23, 40):
        for side in ("train", "eval"):
            chosen = of(choose(rows, settings(train=asked, eval=asked), 7).prompts, side)
            assert len(chosen) == asked
            for label in ("hazard", "persona"):
                taken = Counter(dict.fromkeys({getattr(row, label) for row in rows}, 0))
                taken.update(getattr(prompt, label) for prompt in chosen)
                assert max(taken.values()) - min(taken.values()) <= 1
    texts = [set(sides(choose(rows, settings(train=n, eval=5), 7).prompts)) for n in (24, 27, 60, 0)]
    assert texts[0] < texts[1] < texts[2]
    train = set(sides(of(choose(rows, settings(), 7).prompts, "train")))
    assert texts[2] - set(sides(of(choose(rows, settings(train=60, eval=5), 7).prompts, "eval"))) < train


@pytest.mark.parametrize(("weight", "asked", "expected"), [(3, 40, 30), (0.25, 40, 8), (1, 40, 20), (1000, 200, 120)])
def test_weights_decide_the_mix_as_long_as_prompts_last(weight: float, asked: int, expected: int) -> None:
    rows = made(200, source="heavy") + made(500, seed=1, source="light")
    mixed = settings(sources=[{"source": "data/heavy", "weight": weight}, "light"], eval_share=0.4, train=asked, eval=1)
    by_source = Counter(prompt.source for prompt in of(choose(rows, mixed, 7).prompts, "train"))
    there = sum(prompt.source == "heavy" for prompt in of(choose(rows, settings(), 7).prompts, "train"))
    assert by_source["heavy"] == (there if weight == 1000 else expected)
    assert by_source.total() == asked


def test_weighted_samples_grow_and_do_not_depend_on_row_order() -> None:
    rows = made(150, source="heavy") + made(150, seed=1, source="light")
    sources_ = [{"source": "heavy", "weight": 2.5}, "light"]
    samples = []
    for asked in (3, 17, 40, 41, 90):
        some = settings(sources=sources_, train=asked, eval=asked // 2)
        chosen = choose(rows, some, 7)
        assert choose(random.Random(asked).sample(rows, len(rows)), some, 7) == chosen
        samples.append(set(sides(of(chosen.prompts, "train"))))
    assert all(smaller < larger for smaller, larger in pairwise(samples))


def test_equal_weights_are_no_weights() -> None:
    rows = made(150, source="one") + made(100, seed=1, source="other")
    same = settings(sources=[{"source": "one", "weight": 4}, {"source": "other", "weight": 4}], train=31, eval=20)
    assert choose(rows, same, 7) == choose(rows, settings(sources=["one", "other"], train=31, eval=20), 7)


def test_only_keeps_what_has_all_the_labels() -> None:
    rows = made(200)
    chosen, counts = choose(rows, settings(only={"persona": ["SKILLED"], "hazard": ["h1", "h2"]}), 7)
    assert {(prompt.hazard, prompt.persona) for prompt in chosen} == {("h1", "skilled"), ("h2", "skilled")}
    assert len(chosen) + int(str(counts["filtered"])) == 200
    assert sides(chosen).items() <= sides(choose(rows, settings(), 7).prompts).items()


def test_values_that_never_occur_are_named_with_those_that_do() -> None:
    rows = made(40)
    slip = settings(only={"persona": ["normal", "skilled"]}, exclude_hazards=["cse", "csx", "h1"])
    assert list(slips(rows, slip)) == [
        "prompts.only.persona: 'normal' never occurs; there are skilled, unskilled",
        "prompts.exclude_hazards: 'csx' never occurs; there are h1, h2, h3, h4, h5",
    ]
    assert list(slips(rows, settings(only={"persona": ["Skilled"]}))) == []
    many = [row._replace(hazard=f"z{number:03}") for number, row in enumerate(rows)]
    [line] = slips(many, settings(only={"hazard": ["z"]}))
    assert line.endswith("z019 and 20 more")
    with pytest.raises(UserError, match=r"none of 40 prompts is left.*prompts\.only"):
        choose(rows, settings(only={"persona": ["normal"]}), 7)


def test_seed_changes_the_sample_only() -> None:
    rows = made(200)
    one, other = (choose(rows, settings(train=20, eval=20), seed).prompts for seed in (7, 8))
    assert set(sides(one)) != set(sides(other))
    every = sides(choose(rows, settings(), 7).prompts)
    assert all(every[prompt.text] == prompt.split for prompt in one + other)


def test_records_are_sorted_and_traceable() -> None:
    rows = made(60)
    prompts = choose(rows, settings(), 7).prompts
    assert [p.prompt_id for p in of(prompts, "train")] == sorted(p.prompt_id for p in of(prompts, "train"))
    assert len({p.prompt_id for p in prompts}) == 60
    assert all(p.prompt_id == hashing.digest([p.source, p.text])[:16] for p in prompts)


def test_counts_add_up() -> None:
    rows = made(100) + made(10)
    rows += [row._replace(hazard="cse") for row in made(30, seed=3)]
    counts = choose(rows, settings(train=20, eval=10), 7).counts
    assert (counts["read"], counts["excluded"], counts["exact_duplicates"]) == (140, 30, 10)
    train = counts["train"]
    assert isinstance(train, dict)
    assert train["total"] == 20
    for label in ("by_hazard", "by_source", "by_principle", "by_persona"):
        assert sum(train[label].values()) == 20


def test_too_few_prompts() -> None:
    with pytest.raises(UserError, match=r"none of 20 prompts is left"):
        choose(made(20), settings(exclude_hazards=HAZARDS), 7)
    with pytest.raises(UserError, match=r"prompts\.train: 90 requested, but the train side has \d\d"):
        choose(made(100), settings(train=90), 7)
    with pytest.raises(UserError, match=r"prompts\.eval: 90 requested, but the eval side has \d\d.*raise"):
        choose(made(100), settings(eval=90), 7)
    with pytest.raises(UserError, match=r"prompts\.eval_share: leaves (train|eval) no prompt"):
        choose(made(1), settings(), 7)


def test_five_thousand_prompts_take_seconds() -> None:
    rows = made(5000)
    start = time.perf_counter()
    choose(rows, settings(train=1000, eval=1000), 7)
    assert time.perf_counter() - start < 30  # about 2 s; the margin is for a busy machine


def test_ailuminate_covers_every_hazard_on_both_sides(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "sources", tmp_path / "data" / "sources")
    for folder in (ROOT / "data" / "public", ROOT / ".." / "shared" / "datasets" / "ailuminate"):
        if folder.is_dir():
            try:
                fetch.fetch("ailuminate", folder, tmp_path)
            except UserError:
                continue
            break
    else:
        pytest.skip("the AILuminate file is not on this machine")
    rows = sources.load("ailuminate", tmp_path)
    chosen = choose(rows, settings(train=42, eval=42), 7)
    assert chosen.counts["excluded"] == 100
    for side in ("train", "eval"):
        there = of(chosen.prompts, side)
        hazards = Counter(prompt.hazard for prompt in there)
        assert len(hazards) == 14
        assert set(hazards.values()) == {3}
        assert Counter(prompt.persona for prompt in there) == {"skilled": 21, "unskilled": 21}


def test_own_set_is_balanced_at_demo_scale() -> None:
    if not (ROOT / sources.SOURCES / "contemplative.jsonl").exists():
        pytest.skip("our own set is not there")
    rows = sources.load("contemplative", ROOT)
    chosen = choose(rows, settings(train=24, eval=24), 7)
    for side in ("train", "eval"):
        there = of(chosen.prompts, side)
        principles = Counter(prompt.principle for prompt in there)
        assert set(principles) == {row.principle for row in rows}
        assert max(principles.values()) - min(principles.values()) <= 1
        kinds = Counter(p.hazard if p.hazard in ("benign", "everyday") else "hazardous" for p in there)
        assert min(kinds.values()) >= 4
        assert abs(kinds["everyday"] - kinds["hazardous"]) <= 2


def test_the_stage(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data/eval_sets", tmp_path / "data/eval_sets")
    values = yaml.safe_load((ROOT / params.PARAMS).read_text(encoding="utf-8"))
    (tmp_path / "mine.csv").write_text(
        "text,hazard\n" + "".join(f"{row.text},{row.hazard}\n" for row in made(80)), encoding="utf-8"
    )

    def stage(**changes: object) -> subprocess.CompletedProcess[str]:
        values["prompts"] |= {"sources": ["mine.csv"], "train": 10, "eval": 10, **changes}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "stages.prompts"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = stage()
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "data/prompts/train.jsonl", tmp_path / "data/prompts/eval.jsonl"]
    written = [file.read_bytes() for file in files]
    assert [len(read(file, Prompt)) for file in files] == [10, 10]
    assert read_json(tmp_path / "metrics/prompts.json")["read"] == 80
    assert stage().returncode == 0
    assert [file.read_bytes() for file in files] == written
    warned = stage(only={"persona": ["normal", "unspecified"]})
    assert (warned.returncode, warned.stderr.count("\n")) == (0, 1)
    assert warned.stderr == "warning: prompts.only.persona: 'normal' never occurs; there are unspecified\n"
    assert [file.read_bytes() for file in files] == written
    failed = stage(eval=79, only={})
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert [file.read_bytes() for file in files] == written
