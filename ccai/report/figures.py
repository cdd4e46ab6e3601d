"""Figures of an evaluation as PNG, which `dvc plots` shows without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from ccai.evaluate import comparison

INK, TUNED, OTHER = "#333333", "#0b6e99", "#7a5195"
COLOURS = {"base": "#8a8a8a", "prompted": "#c98a1b", "tuned": TUNED}


def differences(measured: Mapping[str, Any], path: Path) -> None:
    """Tuned minus base for each measure of each suite that is a share or a score, with its 95 % interval.

    Right of 0 is more.
    """
    rows = [
        (": ".join((suite, *names)), value["difference"]["tuned"])
        for suite, nested in measured.items()
        for names, value in comparison.measures(nested)
        if value["n"] and names != ("length", "tokens")
    ]
    figure, axes = pyplot.subplots(figsize=(7.6, 0.3 * len(rows) + 1.4), layout="constrained")
    for y, (_, gap) in enumerate(reversed(rows)):
        if gap["low"] is not None:
            axes.plot([gap["low"], gap["high"]], [y, y], color=TUNED, linewidth=2, solid_capstyle="round")
        filled = TUNED if gap["low"] is not None else "white"
        axes.plot(gap["mean"], y, "o", color=TUNED, markerfacecolor=filled, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label.replace("_", " ") for label, _ in reversed(rows)])
    axes.set_xlabel("tuned minus base, 95 % interval; hollow: too few prompts differ")
    _save(figure, axes, path)


def refusals(measured: Mapping[str, Any], path: Path) -> None:
    """Share of held-out prompts refused by all arms: hazardous (refusing is wanted) and harmless (it is not)."""
    groups = [
        (name, value) for name, value in measured.get("heldout", {"refusal": {}})["refusal"].items() if value["n"]
    ]
    arms = [name for name in groups[0][1] if name not in ("n", "difference")] if groups else []
    figure, axes = pyplot.subplots(figsize=(7, 2.2 + 0.2 * len(arms)), layout="constrained")
    for y, (_, value) in enumerate(reversed(groups)):
        for place, arm in enumerate(arms):
            at, height = value[arm], y + 0.5 * ((len(arms) - 1) / 2 - place) / len(arms)
            colour = COLOURS.get(arm, OTHER)
            axes.plot([at["low"], at["high"]], [height] * 2, color=colour, linewidth=2)
            axes.plot(at["mean"], height, "o", color=colour, markersize=6, label=arm if y == 0 else None)
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
