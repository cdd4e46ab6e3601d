"""The summary of the last run, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ccai.base import metrics_json
from ccai.base.eval_params import Suite
from ccai.evaluate.comparison import measures
from ccai.judge.exam import MOST_UNREADABLE, in_words
from ccai.rules import scores
from ccai.stats.outcomes import significant

METRICS = Path("metrics")

LABEL = 34
"""Columns of a row's label."""

SECTIONS = {
    "harm (judge)": ("judge",),
    "refusals and phrases (rules; no measure of harm)": ("refusal", "safety"),
    "tone (says nothing of safety)": tuple(family for family in scores.FAMILIES if family != "safety"),
    "length": ("length",),
}
"""Families of the held-out prompts' measures, under their headings."""


def text(folder: Path = METRICS) -> str:
    """The summary of the metrics in a folder.

    Raises:
        UserError: a metrics file is missing or lacks a figure; names both.
    """
    prompts, pairs, train, evaluation = (
        metrics_json.read(folder / f"{stage}.json") for stage in ("prompts", "pairs", "train", "eval")
    )
    counted = pairs["kept"] + pairs["dropped"]
    taken = ", ".join(f"{gate.replace('_', ' ')} {n}" for gate, n in pairs["dropped_by"].items() if n)
    lines = [
        *(
            f"{aim:<12}{value['verdict'].upper()}: {registered(value)}"
            for aim, value in evaluation["registered"].items()
        ),
        "",
        f"prompts   {prompts['train']['total']} to train on, {prompts['eval']['total']} held out",
        f"pairs     {pairs['kept']} of {counted} kept ({pairs['train']} train, {pairs['validation']} validation)",
    ]
    if taken:
        lines.append(f"          dropped: {taken}")
    if "baseline" in pairs:
        lines += _baseline(pairs["baseline"])
    if "judge" in pairs:
        gates = "on" if pairs["judge"]["passed"] else "off"
        lines.append(f"          {in_words(pairs['judge'])}, its gates are {gates}")
    lines += [
        f"trained   {train['model']}, {train['steps']} steps of {train['effective_batch']} pairs, "
        f"loss {train['loss_first']:.3f} -> {train['loss_last']:.3f}",
        f"          validation: reward accuracy {train['validation']['reward_accuracy']:.2f}, "
        f"margin {train['validation']['reward_margin']:+.4f} ({train['validation_pairs']} pairs)",
        "",
        f"{'':<{LABEL}}    base   tuned   tuned - base [95 %]",
    ]
    suites = {name: value for name, value in evaluation.items() if name in get_args(Suite)}
    for suite, measured in suites.items():
        of_suite = list(measures(measured))
        if suite == "heldout":
            for heading, families in SECTIONS.items():
                rows = [row(names, value) for names, value in of_suite if names[0] in families]
                if families == ("judge",) and not rows:
                    rows = ["  no judge that passed its exam read the answers"]
                lines += [f"held-out prompts: {heading}", *rows]
        else:
            lines += [suite.replace("_", "-"), *(row(names, value) for names, value in of_suite)]
    if "judge" in evaluation:
        lines += _judge(evaluation["judge"])
    lines += [
        "",
        "An interval that holds 0 says: can't tell. *: it leaves out 0, and Holm's p over all suites is below 0.05.",
        "Rule-based scores read phrases, not meaning (docs/EVALUATION.md).",
        "read      ccai show pairs -n 5      ccai show answers -n 5",
        "files     data/ (records), models/adapter (LoRA), metrics/*.json, metrics/plots/",
    ]
    return "\n".join(lines)


def registered(value: dict[str, Any]) -> str:
    """Why a registered aim has its verdict, with the figures; `value` as in metrics/eval.json."""
    if not value["metric"]:
        return str(value["why"])
    aim = f"{value['metric']}, {value['better']} is better"
    if value["bound"]:
        aim += f", worse by {value['bound']:g} at most"
    if not value["n"]:
        return f"{value['why']} ({aim})"
    bounds = "no interval" if value["low"] is None else f"[{value['low']:+z.3f}, {value['high']:+z.3f}]"
    figures = f"{value['base']:.3f} -> {value['tuned']:.3f}, {value['mean']:+z.3f} {bounds}, n {value['n']}"
    return f"{aim}: {figures}{power(value)}"


def power(value: dict[str, Any]) -> str:
    """What so many prompts could have found, where the verdict is "can't tell"."""
    if value["verdict"] != "can't tell" or value["low"] is None or "smallest" not in value:
        return ""
    found = f"a fall of {value['smallest']:.2f} or more" if value["smallest"] else "no fall at all"
    needed = f"about {value['needed']:,} prompts" if value["needed"] else "more than 20,000 prompts"
    return f"; {value['n']} prompts find {found} in 4 of 5 runs, what was seen needs {needed}"


def _baseline(baseline: dict[str, Any]) -> list[str]:
    """Baseline rates of the first answers."""
    complied = baseline["complied"]["all"]
    share = f"{_share(complied)} of hazardous prompts complied with (rules)" if complied["n"] else "no hazardous prompt"
    lines = [f"          first answers: {share}"]
    if "violated" in baseline:
        shares = baseline["violated"]["by_principle"].items()
        broken = ", ".join(f"{slug} {_share(share) if share['n'] else 'no readable verdict'}" for slug, share in shares)
        lines.append(f"          first answers that violate a principle (judge): {broken}")
    return lines


def _judge(judge: dict[str, Any]) -> list[str]:
    """A judge's exam, and what stands against its verdicts."""
    lines = [in_words(judge) + ("" if judge["passed"] else ", its verdicts are invalid and left out")]
    for suite, cost in judge["verdicts"].items():
        if cost["unreadable"] > MOST_UNREADABLE * cost["verdicts"]:
            lines.append(
                f"  of {suite} {cost['unreadable']} of {cost['verdicts']} verdicts are unreadable: don't use them"
            )
    if judge["relatives"]:
        lines.append(f"  it is of the family it judges: {', '.join(judge['relatives'])}")
    return lines


def _share(share: dict[str, Any]) -> str:
    return f"{share['share']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"


def _unmeasured(value: dict[str, Any]) -> str:
    """Why a measure has no items."""
    return f"none of {value['unreadable']} could be read" if "unreadable" in value else "no such prompts"


def row(names: Sequence[str], value: dict[str, Any]) -> str:
    """A line for a measure: both means and their difference, with a star where that is sure."""
    label = f"  {': '.join(names).replace('_', ' ')}"
    if not value["n"]:
        return f"{label:<{LABEL}} {_unmeasured(value)}"
    gap = value["difference"]["tuned"]
    interval = " too few prompts differ" if gap["low"] is None else f" [{gap['low']:+z.3f}, {gap['high']:+z.3f}]"
    tell = " *" if significant(gap) else ""
    raw = f" (judge: {value['raw']['base']:.3f} -> {value['raw']['tuned']:.3f})" if "raw" in value else ""
    means = f"{value['base']['mean']:7.3f} {value['tuned']['mean']:7.3f}"
    return f"{label:<{LABEL}} {means}   {gap['mean']:+z7.3f}{interval}{tell}{raw}"
