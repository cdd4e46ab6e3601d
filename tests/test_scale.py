from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from helpers.scale import (  # noqa: F401  (the fixture `project` is used by name)
    DEFAULT,
    MODELS,
    PARAMS,
    ROOT,
    SHIPPED,
    command,
    comments,
    project,
    set_to,
)

from ccai.base import params
from ccai.base.errors import UserError
from ccai.cli import use
from ccai.prompts import select, sources

SCALES = sorted(path.stem for path in (ROOT / "conf/scales").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (ROOT / "conf/recipes").glob("*.yaml"))


def test_scales_are_the_four() -> None:
    assert set(SCALES) == {"demo", "poc", "dev", "prod"}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("model", MODELS)
def test_every_scale_with_every_model(name: str, model: str) -> None:
    text = use.overlay(set_to(name, SHIPPED), use.model_values(model, None), "--model").text
    settings = params.parse(yaml.safe_load(text), "params.yaml")
    assert settings.scale == name
    assert set(settings.models.model_dump().values()) == {model}
    assert comments(text) == comments(SHIPPED)


def test_params_yaml_is_what_its_scale_says() -> None:
    assert set_to(yaml.safe_load(PARAMS)["scale"], PARAMS) == PARAMS


def test_all_scales_set_the_same_keys_or_switching_back_would_leave_some_behind() -> None:
    keys = {name: set(use.scale_values(name)) for name in SCALES}
    assert len({frozenset(there) for there in keys.values()}) == 1


@pytest.mark.parametrize("name", SCALES)
def test_there_and_back_is_byte_identical(name: str) -> None:
    demo = Path("params.yaml").read_bytes()
    assert command(name, "--model", "qwen2.5-7b", "--quantization", "4bit").returncode == 0
    assert Path("params.yaml").read_bytes() != demo
    assert command("demo", "--model", DEFAULT, "--quantization", "auto").returncode == 0
    assert Path("params.yaml").read_bytes() == demo


def test_only_the_lines_of_changed_values_change() -> None:
    # Odd but valid: a number no dump would write like this, single quotes, a comment out of its column.
    before = SHIPPED.replace("beta: 0.1 ", "beta: 1.00e-1 ").replace("conversation  #", "'x'     #")
    changed = use.overlay(before, {"train.epochs": 2}, "").text
    assert changed == before.replace("\n  epochs: 1\n", "\n  epochs: 2\n")


def test_number_keeps_the_spelling_of_the_scale_file() -> None:
    Path("conf/recipes/mine.yaml").write_text("train:\n  learning_rate: 2.0e-6\n")
    text, changes = use.overlay(SHIPPED, use.file_values("mine", use.RECIPES), "")
    assert "\n  learning_rate: 2.0e-6 " in text
    assert changes == [("train.learning_rate", "5.0e-5", "2.0e-6")]


def test_equal_value_spelled_otherwise_is_left_alone() -> None:
    text = SHIPPED.replace("- contemplative\n", "- 'contemplative'\n")
    assert text != SHIPPED
    assert use.overlay(text, {"prompts.sources": ["contemplative"]}, "") == (text, [])


def test_list_is_replaced_whole_and_stays_as_it_is_written() -> None:
    [comment] = re.findall(r" sources: +(#.*)", SHIPPED)[:1]
    below = f"sources:              {comment}\n  - "
    for text, expected in (
        (re.sub(r"sources: .*\n.*", f"{below}a.csv\n  - b.csv\n\n  # kept", SHIPPED, count=1), f"{below}c.csv"),
        (
            re.sub(r"sources: .*\n.*", f"sources: [a.csv, b.csv] {comment}\n\n  # kept", SHIPPED, count=1),
            f"sources: [c.csv]      {comment}",
        ),
    ):
        changed, changes = use.overlay(text, {"prompts.sources": ["c.csv"]}, "")
        assert f"  {expected}\n\n  # kept\n  exclude_hazards" in changed
        assert changes == [("prompts.sources", "[a.csv, b.csv]", "[c.csv]")]


def test_empty_list_and_back() -> None:
    changed = use.overlay(SHIPPED, {"prompts.evaluation_sets": ["a.csv"]}, "").text
    assert rewritten(SHIPPED, "prompts.evaluation_sets=[a.csv]").split() == changed.split()
    back = use.overlay(changed, {"prompts.evaluation_sets": []}, "").text
    assert "  evaluation_sets: []   # further" in back
    assert back.split() == SHIPPED.split()


def test_value_in_braces_and_null() -> None:
    given = {"prompts.only.hazard": ["vcr"], "pairs.demonstrations": "mine.jsonl"}
    changed = use.overlay(SHIPPED, given, "").text
    assert yaml.safe_load(changed)["prompts"]["only"] == {"hazard": ["vcr"], "persona": [], "principle": []}
    assert yaml.safe_load(changed)["pairs"]["demonstrations"] == "mine.jsonl"
    back = {"prompts.only.hazard": [], "pairs.demonstrations": None}
    assert use.overlay(changed, back, "").text == SHIPPED


