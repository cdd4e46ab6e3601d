"""Charts of the report: SVG inside a page, in the page's own font, text colour and colours of arms.

Every chart is 360 units wide, so that its text is as large as the page's on a phone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

WIDTH = 360.0
NAMES, FIGURES = 92.0, 62.0
"""Units to the left of an axis for names, and to its right for figures."""

SIZE = 12.5
"""Text size in units."""

INK, FAINT, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
ARMS = tuple(f"#0102{place:02x}" for place in range(6))
"""Placeholders for the page's own colours, which differ in light and dark mode."""

_OF_PAGE = {INK: "currentColor", FAINT: "var(--faint)", LINE: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--arm-{place})" for place, colour in enumerate(ARMS)
}
_ID = re.compile(r' id="([^"]+)"')


class Point(NamedTuple):
    """A value of one arm; `low` and `high` are None without an interval. `colour` is an index into `ARMS`."""

    name: str
    colour: int
    mean: float
    low: float | None
    high: float | None
    mark: str = ""


class ChartRow(NamedTuple):
    """A measure with its count and each arm's value, below `blank` empty lines."""

    title: str
    note: str
    points: Sequence[Point]
    blank: int = 0


class Line(NamedTuple):
    """Points (x, y) of one run, in the order of x. `colour` is an index into `ARMS`."""

    colour: int
    points: Sequence[tuple[float, float]]


