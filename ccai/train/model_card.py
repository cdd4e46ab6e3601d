"""The model card: what was trained, on which data, how, the results, and known limits.

training.yaml beside it holds the facts, so that the card can be rewritten, with the evaluation, when the model is
published. (It is YAML because a model folder's JSON files count as part of its weights:
`ccai.models.files.fingerprint`.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import ModelCardData

from ccai.base import yaml_io
from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.base.hashing import sha256_of
from ccai.base.params import Train
from ccai.base.records import Record
from ccai.models.catalogue import catalogue
from ccai.models.model import Model
from ccai.stats.outcomes import is_measure

FACTS = "training.yaml"

Form = Literal["adapter", "merged", "full"]
"""An adapter for its base, an adapter merged into its base, or a model whose weights were all trained."""

LICENCES = frozenset(
    {"apache-2.0", "mit", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "cc-by-4.0", "cc-by-nc-4.0"}
)
"""Licence identifiers of the Hub that language models commonly have; others are given by name."""

LICENCE_NAMES = {"other": "not-stated", "unknown": "not-stated"}
"""Values of `ccai.models.model.Model.licence` where no licence is stated."""

METHODS = {
    "sft": "SFT on the chosen answers",
    "dpo": "DPO",
    "dpo-norm": "length-normalised DPO",
    "ipo": "IPO",
    "apo-zero": "APO (zero)",
    "apo-down": "APO (down)",
    "kto": "KTO",
    "sft+dpo": "SFT on one half of the prompts, then DPO on the other",
}


class Base(Record):
    """The model that was trained.

    Attributes:
        revision: the hub's commit, or the sha256 of the package's file or of the folder's files.
        package: the Python package that carries it, as `name==version`; None: from a hub or the user.
    """

    name: str
    revision: str
    licence: str
    package: str | None

    @property
    def on_hub(self) -> bool:
        """Whether `name` is a hub id and `revision` a commit there."""
        return not self.revision.startswith("sha256:")


class Facts(Record):
    """The content of training.yaml.

    Attributes:
        recipe: section `train` of params.yaml.
        data: sha256 of each training file, by path.
        versions: of the libraries.
        metrics: of the train stage.
    """

    base: Base
    recipe: dict[str, Any]
    seed: int
    data: dict[str, str]
    versions: dict[str, str]
    metrics: dict[str, Any]


def write(
    folder: Path,
    model: Model,
    recipe: Train,
    seed: int,
    pairs: Path,
    versions: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> None:
    """Write training.yaml and the card into the trained model's folder.

    Args:
        pairs: folder of the pairs; only the files that the method trains on are hashed.
    """
    phases = recipe.method.split("+")
    data = [pairs / "sft/train.jsonl"] * ("sft" in phases) + [pairs / "train.jsonl"] * (phases != ["sft"])
    facts = Facts(
        base=Base(
            name=model.name,
            revision=model.revision,
            licence=model.licence,
            package=catalogue().get(model.name, {}).get("package"),
        ),
        recipe=recipe.model_dump(),
        seed=seed,
        data={path.as_posix(): sha256_of(path) for path in data},
        versions=dict(versions),
        metrics=dict(metrics),
    )
    write_facts(folder, facts)
    write_text(folder / "README.md", text(facts, form(folder)))


def write_facts(folder: Path, facts: Facts) -> None:
    """Write training.yaml."""
    write_text(folder / FACTS, yaml.safe_dump(facts.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def read(folder: Path) -> Facts:
    """The content of training.yaml.

    Raises:
        UserError: missing, or not in the format of `write`.
    """
    path = folder / FACTS
    try:
        return yaml_io.load(path, Facts)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train (dvc repro train) or fetch what was trained (dvc pull)") from None


def form(folder: Path) -> Form:
    """The form of the trained weights in a folder."""
    return "adapter" if (folder / "adapter_config.json").is_file() else "full"


def text(facts: Facts, form: Form, evaluation: Mapping[str, Any] | None = None, origins: str | None = None) -> str:
    """The card's text.

    Args:
        evaluation: metrics of the eval stage, if they are of these weights.
        origins: the prompts' sources and licences, if they are of these pairs (`ccai.pairs.card.origins`).
    """
    base, method = facts.base, METHODS[facts.recipe["method"]]
    what = _weights(base, form)
    files = "\n".join(f"| {path} | `{digest}` |" for path, digest in facts.data.items())
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    body = f"""
# Trained by a constitution: {base.name}

{what}. It was trained with {method} on preference pairs: a model's own answers (rejected) against their revisions
after a critique by the principles of a constitution (chosen).

```python
{_loading(base, form)}
```

## Base

{_base(base)}

## Recipe

{_table("parameter", facts.recipe)}
| seed | {facts.seed} |

Libraries: {versions}.

## Data

| file | sha256 |
|---|---|
{files}

{origins or "The sources of the prompts and their licences stand in the card of the pairs (data/pairs/README.md)."}

The answers were written by language models, whose terms may say what can be made of them. Ask where nobody has granted
anything.

## Training

{"Validation pairs are of prompts that were not trained on." * ("validation_pairs" in facts.metrics)}

{_table("metric", facts.metrics)}

## Evaluation

{_evaluation(evaluation)}

## Limits