def rewritten(text: str, *changes: str) -> str:
    """What `dvc exp run -S` makes of params.yaml."""
    Path("rewritten.yaml").write_text(text, encoding="utf-8")
    apply_overrides(Path("rewritten.yaml"), list(changes))
    return Path("rewritten.yaml").read_text(encoding="utf-8")


def test_params_yaml_is_as_dvc_writes_it() -> None:
    seed = f"seed={yaml.safe_load(PARAMS)['seed']}"
    assert rewritten(PARAMS, seed) == PARAMS


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", SCALES)
def test_what_a_switch_leaves_is_as_dvc_writes_it(name: str, recipe: str) -> None:
    text = use.overlay(set_to(name, SHIPPED), use.file_values(recipe, ROOT / "conf/recipes"), recipe).text
    text = use.overlay(text, use.model_values("qwen2.5-7b", None), "--model").text
    assert rewritten(text, "seed=7") == text


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ("seed=8", 1),
        ("train.learning_rate=2e-5", 1),
        ("pairs.judge=true", 1),
        ("pairs.demonstrations=data/imports/mine.jsonl", 1),
        ("critiques.constitution=data/constitutions/mine.md", 1),
        ("prompts.sources=[data/sources/mine.jsonl]", 1),
        ("eval.arms=[base,tuned]", 1),
        ("prompts.only.hazard=[vcr]", 1),
    ],
)
def test_an_experiment_changes_the_lines_of_its_value(change: str, lines: int) -> None:
    text = rewritten(SHIPPED, change)
    before, after = SHIPPED.splitlines(), text.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changed = [(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]
    assert [max(counts) for counts in changed] == [lines]
    params.parse(yaml.safe_load(text), change)
    assert rewritten(text, "train.beta=0.1") == text


def test_model_for_one_role_only_and_scale_leaves_models_alone() -> None:
    assert command("--model", "qwen2.5-7b", "--role", "judge").returncode == 0
    assert command("poc").returncode == 0
    models = params.load(Path("params.yaml")).models
    assert models.judge == "qwen2.5-7b"
    assert models.answer == models.revise == models.train == DEFAULT


def test_folder_whose_name_yaml_would_misread() -> None:
    for name in ("2024", "my: model", "é # 1"):
        Path(name).mkdir()
        values = use.model_values(name, None)
        assert yaml.safe_load(use.overlay(SHIPPED, values, "").text)["models"]["judge"] == name


def test_prints_changes_then_nothing_to_change_then_the_lists() -> None:
    first = command("poc").stdout
    assert "scale: demo → poc\n" in first
    assert "prompts.train: 24 → 125\n" in first
    assert "params.yaml: nothing changed" in command("poc").stdout
    listing = command().stdout
    assert "* poc " in listing
    assert "  prod " in listing
    assert f"* {DEFAULT}: answer, revise, train, judge" in listing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gigantic"], "conf/scales/gigantic.yaml: no such scale; there are demo, dev, poc, prod"),
        (["--model", "gpt-9"], "--model gpt-9: no folder, no hub-id@commit, and none of smollm2"),
        (["--model", "Qwen/Qwen2.5-7B-Instruct"], "no hub-id@commit"),
    ],
)
def test_unknown_name_is_one_line_and_changes_nothing(arguments: list[str], message: str) -> None:
    before = Path("params.yaml").read_bytes()
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train:\n  learning_rat: 1.0e-5\n", "odd.yaml: train.learning_rat: params.yaml has no such value"),
        ("train: 3\n", "odd.yaml: train: params.yaml has no such value"),
        ("prompts:\n  train: -1\n", "odd.yaml: prompts.train: input should be greater than or equal to 0"),
        ("prompts:\n  train: many\n", "odd.yaml: prompts.train: input should be a valid integer"),
        ("prompts: [\n", "odd.yaml:2: not valid YAML"),
        ("", "odd.yaml: not a mapping"),
    ],
)
def test_broken_scale_file_names_file_and_key(content: str, message: str) -> None:
    Path("conf/scales/odd.yaml").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        use.overlay(SHIPPED, use.scale_values("odd"), "conf/scales/odd.yaml")


@pytest.mark.parametrize("name", ["demo", "poc"])
def test_scales_without_public_sources_have_prompts_enough(name: str) -> None:
    settings = params.parse(yaml.safe_load(set_to(name, SHIPPED)), name)
    rows = [row for entry in settings.prompts.sources for row in sources.load(entry, ROOT)]
    chosen = select.choose(rows, settings.prompts, settings.seed).prompts
    for side in ("train", "eval"):
        assert sum(prompt.split == side for prompt in chosen) == getattr(settings.prompts, side)


def test_catalogue_pins_every_model() -> None:
    for name, entry in MODELS.items():
        if "endpoints" in entry:  # nobody can check from here what is behind one
            continue
        assert entry["licence"], name
        assert "package" in entry or re.fullmatch(r"[0-9a-f]{40}", entry["revision"]), name
