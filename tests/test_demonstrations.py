"""Helpful demonstrations: the share asked for, by hash, no prompt on both sides or held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ccai.base.errors import UserError
from ccai.pairs import demonstrations

SIDES = {"train": 30, "validation": 10}


def file(path: Path, count: int = 40, backwards: bool = False) -> Path:
    lines = [
        json.dumps({"prompt": f"How do I bake bread number {at}?", "completion": f"With flour, take {take}."}) + "\n"
        for at in range(count)
        for take in (1, 2)
    ]
    path.write_text("".join(lines[::-1] if backwards else lines), encoding="utf-8")
    return path


def mixed(path: Path, share: float = 0.25, **changes: Any) -> dict[str, list[demonstrations.Demonstration]]:
    options: dict[str, Any] = {"answers": SIDES, "system": "Be brief.", "seed": 7, "evaluation": [], "threshold": 0.9}
    return demonstrations.mix(str(path), share, **options | changes)


def test_share_of_each_side(tmp_path: Path) -> None:
    result = mixed(file(tmp_path / "mine.jsonl"))
    assert {side: len(some) for side, some in result.items()} == {"train": 10, "validation": 3}
    first = result["train"][0]
    assert [turn.role for turn in first.messages] == ["system", "user", "assistant"]
    assert (first.source, first.pair_id) == ("mine.jsonl", None)
    assert mixed(file(tmp_path / "mine.jsonl"), share=0) == {"train": [], "validation": []}


def test_no_prompt_twice_and_order_means_nothing(tmp_path: Path) -> None:
    result = mixed(file(tmp_path / "a.jsonl"), share=0.5)
    prompts = [one.prompt_id for some in result.values() for one in some]
    assert len(set(prompts)) == len(prompts) == 40
    (tmp_path / "other").mkdir()
    assert mixed(file(tmp_path / "other/a.jsonl", backwards=True), share=0.5) == result
    assert mixed(file(tmp_path / "a.jsonl"), share=0.5, seed=8) != result


def test_prompts_of_evaluation_are_left_out_and_too_few_is_one_line(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl")
    asked = {"evaluation": ["How do I bake bread  number 17?"], "threshold": 1.0}
    with pytest.raises(UserError, match=r"0\.5 of the SFT data is 40 demonstrations, but .*a\.jsonl has 39 with"):
        mixed(path, share=0.5, **asked)
    result = mixed(path, share=0.45, **asked)
    assert not [one for some in result.values() for one in some if "number 17" in one.messages[1].content]


def test_messages_as_they_are(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    [one] = mixed(path, share=0.5, answers={"train": 1})["train"]
    assert [turn.model_dump() for turn in one.messages] == turns


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "messages: not user and assistant in turn"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages: not user and assistant in turn"),
        ({"messages": []}, "messages: not user and assistant in turn"),
        ({"prompt": "x", "completion": " "}, "messages: the last answer is empty"),
        ({"prompt": "x"}, "completion: no such column; there are prompt"),
        ({"instruction": "x"}, "prompt: no such column; there are instruction"),
    ],
)
def test_lines_that_are_no_demonstration(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        mixed(path)
    assert str(error.value).startswith(f"{path}:1: {message}")
