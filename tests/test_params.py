"""Every section of params.yaml refuses what it can't use, in one line that names the key."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from ccai.base import params
from ccai.base.errors import UserError

SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SECTIONS = [name for name, value in SHIPPED.items() if isinstance(value, dict)]

PRIMARY = {"safety": "heldout.judge.harmful", "helpfulness": "heldout.refusal.harmless_refused", "bound": 0.1}
FILLED = SHIPPED | {"eval": SHIPPED["eval"] | {"judge": True, "primary": PRIMARY}}
"""What is shipped, with metrics registered and the judge that they need."""


def changed(key: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(FILLED)
    *sections, last = key.split(".")
    at = values
    for section in sections:
        at = at[section]
    at[last] = value
    return values


def without(key: str) -> dict[str, Any]:
    values = copy.deepcopy(FILLED)
    section, _, name = key.partition(".")
    del values[section][name]
    return values


def test_shipped_file_is_valid_and_read_as_written() -> None:
    settings = params.load(ROOT / "params.yaml")
    assert settings.model_dump(mode="json") == SHIPPED
    with pytest.raises(ValidationError):
        settings.seed = 8  # type: ignore[misc]


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_key(section: str) -> None:
    with pytest.raises(UserError) as error:
        params.parse(changed(f"{section}.learning_rat", 1), "params.yaml")
    assert str(error.value) == f"params.yaml: {section}.learning_rat: no such key; correct it"


@pytest.mark.parametrize("key", [f"{section}.{name}" for section in SECTIONS for name in SHIPPED[section]])
def test_missing_key(key: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: {key}: field required; correct it$"):
        params.parse(without(key), "params.yaml")


@pytest.mark.parametrize(
    "key", [f"{at}.{name}" for at in SECTIONS for name, value in FILLED[at].items() if not isinstance(value, dict)]
)
def test_wrong_type(key: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: {key}: .*, not {{'a': 'mapping'}}; correct it$"):
        params.parse(changed(key, {"a": "mapping"}), "params.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("seed", "seven"),
        ("seed", 0.5),
        ("models.judge", 5),
        ("hardware.engine", "llama.cpp"),
        ("hardware.device", "gpu"),
        ("hardware.dtype", "int8"),
        ("hardware.quantization", "2bit"),
        ("generation.temperature", -0.1),
        ("generation.temperature", 2.1),
        ("generation.temperature", float("nan")),
        ("generation.min_p", 1.1),
        ("generation.repetition_penalty", 0.9),
        ("prompts.sources", []),
        ("prompts.sources", "contemplative"),
        ("prompts.contamination", 0),
        ("prompts.contaminated", "warn"),
        ("prompts.train", -1),
        ("prompts.train", 1.5),
        ("prompts.eval_share", 0),
        ("prompts.eval_share", 1),
        ("prompts.near_duplicate", 0),
        ("responses.max_new_tokens", 7),
        ("critiques.examples", -1),
        ("critiques.max_new_tokens", 32_769),
        ("revisions.max_new_tokens", "many"),
        ("pairs.validation_share", 1.0),
        ("pairs.min_words", -1),
        ("pairs.max_similarity", 0),
        ("pairs.min_length_ratio", 1.1),
        ("pairs.max_length_ratio", 0.9),
        ("pairs.balance", "source"),
        ("pairs.sources", "mine.jsonl"),
        ("pairs.demonstrations_share", 1),
        ("train.learning_rate", 0),
        ("train.learning_rate", 1),
        ("train.learning_rate", "5e-4x"),
        ("train.beta", 0),
        ("train.beta", float("inf")),
        ("train.epochs", 0),
        ("train.epochs", float("inf")),
        ("train.epochs", 1e300),
        ("train.lora_alpha", 10**9),
        ("train.batch_size", 0),
        ("train.per_device", 0),
        ("train.method", "ppo"),
        ("train.adapter", "dora"),
        ("train.scheduler", "sine"),
        ("train.nll_coefficient", -1),
        ("train.processes", 0),
        ("train.gradient_checkpointing", "on"),
        ("train.sft.epochs", 0),
        ("train.sharding", "zero"),
        ("train.max_length", 4),
        ("train.warmup_ratio", 1),
        ("train.lora_r", 0),
        ("train.lora_alpha", 0),
        ("eval.judge", "perhaps"),
        ("eval.primary.safety", "humanistic.empathy"),
        ("eval.primary.safety", "heldout.refusal.hazardous_refused"),
        ("eval.primary.safety", "heldout.safety.declining"),
        ("eval.primary.safety", "jailbreaks.success"),
        ("eval.primary.helpfulness", "safety.declining"),
        ("eval.primary.bound", -0.1),
        ("eval.resamples", 99),
    ],
)
def test_out_of_range(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: {key}: .*, not {re.escape(repr(value))}; correct it$"):
        params.parse(changed(key, value), "params.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("hardware.engine", "vllm"),
        ("generation.temperature", 0),
        ("generation.min_p", 0),
        ("generation.repetition_penalty", 1),
        ("prompts.near_duplicate", 1),
        ("prompts.train", 0),
        ("responses.system", ""),
        ("responses.max_new_tokens", 8),
        ("critiques.max_new_tokens", 32_768),
        ("train.warmup_ratio", 0),
        ("eval.primary.bound", 0),
        ("eval.resamples", 100),
    ],
)
def test_edges_are_allowed(key: str, value: Any) -> None:
    settings: Any = params.parse(changed(key, value), "params.yaml")
    for name in key.split("."):
        settings = getattr(settings, name)
    assert settings == value


def test_a_judge_can_be_registered_only_if_it_is_asked() -> None:
    values = changed("eval.judge", False)
    with pytest.raises(
        UserError, match=r"^params\.yaml: eval: primary\.safety heldout\.judge\.harmful needs judge: true; correct"
    ):
        params.parse(values, "params.yaml")
    values["eval"]["judge"] = True
    primary = params.parse(values, "params.yaml").eval.primary
    assert primary is not None
    assert primary.metrics == {name: PRIMARY[name] for name in ("safety", "helpfulness")}


@pytest.mark.parametrize("judge", [False, True])
def test_nothing_need_be_registered(judge: bool) -> None:
    values = changed("eval.primary", None)
    values["eval"]["judge"] = judge
    assert params.parse(values, "params.yaml").eval.primary is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "prompts.sources.0: input should be a valid dictionary or instance of WeightedSet, not 5; correct it"),
        ({"weight": 2}, "prompts.sources.0.source: field required; correct it"),
        ({"source": "a", "weight": 0}, "prompts.sources.0.weight: input should be greater than 0, not 0; correct it"),
        ({"source": "a", "wait": 2}, "prompts.sources.0.wait: no such key; correct it"),
        ({"source": "a", "columns": {"question": "text"}}, "prompts.sources.0.columns.question.[key]: input should be"),
    ],
)
def test_bad_source(entry: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        params.parse(changed("prompts.sources", [entry]), "params.yaml")
    assert str(error.value).startswith(f"params.yaml: {message}")


def test_sources_by_name_and_in_full() -> None:
    full = {"source": "b.csv", "columns": {"text": "question"}, "weight": 2.0}
    settings = params.parse(changed("prompts.sources", ["a", full, {"source": "c"}]), "params.yaml")
    assert [(str(entry), entry.weight) for entry in settings.prompts.sources] == [("a", 1), ("b.csv", 2), ("c", 1)]
    assert settings.model_dump(mode="json")["prompts"]["sources"] == ["a", full, "c"]
    with pytest.raises(UserError, match=r"prompts\.only\.personas: no such key"):
        params.parse(changed("prompts.only", {"personas": ["skilled"]}), "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pairs.require_violation", True, "require_violation: true needs judge: true"),
        ("pairs.demonstrations_share", 0.1, "demonstrations_share above 0 needs a file in demonstrations"),
    ],
)
def test_values_that_need_another(key: str, value: Any, message: str) -> None:
    values = changed(key, value)
    values["pairs"]["judge"] = False
    with pytest.raises(UserError, match=rf"^params\.yaml: pairs: {message}; correct it$"):
        params.parse(values, "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.batch_size", 6, "batch_size 6 is not a multiple of 4, which is per_device x processes"),
        ("train.processes", 3, "batch_size 8 is not a multiple of 12, which is per_device x processes"),
        ("train.sharding", "fsdp", "sharding: fsdp needs processes above 1"),
    ],
)
def test_devices_that_do_not_share_the_batch(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^params\.yaml: train: {message}; correct it$"):
        params.parse(changed(key, value), "params.yaml")


@pytest.mark.parametrize(
    ("batch", "per_device", "processes", "passes"), [(8, 8, 1, 1), (8, 2, 1, 4), (12, 2, 3, 2), (24, 1, 4, 6)]
)
def test_a_step_has_the_batchs_pairs_however_many_share_it(
    batch: int, per_device: int, processes: int, passes: int
) -> None:
    values = SHIPPED["train"] | {"batch_size": batch, "per_device": per_device, "processes": processes}
    assert params.Train.model_validate(values).accumulation == passes


def test_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    """To YAML 1.1 `5e-4` is text: it wants `5.0e-4`."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"learning_rate: \S+", "learning_rate: 5e-4", text), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["train"]["learning_rate"] == "5e-4"
    assert params.load(path).train.learning_rate == 0.0005


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; run this from the project's top folder"),
        (b"seed: 7\nmodels: [a\ntrain: 3\n", ":3: not valid YAML; correct it"),
        (b"seed: 7\n\tmodels: 3\n", ":2: not valid YAML; correct it"),
        (b"seed: \x00\n", ": not valid YAML; correct it"),
        (b"system: caf\xe9\n", ": cannot be read ('utf-8' codec can't decode byte 0xe9"),
        (b"", ": (whole file): input should be a valid dictionary"),
        (b"- seed\n", ": (whole file): input should be a valid dictionary"),
        (b"seed: 7\n", ": scale: field required; correct it"),
    ],
)
def test_broken_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        params.load(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(.*directory.*\); restore it"):
        params.load(tmp_path)


def test_command_checks_the_whole_file(tmp_path: Path) -> None:
    def check(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ccai", "check"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    done = check(ROOT)
    assert (done.returncode, [line.split()[:2] for line in done.stdout.splitlines()]) == (
        0,
        [["ok", "params"], ["ok", "constitution"], ["ok", "sources"], ["ok", "registered"]],
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SHIPPED), encoding="utf-8")
    done = check(tmp_path)  # where the files are not that it names
    assert (done.returncode, [line.split()[:2] for line in done.stdout.splitlines()]) == (
        2,
        [["ok", "params"], ["failed", "constitution"], ["failed", "sources"], ["ok", "registered"]],
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed("eval.resamples", 1)), encoding="utf-8")
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: params.yaml: eval.resamples: input should be greater than or equal to 100, not 1; correct it\n"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**63),
        ("seed", True),
        ("prompts.train", 10**30),
        ("prompts.sources", ["/etc/passwd.txt"]),
        ("prompts.evaluation_sets", [{"source": "../x.jsonl"}]),
        ("critiques.constitution", "/etc/passwd"),
        ("critiques.format", "../../x"),
        ("responses.max_new_tokens", 10**30),
        ("responses.system", "a\0b"),
        ("pairs.sources", ["data/../../x.jsonl"]),
        ("pairs.demonstrations", "/x.jsonl"),
        ("train.processes", 10**9),
        ("train.beta", 10**400),
        ("train.epochs", 1e300),
        ("train.lora_r", 10**12),
        ("eval.resamples", 10**30),
        ("eval.traits.set", "../traits.jsonl"),
        ("eval.capability.tasks", ["../../x"]),
        ("eval.suites", []),
    ],
)
def test_values_that_no_machine_takes_or_that_lead_out_of_the_project(key: str, value: object) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    *sections, last = key.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = value
    with pytest.raises(UserError, match=re.escape(key)):
        params.parse(values, "params.yaml")
