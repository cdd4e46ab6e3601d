"""Prompt files of any content, read and chosen from any way: prompts come out or one line says why not."""

from __future__ import annotations

import csv
import gzip
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers.prompts import settings as prompt_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.param_types import Column
from ccai.base.params import PromptSet
from ccai.base.records import Prompt
from ccai.prompts import readers, sources
from ccai.prompts.select import choose, slips

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = ["text", "prompt", "id", "hazard", "persona", "principle", "question", "", "té\nxt"]
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["Human: One?\n\nAssistant: Yes.", "vcr", "CSE", "\x13", "\ud800", "\ufeffOne?", " ", '"', "a" * 300]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), TEXTS | VALUES, max_size=6), max_size=8)


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    header = list(rows[0]) if rows else []
    writer.writerow(header)
    writer.writerows([row.get(column, "") for column in header] for row in rows)
    return file.getvalue().encode(errors="replace")


def as_txt(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(str(value) for row in rows for value in row.values()).encode(errors="replace")


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file's ending and what is in it: rows in the right form, rows in a wrong one, or any bytes."""
    ending = draw(st.sampled_from([".jsonl", ".csv", ".txt"]))
    write = draw(
        st.sampled_from([as_jsonl, as_csv, as_txt, {".jsonl": as_jsonl, ".csv": as_csv, ".txt": as_txt}[ending]])
    )
    content = draw(st.one_of(ROWS.map(write), st.binary(max_size=60), st.text(max_size=60).map(_encoded)))
    if draw(st.integers(0, 4)) == 0:
        ending, content = f"{ending}.gz", draw(st.sampled_from([gzip.compress(content), content]))
    return ending, content


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")


READINGS = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.dictionaries(st.sampled_from(get_args(Column)), st.sampled_from(COLUMNS), max_size=3),
        "first_turn": st.booleans(),
    },
)
WEIGHTS = st.floats(min_value=0, exclude_min=True, max_value=1e6)
LABEL = st.sampled_from(["vcr", "CSE", "skilled", "unspecified", "normal", "benign"])
LABELS = st.lists(LABEL, max_size=2)
GOOD_ROWS = st.lists(
    st.fixed_dictionaries(
        {"text": st.text("ab é\U0001f642", max_size=12).map("Why {}?".format) | st.text(min_size=1, max_size=12)},
        optional={"hazard": LABEL, "persona": LABEL, "principle": TEXTS, "id": st.integers()},
    ),
    min_size=1,
    max_size=12,
)
CHOICES = st.fixed_dictionaries(
    {
        "exclude_hazards": LABELS,
        "only": st.fixed_dictionaries({}, optional={"hazard": LABELS, "persona": LABELS, "principle": LABELS}),
        "train": st.integers(0, 2),
        "eval": st.integers(0, 2),
        "near_duplicate": st.floats(0.01, 1),
        "contamination": st.floats(0.01, 1),
        "contaminated": st.sampled_from(["fail", "drop"]),
    }
)


@FUZZ
@given(files(), READINGS)
def test_any_file(tmp_path: Path, file: tuple[str, bytes], entry: dict[str, Any]) -> None:
    ending, content = file
    (tmp_path / f"any{ending}").write_bytes(content)
    try:
        rows = sources.load(PromptSet(source=f"any{ending}", **entry), tmp_path)
    except UserError as error:
        assert f"any{ending}" in str(error)
        return
    assert rows
    for row in rows:
        assert row.text == readers.repair(row.text) != ""
        assert all(isinstance(value, str) and value for value in row)


@FUZZ
@given(st.lists(st.tuples(GOOD_ROWS, WEIGHTS), min_size=1, max_size=2), st.just([]) | GOOD_ROWS, CHOICES)
def test_any_choice(
    tmp_path: Path, sets: list[tuple[list[dict[str, Any]], float]], suite: list[dict[str, Any]], some: dict[str, Any]
) -> None:
    entries = []
    for number, (rows, weight) in enumerate(sets):
        (tmp_path / f"{number}.jsonl").write_bytes(as_jsonl(rows))
        entries.append({"source": f"{number}.jsonl", "weight": weight})
    (tmp_path / "suite.jsonl").write_bytes(as_jsonl(suite))
    wanted = prompt_settings(sources=entries, **some)
    try:
        there = sources.load_all(wanted.sources, tmp_path)
        against = sources.load_all([PromptSet(source="suite.jsonl")], tmp_path) if suite else []
        lines = list(slips(there, wanted))
        chosen, _ = choose(there, wanted, 7, against)
    except UserError:
        return
    assert {prompt.split for prompt in chosen} == {"train", "eval"}
    assert len({prompt.text for prompt in chosen}) == len(chosen)
    for side, asked in (("train", wanted.train), ("eval", wanted.eval)):
        there_are = [prompt for prompt in chosen if prompt.split == side]
        assert len(there_are) == asked or (asked == 0 and there_are)
    for key, values in wanted.only.model_dump().items():
        assert not values or {getattr(p, key).casefold() for p in chosen} <= {value.casefold() for value in values}
    assert not {prompt.hazard.casefold() for prompt in chosen} & {
        hazard.casefold() for hazard in wanted.exclude_hazards
    }
    assert not any("\n" in line for line in lines)
    assert [Prompt.model_validate_json(prompt.model_dump_json()) for prompt in chosen] == chosen


@FUZZ
@given(VALUES | st.lists(VALUES, max_size=3) | st.lists(READINGS, max_size=2))
def test_any_value_in_params(value: Any) -> None:
    shipped = params.load(Path(__file__).parents[1] / "params.yaml").model_dump(mode="json")
    for key in ("sources", "evaluation_sets", "only", "contaminated"):
        try:
            found = params.parse({**shipped, "prompts": {**shipped["prompts"], key: value}}, "params.yaml")
        except UserError as error:
            assert str(error).startswith(f"params.yaml: prompts.{key}")
        else:
            assert params.parse(found.model_dump(mode="json"), "params.yaml") == found


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\x00\n\x07\n"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_nothing_to_read_is_said(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"a{ending}").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\{ending}"):
        sources.load(f"a{ending}", tmp_path)


def test_the_fuzz_reaches_prompts(tmp_path: Path) -> None:
    """Were every example refused, the tests above would show nothing."""
    rows = [{"text": f"Question {number} about {word}?"} for number, word in enumerate("abcdefghijklmnopqrst")]
    sizes = []
    for write, ending in ((as_jsonl, ".jsonl"), (as_csv, ".csv"), (as_txt, ".txt")):
        (tmp_path / f"a{ending}").write_bytes(write(rows))
        there = sources.load(f"a{ending}", tmp_path)
        sizes.append(len(choose(there, prompt_settings(near_duplicate=1, contamination=1), 7).prompts))
    assert all(a == b == len(rows) for a, b in pairwise(sizes))
