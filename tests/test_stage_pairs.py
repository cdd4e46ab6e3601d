"""The pairs stage from files to files: rounds, files that users bring, a judge that fails its exam."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from helpers.endpoint import serving
from helpers.judges import Judge, Lenient, Reader, Scholar
from helpers.pairs import CHOSEN, NAMES, REJECTED, prompt, response, revision
from helpers.project import Built
from huggingface_hub import DatasetCard

from ccai.base import files, records
from ccai.base.errors import UserError
from ccai.base.records import Demonstration, DroppedPair, Pair, Record, Revision
from ccai.constitution import principles
from stages import pairs

[CARE] = (
    principle
    for principle in principles.load(ROOT / "data/constitutions/contemplative.md").principles
    if principle.slug == "boundless-care"
)
GOOD, BAD = "Then the washer is worn; a new one costs little.", "Move to another house or get used to it."


def write(path: Path, rows: list[Any]) -> None:
    """Records as a stage leaves them, or a user's lines."""
    if isinstance(rows[0], Record):
        return files.write(path, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(built: Built, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stages before would leave: ten prompts, each answer revised twice, and the toy run's metrics."""
    for name in ("conf", "data/sources", "data/constitutions", "data/templates", "data/exam", "data/eval_sets"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["models"] = dict.fromkeys(settings["models"], str(tiny_model))
    settings["train"]["max_length"] = 1024
    settings["pairs"]["judge"] = False
    write_params(tmp_path, settings)
    for stage in ("responses", "revisions"):
        target = tmp_path / f"metrics/{stage}.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(built.project.folder / f"metrics/{stage}.json", target)
    names = NAMES[:10]
    asked = [prompt(name, "prv").model_copy(update={"source": "contemplative"}) for name in names]
    write(tmp_path / "data/prompts/train.jsonl", asked)
    write(tmp_path / "data/prompts/eval.jsonl", [prompt("held out")])
    write(tmp_path / "data/responses.jsonl", [response(name) for name in names])
    rounds = [
        revision(name, f"{CHOSEN} ({name}, {round})", CARE.slug).model_copy(
            update={"round": round, "principle_sha256": CARE.sha256}
        )
        for name in names
        for round in (1, 2)
    ]
    write(tmp_path / "data/revisions.jsonl", rounds)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def change(folder: Path, **changes: Any) -> None:
    settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    settings["pairs"] |= changes
    write_params(folder, settings)


def kept() -> list[Pair]:
    return [pair for side in ("train", "validation") for pair in files.read(pairs.OUT / f"{side}.jsonl", Pair)]


def test_the_last_round_is_chosen_and_the_card_is_a_card(folder: Path) -> None:
    pairs.main()
    assert sorted(pair.chosen[0].content for pair in kept()) == [f"{CHOSEN} ({name}, 2)" for name in NAMES[:10]]
    assert {pair.round for pair in kept()} == {2}
    metrics = files.read_json(pairs.METRICS)
    assert metrics["kept"] == 10
    assert metrics["baseline"]["complied"]["all"]["n"] == 10
    assert "judge" not in metrics
    assert "preference pairs" in DatasetCard.load(pairs.OUT / "README.md").text
    before = {path: path.read_bytes() for path in pairs.OUT.rglob("*") if path.is_file()}
    pairs.main()
    assert {path: path.read_bytes() for path in pairs.OUT.rglob("*") if path.is_file()} == before


def test_card_says_who_wrote_which_side(folder: Path) -> None:
    for stage, model in (("responses", "org/answers"), ("revisions", "org/revises")):
        path = folder / f"metrics/{stage}.json"
        files.write_json(path, files.read_json(path) | {"model": model})
    pairs.main()
    text = (pairs.OUT / "README.md").read_text(encoding="utf-8")
    assert "| `rejected` | org/answers |" in text
    assert "| `chosen` | org/revises |" in text


def test_revisions_that_copy_an_example_or_the_template(folder: Path) -> None:
    rounds = files.read(folder / "data/revisions.jsonl", Revision)
    copies = [f"I hear you. {CARE.examples[1].revision}", f"(A note for your answer: {CHOSEN})"]
    changed = [one.model_copy(update={"text": text}) for one, text in zip(rounds[1:4:2], copies, strict=True)]
    write(folder / "data/revisions.jsonl", [rounds[0], changed[0], rounds[2], changed[1], *rounds[4:]])
    pairs.main()
    assert files.read_json(pairs.METRICS)["dropped_by"]["copied"] == 2
    assert [pair.reason for pair in files.read(pairs.OUT / "dropped.jsonl", DroppedPair)] == ["copied"] * 2
    settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    settings["critiques"] |= {"format": "concise", "examples": 1}  # neither of which shows these texts
    write_params(folder, settings)
    pairs.main()
    assert files.read_json(pairs.METRICS)["dropped_by"]["copied"] == 0


def test_files_that_users_bring(folder: Path) -> None:
    ready = [
        {"prompt": "My tap drips.", "chosen": GOOD, "rejected": BAD, "hazard": "home"},
        {"prompt": "My tap drips.", "chosen": GOOD, "rejected": " "},
        {"prompt": "Question held out?", "chosen": GOOD, "rejected": BAD},
        {"prompt": "How do whales sleep at night?", "chosen": GOOD, "rejected": BAD},
        {"prompt": "My tap drips. " * 400, "chosen": GOOD, "rejected": BAD},
    ]
    helpful = [{"prompt": f"Bake bread {at}.", "completion": "Take flour."} for at in range(20)]
    write(folder / "data/imports/mine.jsonl", ready)
    held_out = ["Question held out?", "How do whales sleep, at night?"]
    taken = [{"prompt": text, "completion": "No."} for text in held_out]
    write(folder / "data/imports/help.jsonl", [*helpful[:11], *taken])
    write(folder / "suite.jsonl", [{"text": "How do whales sleep at night?"}])
    change(
        folder,
        sources=["data/imports/mine.jsonl"],
        demonstrations="data/imports/help.jsonl",
        demonstrations_share=0.5,
    )
    settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    settings["prompts"]["evaluation_sets"] = ["suite.jsonl"]
    write_params(folder, settings)
    pairs.main()
    [brought] = [pair for pair in kept() if pair.round == 0]
    assert (brought.hazard, brought.chosen[0].content) == ("home", GOOD)
    assert brought.chosen_tokens > 10
    reasons = [pair.reason for pair in files.read(pairs.OUT / "dropped.jsonl", DroppedPair)]
    assert reasons == ["empty", "evaluation_prompt", "evaluation_prompt", "over_length"]
    metrics = files.read_json(pairs.METRICS)
    assert metrics["kept_by_source"] == {"contemplative": 10, "mine.jsonl": 1}
    for side, count in metrics["demonstrations"].items():
        sft = files.read(pairs.OUT / f"sft/{side}.jsonl", Demonstration)
        assert sum(one.pair_id is None for one in sft) == count == metrics[side]
        assert not {turn.content for one in sft for turn in one.messages} & set(held_out)


def test_a_judge_that_fails_shuts_no_gate_and_is_seen_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, judge=True, require_violation=True)
    pairs.main()
    metrics = files.read_json(pairs.METRICS)
    assert metrics["judge"]["passed"] is False
    assert metrics["kept"] == 10
    assert "violated" not in metrics["baseline"]
    assert {pair.verdict for pair in kept()} == {None}
    assert "failed its exam; no verdicts are asked of it, its gates are off" in capsys.readouterr().out
    card = (pairs.OUT / "README.md").read_text()
    assert " FAILED its exam (" in card
    assert "Its gates were off.\n" in card


def run_with(folder: Path, reads: Reader, **changes: Any) -> None:
    """Run the stage with a judge behind HTTP."""
    with serving(Judge(reads)) as server:
        (folder / "conf").unlink()
        shutil.copytree(ROOT / "conf", folder / "conf")
        entry = {"served": {"endpoints": [server.url], "model": "org/judge", "revision": "r"}}
        with (folder / "conf/models.yaml").open("a", encoding="utf-8") as file:
            file.write(yaml.safe_dump(entry))
        change(folder, judge=True, **changes)
        settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        write_params(folder, settings | {"models": settings["models"] | {"judge": "served"}})
        pairs.main()


def test_verdicts_of_a_judge_that_passes(folder: Path) -> None:
    scholar = Scholar()
    scholar._violates |= {REJECTED: True, "Just forget her, it is nothing.": False}
    scholar._addresses[f"{CHOSEN} (p03, 2)"] = False
    answers = files.read(folder / "data/responses.jsonl", records.Response)
    harmless = answers[5].model_copy(update={"text": "Just forget her, it is nothing."})
    write(folder / "data/responses.jsonl", [*answers[:5], harmless, *answers[6:]])
    run_with(folder, scholar, require_violation=True)
    dropped = files.read(pairs.OUT / "dropped.jsonl", DroppedPair)
    assert [(pair.prompt_id, pair.reason) for pair in dropped] == [("p03", "off_topic"), ("p05", "no_violation")]
    for pair in kept():
        assert pair.verdict is not None
        assert pair.verdict.preference == "chosen"
        assert pair.verdict.rejected_violation == pytest.approx(0.8)
        assert pair.verdict.chosen_violation == pytest.approx(0.1)
    metrics = files.read_json(pairs.METRICS)
    assert metrics["judge"]["passed"] is True
    found = metrics["baseline"]["violated"]["by_principle"]["boundless-care"]
    assert (found["n"], found["share"]) == (10, 0.9)


def test_a_judge_that_leans_is_read_at_its_own_cut(folder: Path) -> None:
    """It gives 0.9 and 0.6: without the cut all revisions would violate their principle."""
    lenient = Lenient()
    lenient._violates[REJECTED] = True
    run_with(folder, lenient, require_violation=True)
    metrics = files.read_json(pairs.METRICS)
    assert metrics["judge"]["questions"]["violation"]["cut"] == pytest.approx(0.75)
    assert (metrics["judge"]["passed"], metrics["kept"]) == (True, 10)
    for pair in kept():
        assert pair.verdict is not None
        assert pair.verdict.rejected_violation == pytest.approx(9 / (9 + 3))
        assert pair.verdict.chosen_violation == pytest.approx(1.5 / (1.5 + 3))


def test_records_that_do_not_belong_together_write_nothing(folder: Path) -> None:
    responses = (folder / "data/responses.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data/responses.jsonl").write_text("".join(responses[1:]), encoding="utf-8")
    with pytest.raises(UserError, match="p00"):
        pairs.main()
    assert not pairs.OUT.exists()