{_limits(facts, form, evaluation)}
"""
    return f"---\n{_metadata(facts, form).to_yaml()}\n---\n{body}"


def _metadata(facts: Facts, form: Form) -> ModelCardData:
    """What the Hub reads."""
    base, adapted = facts.base, facts.recipe["adapter"] != "none"
    return ModelCardData(
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        base_model=base.name if base.on_hub else None,
        base_model_relation=("adapter" if form == "adapter" else "finetune") if base.on_hub else None,
        license=base.licence if base.licence in LICENCES else "other",
        license_name=None if base.licence in LICENCES else LICENCE_NAMES.get(base.licence, base.licence),
        tags=[*facts.recipe["method"].split("+"), *(["lora"] if adapted else []), "constitutional-ai", "trl"],
    )


def _weights(base: Base, form: Form) -> str:
    """What the folder holds, in words."""
    return {
        "adapter": f"A LoRA adapter for `{base.name}`",
        "merged": f"`{base.name}` with a LoRA adapter merged into its weights",
        "full": f"`{base.name}`, all weights trained",
    }[form]


def _base(base: Base) -> str:
    lines = ["| model | revision | licence |", "|---|---|---|", f"| {base.name} | `{base.revision}` | {base.licence} |"]
    if base.package:
        lines += ["", f"The Python package {base.package} carries its weights; the revision is its file's."]
    return "\n".join(lines)


def _table(label: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {value} |" for name, value in _flat(values)]
    return "\n".join([f"| {label} | value |", "|---|---|", *rows])


def _loading(base: Base, form: Form) -> str:
    if form != "adapter":
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("FOLDER OR OWNER/NAME", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER OR OWNER/NAME")'
        )
    lines = ["from peft import PeftModel", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    revision = ""
    if base.on_hub:
        lines.append(f'base = "{base.name}"')
        revision = f', revision="{base.revision}"'
    elif base.package:
        lines.insert(0, "from ccai.models.find import find  # in this project's top folder")
        lines.append(f'base = find("{base.name}").folder')
    else:
        lines.append('base = "FOLDER OF THE BASE"')
    lines += [
        f'model = AutoModelForCausalLM.from_pretrained(base{revision}, dtype="auto")',
        'model = PeftModel.from_pretrained(model, "FOLDER OR OWNER/NAME")',
        f"tokenizer = AutoTokenizer.from_pretrained(base{revision})",
    ]
    return "\n".join(lines)


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "No evaluation of these weights is known here. The eval stage compares them with the base (dvc repro)."
    arms = evaluation["arms"]
    others = [arm for arm in arms if arm != "base"]
    head = ["metric", "n", *arms, *(f"{arm} - base" for arm in others)]
    rows = [
        [name, str(value["n"])]
        + [_interval(value[arm]) for arm in arms]
        + [_interval(value["difference"][arm]) for arm in others]
        for name, value in _measures(evaluation)
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])

    def by_metric(value: Mapping[str, Any]) -> str:
        return f", by {value['metric']}" if value["metric"] else ""

    verdicts = "\n".join(
        f"- {name}{by_metric(value)}: {value['verdict']} ({value['why']})"
        for name, value in evaluation["registered"].items()
    )
    judged = ""
    if any("raw" in value for _, value in _measures(evaluation)):
        judged = "\nShares that the judge found are corrected for the errors that it made in its exam."
    return f"""Judged by {evaluation["judged_by"]}, seed {evaluation["seed"]}. The arms are {_arms(arms)}.
n counts what was asked, all arms the same. Means with 95 % intervals; differences are paired, item by item. The rules
and sets behind each metric are told in the project's docs/EVALUATION.md.{judged}

What the run was to be judged by, tuned against base, named before it:

{verdicts}

{table}"""


ARMS = {
    "base": "`base`, the model before training",
    "prompted": "`prompted`, the base with the constitution in its system message",
    "tuned": "`tuned`, this model",
}


def _arms(arms: Sequence[str]) -> str:
    return "; ".join(ARMS.get(arm, f"`{arm}`, another model") for arm in arms)


def _measures(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The measures of the arms by dotted name, without breakdowns and measures of no items."""
    for name, inner in value.items():
        if not isinstance(inner, Mapping) or name.startswith("by_"):
            continue
        if not is_measure(inner):
            yield from _measures(inner, f"{prefix}{name}.")
        elif inner["n"] and "difference" in inner:
            yield f"{prefix}{name}", inner


def _interval(value: Mapping[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f} (no interval)"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and displayed values of a nested mapping, without empty values."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        elif inner not in (None, []):
            yield f"{prefix}{name}", f"{inner:.6g}" if isinstance(inner, float) else str(inner)


def _limits(facts: Facts, form: Form, evaluation: Mapping[str, Any] | None) -> str:
    limits = [
        "Language models wrote the answers, the critiques and the revisions. No person checked them.",
        "Training metrics are about pairs like those trained on. They say nothing of how the model behaves.",
        "No person tested the model for safety. A constitution in its training data does not make it follow one.",
        "Whatever the base does wrong, invents or can't do, expect of this model too.",
    ]
    if evaluation is not None:
        by = "word rules, which people would not always agree with" if evaluation["judged_by"] == "rules" else "a model"
        limits.append(
            f"The evaluation has one answer of each arm to each prompt, judged by {by}. An interval that holds 0 shows "
            "no difference."
        )
    if facts.recipe["adapter"] == "qlora":
        limits.append(
            "The adapter was trained over weights in 4 bit (NF4). Beside or in unquantized weights it answers a "
            "little differently."
        )
    elif form == "merged":
        limits.append("Merging rounds: an answer can differ from that of the adapter beside its base.")
    return "\n".join(f"- {limit}" for limit in limits)
