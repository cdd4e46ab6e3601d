"""An arm asked by several suites."""

from __future__ import annotations

from pathlib import Path

import pytest
from chooser import shipped
from conftest import ROOT

from ccai import params
from ccai.arms import Arm
from ccai.engines.transformers import Transformers
from ccai.errors import UserError
from ccai.suites.helpfulness import Helpfulness
from ccai.suites.over_refusal import OverRefusal


def test_suites_asked_together_answer_as_alone(
    tiny_engine: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = shipped(over_refusal={"max_new_tokens": 8}, helpfulness={"questions": 2, "max_new_tokens": 8})
    suites = (OverRefusal(settings), Helpfulness(settings))
    arm = Arm("base", tiny_engine, settings)
    seconds = arm.complete_together({suite.name: suite.jobs(arm) for suite in suites})
    tokens = {suite: cost["generated_tokens"] for suite, cost in arm.costs.items()}
    assert seconds["over_refusal"] / seconds["helpfulness"] == pytest.approx(
        tokens["over_refusal"] / tokens["helpfulness"]
    )
    together = {suite.name: suite.ask(arm) for suite in suites}
    for suite, records in together.items():
        cost = arm.costs[suite]
        assert (cost["generated"], cost["reused"]) == (len(records), 0), "nothing is asked for twice"
        assert cost["generated_tokens"] == sum(record.completion_tokens for record in records)

    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "another"))
    alone = Arm("base", tiny_engine, settings)
    assert {suite.name: suite.ask(alone) for suite in suites} == together
    assert alone.costs["over_refusal"]["generated"] == len(together["over_refusal"])


@pytest.mark.parametrize(
    "arms",
    [
        ["base", "tuned", "/models/tuned"],
        ["base", "tuned", "a/other", "b/other"],
        ["base", "tuned", "n"],
        ["base", "tuned", "models/difference"],
        ["base", "tuned", ".."],
        ["base", "tuned", "a b"],
    ],
)
def test_arms_whose_files_or_figures_would_collide_are_refused(arms: list[str]) -> None:
    values = params.load(ROOT / "params.yaml").model_dump(mode="json")
    values["eval"]["arms"] = arms
    with pytest.raises(UserError, match=r"params\.yaml: eval"):
        params.parse(values, "params.yaml")
