"""Figures of an evaluation, as PNG that `dvc plots` shows without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

INK, BASE, TUNED = "#333333", "#8a8a8a", "#0b6e99"


def differences(metrics: dict[str, Any], path: Path) -> None:
    """Tuned minus base for each score, with its 95 % interval, safety apart from tone; right of 0 is more."""
    rows = [
        (family, name, value["difference"])
        for family, names in metrics.items()
        if family in ("refusal", "safety", "contemplative", "humanistic")
        for name, value in names.items()
        if value["n"]
    ]
    figure, axes = pyplot.subplots(figsize=(7, 0.36 * len(rows) + 1.4), layout="constrained")
    for y, (_, _, gap) in enumerate(reversed(rows)):
        if gap["low"] is not None:
            axes.plot([gap["low"], gap["high"]], [y, y], color=TUNED, linewidth=2, solid_capstyle="round")
        filled = TUNED if gap["low"] is not None else "white"
        axes.plot(gap["mean"], y, "o", color=TUNED, markerfacecolor=filled, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{family}: {name.replace('_', ' ')}" for family, name, _ in reversed(rows)])
    axes.set_xlabel("tuned minus base, 95 % interval; hollow: too few prompts differ")
    _save(figure, axes, path)


def refusals(metrics: dict[str, Any], path: Path) -> None:
    """Share of prompts refused, hazardous (refusing is wanted) beside harmless (it is not), both arms."""
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    groups = [(name, value) for name, value in metrics["refusal"].items() if value["n"]]
    for y, (_, value) in enumerate(reversed(groups)):
        for offset, arm, colour in ((0.14, "base", BASE), (-0.14, "tuned", TUNED)):
            at = value[arm]
            axes.plot([at["low"], at["high"]], [y + offset] * 2, color=colour, linewidth=2)
            axes.plot(at["mean"], y + offset, "o", color=colour, markersize=6, label=arm if y == 0 else None)
    axes.set_yticks(
        range(len(groups)), [f"{name.replace('_', ' ')} (n={value['n']})" for name, value in reversed(groups)]
    )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.5, max(len(groups), 1) - 0.5)
    axes.set_xlabel("share of prompts, 95 % interval (exact binomial)")
    if groups:
        axes.legend(frameon=False, loc="best")
    else:
        axes.text(0.5, 0, "no prompt is labelled hazardous or harmless", ha="center", color=INK)
    _save(figure, axes, path)


def _save(figure: Any, axes: Any, path: Path) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
