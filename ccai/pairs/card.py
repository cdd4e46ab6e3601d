"""The data card of the pairs, in the format of Hugging Face dataset cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import DatasetCardData

from ccai.base.terminal import NOTICE
from ccai.constitution.principles import Constitution
from ccai.judge import exam
from ccai.models.catalogue import catalogue
from ccai.pairs.gates import GATES
from ccai.prompts import sources
from ccai.prompts.sources import Credit

FILES = {
    "pairs": {"train": "train.jsonl", "validation": "validation.jsonl"},
    "sft": {"train": "sft/train.jsonl", "validation": "sft/validation.jsonl"},
}
"""Published files by configuration and split. Dropped pairs are not published."""

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}

OWN_TEXTS = "The constitution and the prompts that the CCAI project wrote (`contemplative`) are under CC BY 4.0."
"""Stands in the card of the pairs and, through `origins`, in that of the model."""


def text(metrics: Mapping[str, Any], constitution: Constitution, written_by: Mapping[str, Mapping[str, Any]]) -> str:
    """The card's text.

    Args:
        metrics: of the pairs stage.
        written_by: metrics of the stages that generated the `rejected` and the `chosen` answers.
    """
    credits = sources.credits(metrics["kept_by_source"])
    data = _metadata(constitution.title, metrics["kept"], credits)
    cite = "".join(f"- {credit.citation}\n" for credit in credits if credit.citation)
    body = f"""
# Preference pairs by constitution: {constitution.title}

> **Content notice.** {NOTICE} Do not train a model to produce the `rejected` side.

{metrics["kept"]} preference pairs ({metrics["train"]} train, {metrics["validation"]} validation; split by prompt). A
model answered each prompt (`rejected`), criticised its answer by a principle, and wrote it anew (`chosen`). No person
wrote or checked the answers. Pairs with `round` 0 came ready-made.

```python
from datasets import load_dataset

pairs = load_dataset("FOLDER OR OWNER/NAME")         # prompt, chosen, rejected: TRL's conversational format, for DPO
sft = load_dataset("FOLDER OR OWNER/NAME", "sft")    # messages: the chosen answers, for SFT
```

The SFT data holds {sum(metrics["demonstrations"].values())} helpful demonstrations besides the chosen answers.

## Who wrote what

{_writers(written_by)}

Constitution: {constitution.title}, {len(constitution.principles)} principles, sha256 `{constitution.sha256}`. Seed
{metrics["seed"]}.{_unverified(written_by)}

## Sources and licence

{origins(metrics["kept_by_source"])}

Each prompt is under the licence of its source, which may ask for attribution when it is passed on. The answers were
written by the models above, whose terms may say what they can be used for. Nobody has granted more than that: where
no licence is stated, ask before you pass the data on.
{f"{chr(10)}To cite:{chr(10)}{chr(10)}{cite}" if cite else ""}
## Counts

{_counts("principle", metrics["kept_by_principle"])}

{_counts("hazard", metrics["kept_by_hazard"])}

Tokens of chosen over rejected answers: {_ratio(metrics["length_ratio"])}.

## Gates

{metrics["dropped"]} of {metrics["kept"] + metrics["dropped"]} pairs were dropped. The gates were tried in this order.

{_gates(metrics["dropped_by"])}

{_judge(metrics)}
"""
    return f"---\n{data.to_yaml()}\n---\n{body}"


def origins(kept_by_source: Mapping[str, int]) -> str:
    """A table of the sources of prompts, with each one's pairs and licence, and the licence of the project's texts."""
    rows = [
        f"| {credit.name} | {kept_by_source[credit.name]} | {credit.licence} | {credit.attribution} |"
        for credit in sources.credits(kept_by_source)
    ]
    return "\n".join(["| source of prompts | pairs | licence | by |", "|---|---|---|---|", *rows, "", OWN_TEXTS])


def _metadata(title: str, kept: int, credits: Sequence[Credit]) -> DatasetCardData:
    """What the Hub reads."""
    return DatasetCardData(
        pretty_name=f"Preference pairs by constitution: {title}",
        **_licence(credits),
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        task_categories=["text-generation"],
        size_categories=[next((name for most, name in SIZES.items() if kept < most), "n>10M")],
        tags=["preference", "dpo", "rlaif", "constitutional-ai", "trl", "not-for-all-audiences"],
        configs=[
            {
                "config_name": config,
                "default": config == "pairs",
                "data_files": [{"split": split, "path": path} for split, path in files.items()],
            }
            for config, files in FILES.items()
        ],
    )


def _writers(written_by: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the models that wrote each side."""
    rows = [
        f"| `{side}` | {about['model']} | `{about['revision']}` | {_model_licence(about['model'])} |"
        for side, about in written_by.items()
    ]
    return "\n".join(["| side | model | revision | its licence |", "|---|---|---|---|", *rows])


def _counts(label: str, pairs: Mapping[str, int]) -> str:
    """A table of pairs by principle or by hazard."""
    return "\n".join([f"| {label} | pairs |", "|---|---|", *(f"| {name} | {count} |" for name, count in pairs.items())])


def _gates(dropped_by: Mapping[str, int]) -> str:
    rows = [f"| {gate} | {dropped_by[gate]} | {meaning} |" for gate, meaning in GATES.items()]
    return "\n".join(["| gate | dropped | because |", "|---|---|---|", *rows])


def _ratio(ratio: float | None) -> str:
    return "not known" if ratio is None else f"{ratio:.2f}"


def _licence(credits: Sequence[Credit]) -> dict[str, Any]:
    """The licence that all sources of prompts are under, if there is one; else none was granted for the whole."""
    licences = {credit.licence for credit in credits}
    if len(licences) == 1 and sources.NOT_STATED not in licences:
        return {"license": licences.pop().lower()}
    return {"license": "other", "license_name": "see-the-card"}


def _model_licence(name: str) -> str:
    return str(catalogue().get(name, {}).get("licence", "not stated"))


def _unverified(written_by: Mapping[str, Mapping[str, Any]]) -> str:
    if not any(about["unverified_weights"] for about in written_by.values()):
        return ""
    return " A model behind an endpoint wrote: its revision is as declared, and nobody could check it."


def _judge(metrics: Mapping[str, Any]) -> str:
    if "judge" not in metrics:
        return "No judge was asked."
    judge = metrics["judge"]
    result = f"The {exam.in_words(judge)}, at revision `{judge['revision']}`."
    return result if judge["passed"] else f"{result} Its gates were off."