def intervals(rows: Sequence[ChartRow], about: str, *, differences: bool, bound: float | None = None) -> Markup:
    """A line for each arm of each row.

    Differences have 0 in the middle, and a dashed line at `bound`; shares and scores run from 0 to 1.
    """
    bounds = [
        bound
        for row in rows
        for point in row.points
        for bound in (point.mean, point.low, point.high)
        if bound is not None
    ]
    means = [point.mean for row in rows for point in row.points]
    if differences:
        widest = max(map(abs, [*bounds, 1.2 * (bound or 0)])) or 1.0
        limits = (-widest, widest)
    elif min(means) >= 0 and max(means) <= 1:
        limits = (0.0, 1.0)
    else:
        limits = (min(0.0, *bounds), max(0.0, *bounds))
    height = sum(24 + 16 * (row.blank + len(row.points)) for row in rows) + 26.0
    named = any(point.name for row in rows for point in row.points)
    figure, axes = _axes(height, NAMES if named else 8, FIGURES, 0, 26)
    y = 0.0
    for row in rows:
        _text(figure, 0, y + 12, height, _short(row.title, 40 - len(row.note)), INK, weight="bold")
        _text(figure, WIDTH, y + 12, height, row.note, FAINT, ha="right")
        y += 20 + 16 * row.blank
        for point in row.points:
            colour = ARMS[point.colour]
            if point.low is not None and point.high is not None:
                ends = [min(max(bound, limits[0]), limits[1]) for bound in (point.low, point.high)]
                axes.plot(ends, [y + 8, y + 8], color=colour, linewidth=2.2, solid_capstyle="round", clip_on=False)
            inside = PAPER if point.low is None else colour
            axes.plot(
                point.mean, y + 8, "o", color=colour, markerfacecolor=inside, markersize=6, clip_on=False, zorder=3
            )
            _text(figure, 0, y + 12, height, _short(point.name), FAINT)
            _text(figure, WIDTH, y + 12, height, number(point.mean, signed=differences) + point.mark, INK, ha="right")
            y += 16
        y += 4
    axes.set_xlim(*limits)
    axes.set_ylim(height - 26, 0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    if differences:
        axes.axvline(0, color=FAINT, linewidth=1, zorder=0)
    if bound:
        axes.axvline(bound, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    return _svg(figure, about)


def plane(points: Sequence[tuple[Point, Point]], titles: tuple[str, str], about: str) -> Markup:
    """Two shares against each other: a cross of intervals for each arm, with a key below."""
    figure, axes = _axes(392, 56, 14, 10, 44 + 16 * len(points))
    for place, (x, y) in enumerate(points):
        wide = 0.9 * (len(points) - 1 - place)  # so that arms in the same place show as rings
        for ends, flat in (((x.low, x.high), True), ((y.low, y.high), False)):
            if None not in ends:
                line = (ends, [y.mean] * 2) if flat else ([x.mean] * 2, ends)
                axes.plot(*line, color=ARMS[x.colour], linewidth=2 + wide, solid_capstyle="round")
        size = 7 + 2.5 * wide
        axes.plot(x.mean, y.mean, "o", color=ARMS[x.colour], markersize=size, markeredgecolor=PAPER, clip_on=False)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(titles[0], color=INK, fontsize=SIZE)
    axes.set_ylabel(titles[1], color=INK, fontsize=SIZE)
    axes.locator_params(nbins=5)
    for place, (x, y) in enumerate(points):
        at = 392 - 4 - 16 * (len(points) - 1 - place)
        _text(figure, 58, at, 392, "●", ARMS[x.colour])
        _text(figure, 72, at, 392, _short(x.name, 22), INK)
        _text(figure, WIDTH - 14, at, 392, f"{number(x.mean)} and {number(y.mean)}", FAINT, ha="right")
    return _svg(figure, about)


def curves(lines: Sequence[Line], about: str) -> Markup:
    """Lines over a common axis of steps."""
    figure, axes = _axes(190, 46, 8, 8, 40)
    for place, line in enumerate(lines):
        x, y = zip(*line.points, strict=True)
        wide = 1.8 + 1.6 * (len(lines) - 1 - place)  # so that lines in the same place show as a rim
        marker = "o" if len(x) < 12 else ""
        axes.plot(x, y, color=ARMS[line.colour], linewidth=wide, marker=marker, markersize=2.2 * wide, clip_on=False)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.yaxis.get_major_locator().set_params(nbins=5)
    low, high = axes.get_ylim()
    if high - low < 1e-9 * max(1.0, abs(high)):
        axes.set_ylim(low - 0.5, high + 0.5)
    axes.yaxis.get_major_formatter().set_powerlimits((-3, 4))
    axes.yaxis.get_offset_text().set(color=FAINT, fontsize=SIZE - 1.5)
    axes.set_xlabel("step", color=FAINT, fontsize=SIZE)
    return _svg(figure, about)


def outcomes(rows: Sequence[tuple[str, Mapping[str, int]]], about: str) -> Markup:
    """A bar of wins, ties and losses for each arm."""
    shades = {"wins": INK, "ties": LINE, "losses": FAINT}
    height = 34.0 * len(rows) + 22
    figure, axes = _axes(height, 0, 0, 0, 0)
    for place, (name, counts) in enumerate(rows):
        y, left = 34.0 * place, 0.0
        _text(figure, 0, y + 12, height, _short(name, 36), INK, weight="bold")
        _text(figure, WIDTH, y + 12, height, " / ".join(str(counts[part]) for part in shades), FAINT, ha="right")
        for part, shade in shades.items():
            share = counts[part] / (sum(counts.values()) or 1)
            axes.barh(y + 23, share, left=left, height=12, color=shade)
            left += share
    for place, (part, shade) in enumerate(shades.items()):
        _text(figure, 80 * place, height - 4, height, "■", shade)
        _text(figure, 80 * place + 15, height - 4, height, part, FAINT)
    axes.set_xlim(0, 1)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return _svg(figure, about)


def number(value: float | None, *, signed: bool = False) -> str:
    """A number for display: two decimals, or none above 100; a dash for None."""
    if value is None:
        return "–"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    rounded = round(value, places) or 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{places}f}".replace("-", "−")


def _axes(height: float, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Any]:
    figure = Figure((WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height), facecolor="none"
    )
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=SIZE - 0.5, labelcolor=FAINT)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    return figure, axes


def _text(figure: Figure, x: float, y: float, height: float, text: str, colour: str, **style: Any) -> None:
    figure.text(x / WIDTH, 1 - y / height, text, color=colour, fontsize=SIZE, parse_math=False, **style)


def _short(name: str, most: int = 12) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(figure: Figure, about: str) -> Markup:
    """The SVG element alone. Identifiers are kept only where the chart needs them, and differ between charts."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": about}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = _ID.sub(lambda match: match[0] if f"#{match[1]}" in text else "", text)
    for colour, of_page in _OF_PAGE.items():
        text = text.replace(colour, of_page)
    opening = f'<svg viewBox="0 0 {WIDTH:g} {figure.get_figheight() * 72:g}" role="img" aria-label="{escape(about)}"'
    text = re.sub(r"\s*\n\s*", " ", text[text.index("<svg") :])
    return Markup(re.sub(r"<svg[^>]*?( xmlns:xlink=\"[^\"]*\")[^>]*", opening + r"\1", text, count=1))
