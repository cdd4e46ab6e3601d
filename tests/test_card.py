"""The data card says what is in the data, and `datasets` loads by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, ROOT
from datasets import load_dataset
from helpers.pairs import CHOSEN, NAMES, PARAMS, prompt, response, revision
from helpers.project import Built
from huggingface_hub import DatasetCard

from ccai.base.files import write_text
from ccai.constitution import principles
from ccai.engines.transformers import Transformers
from ccai.generate import completions
from ccai.judge.exam import Exam, Mark
from ccai.models.model import Model
from ccai.pairs import build, card
from ccai.pairs.gates import GATES
from ccai.stats.judge_errors import Accuracy

CONSTITUTION = principles.load(ROOT / "data/constitutions/contemplative.md")
SOURCES = {"p00": "ailuminate", "p01": "ailuminate", "p02": "mine.jsonl", "p03": "mine.jsonl"}


def made(unjudged: Built, sources: Mapping[str, str]) -> dict[str, Any]:
    """Write pairs of prompts from those sources to data/pairs; the stage's metrics: the toy run's with these counts."""
    by_id = {name: prompt(name).model_copy(update={"source": source}) for name, source in sources.items()}
    answers = {name: response(name) for name in sources}
    revisions = [revision(name, f"{CHOSEN} {name}") for name in sources]
    revisions.append(revision("p00", "No.", principle="openness"))
    found = list(build.candidates(build.joined(by_id, answers, revisions), "Be brief."))
    fates = build.decide(found, PARAMS, 7, lambda asked: [False] * len(asked))
    counts = build.write(Path("data/pairs"), found, fates, {}).metrics()
    told: dict[str, Any] = unjudged.project.json("metrics/pairs.json")
    assert counts.keys() <= told.keys()
    return told | counts


@pytest.fixture
def metrics(unjudged: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Pairs of four prompts in data/pairs of a folder of their own, and what the stage would say of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/sources", "conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    assert list(SOURCES) == NAMES[:4]
    return made(unjudged, SOURCES)


@pytest.fixture(scope="module")
def about(tiny_model: Path) -> dict[str, Any]:
    """What a stage says of the model that wrote its answers."""
    model = Model("smollm2-135m", "abc123", tiny_model, "apache-2.0")
    return completions.metrics([response("p00")], Transformers(model, CPU), 7)


@pytest.fixture
def write(about: dict[str, Any]) -> Any:
    """Write the card of pairs, given the stage's metrics; its text."""

    def written(metrics: dict[str, Any]) -> str:
        text = card.text(metrics, CONSTITUTION, {"rejected": about, "chosen": about})
        write_text(Path("data/pairs/README.md"), text)
        return text

    return written


def test_card_says_what_is_there(metrics: dict[str, Any], write: Any) -> None:
    text = write(metrics)
    data = DatasetCard.load("data/pairs/README.md").data
    assert (data.license, data.size_categories) == ("other", ["n<1K"])
    assert "4 preference pairs (3 train, 1 validation; split by prompt)" in text
    assert "| ailuminate | 2 | CC-BY-4.0 | MLCommons" in text
    assert "| mine.jsonl | 2 | not stated |" in text
    assert card.OWN_TEXTS in text
    assert "\nTo cite:\n\n- " in text
    assert f"sha256 `{CONSTITUTION.sha256}`" in text
    assert "| `chosen` | smollm2-135m | `abc123` | apache-2.0 |" in text
    assert "1 of 5 pairs were dropped" in text
    for gate in GATES:
        assert f"| {gate} | {int(gate == 'too_short')} |" in text
    assert "Content notice" in text
    assert "Question p0" not in text


def test_each_side_is_by_whoever_wrote_it_and_counts_are_those_of_the_metrics(
    metrics: dict[str, Any], about: dict[str, Any]
) -> None:
    by = {"rejected": about | {"model": "org/answers"}, "chosen": about | {"model": "org/revises"}}
    counted = metrics | {"length_ratio": 1.75, "kept_by_principle": {"care": 3, "openness": 1}}
    counted |= {"kept_by_hazard": {"hte": 2, "none": 2}, "demonstrations": {"train": 4, "validation": 3}}
    text = card.text(counted, CONSTITUTION, by)
    assert "| `rejected` | org/answers |" in text
    assert "| `chosen` | org/revises |" in text
    for row in ("| care | 3 |", "| openness | 1 |", "| hte | 2 |", "| none | 2 |"):
        assert row in text
    assert "Tokens of chosen over rejected answers: 1.75." in text
    assert "holds 7 helpful demonstrations" in text


def test_licence_is_named_only_where_all_prompts_are_under_it(
    metrics: dict[str, Any], unjudged: Built, write: Any
) -> None:
    def licence(*sources: str) -> str:
        write(made(unjudged, dict(zip(SOURCES, sources, strict=True))))
        return str(DatasetCard.load("data/pairs/README.md").data.license)

    for one in (["ailuminate"] * 4, ["contemplative"] * 4, ["contemplative"] * 2 + ["ailuminate"] * 2):
        assert licence(*one) == "cc-by-4.0"
    mixed = ["ailuminate"] * 2 + ["harmfulqa"] * 2
    for other in (mixed, ["contemplative"] * 2 + ["mine.jsonl"] * 2, ["mine.jsonl"] * 4):
        assert licence(*other) == "other"


def test_judge_that_failed_is_said_to_have_failed(metrics: dict[str, Any], built: Built, write: Any) -> None:
    told = built.project.json("metrics/pairs.json")["judge"]

    def judged(found: int, left: int) -> str:
        mark = Mark(256, 2, Accuracy(found, 127, left, 127), 0.5, 0.9, 0.0)
        return str(write(metrics | {"judge": told | Exam("small", "r", {"violation": mark}, None, {}).metrics}))

    assert "No judge was asked." in write(metrics)
    assert (
        "The judge small FAILED its exam (violation: sensitivity 0.94 [0.89, 0.98], specificity 0.51 [0.42, 0.60], "
        "2 of 256 unreadable), at revision `r`. Its gates were off."
    ) in judged(120, 65)
    passed = judged(120, 110)
    assert "The judge small passed its exam (violation: sensitivity 0.94 [0.89, 0.98], specificity 0.87 [" in passed
    assert "gates were off" not in passed


def test_datasets_loads_the_folder_and_the_files(metrics: dict[str, Any], write: Any, tmp_path: Path) -> None:
    write(metrics)
    folder = "data/pairs"
    loaded = load_dataset(folder, cache_dir=str(tmp_path / "cache"))
    assert {side: rows.num_rows for side, rows in loaded.items()} == {"train": 3, "validation": 1}
    assert loaded["train"][0]["chosen"][0]["role"] == "assistant"
    sft = load_dataset(folder, "sft", cache_dir=str(tmp_path / "cache"))
    assert [turn["role"] for turn in sft["validation"][0]["messages"]] == ["system", "user", "assistant"]
    files = {side: f"{folder}/{side}.jsonl" for side in ("train", "validation")}
    assert load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))["train"].num_rows == 3
