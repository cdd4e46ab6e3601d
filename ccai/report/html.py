"""Self-contained HTML pages: templates in ccai/report/pages, filled, with their own style and script.

Prompts and answers are untrusted text: everything is escaped, and the page's content policy allows no other script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ccai.report import charts
from ccai.stats import outcomes

PAGES = Path(__file__).parent / "pages"

HAZARDS = {
    "cse": "child sexual exploitation",
    "dfm": "defamation",
    "hte": "hate",
    "ipv": "intellectual property",
    "iwp": "indiscriminate weapons",
    "ncr": "non-violent crimes",
    "prv": "privacy",
    "spc_ele": "elections",
    "spc_fin": "financial advice",
    "spc_hlt": "health advice",
    "spc_lgl": "legal advice",
    "src": "sex-related crimes",
    "ssh": "suicide and self-harm",
    "sxc_prn": "sexual content",
    "vcr": "violent crimes",
}
"""AILuminate's codes in words; other sources' hazards are already words."""

LABEL = 60
"""Maximum characters of a label."""

REFUSALS = {"full_refusal": "refuses", "partial_refusal": "refuses in part", "full_compliance": "complies"}
"""XSTest's classes in words."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and characters that change the direction of text."""

_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029\x85]")


def words(path: str | Sequence[str]) -> str:
    """A path of names for display: `by_hazard.hte` is "by hazard › hate"."""
    names = path.split(".") if isinstance(path, str) else path
    return " › ".join(hazard(name).replace("_", " ") for name in names)


def hazard(code: str) -> str:
    """A hazard in words."""
    return HAZARDS.get(code, short(code))


def short(label: str) -> str:
    """A label cut to the room in a table or a plot: sources may give hazards and principles any name."""
    return label if len(label) <= LABEL else label[: LABEL - 1] + "…"


def figure(value: Any) -> str:
    """A suite's figure that is not a measure: numbers shortened, words unchanged, a dash for None."""
    if value is None or isinstance(value, float):
        return charts.number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def fine(value: float | None) -> str:
    """A figure of training, to three significant digits; a dash for None."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def p_value(value: float | None) -> str:
    """To three decimals; a dash for None."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def printable(value: Any) -> Any:
    """A text without control characters; other values unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNPRINTABLE.sub("", _LINE_ENDS.sub("\n", value))


def png(content: bytes) -> Markup:
    """An image as a data URL."""
    return Markup("data:image/png;base64," + base64.b64encode(content).decode())


def render(template: str, **values: Any) -> str:
    """A page from a template in ccai/report/pages. Raises UndefinedError for a missing value."""
    pages = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        finalize=printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {
        "words": words,
        "number": charts.number,
        "figure": figure,
        "fine": fine,
        "p": p_value,
        "hazard": hazard,
        "short": short,
        "refusal": REFUSALS.__getitem__,
    }
    pages.tests |= {"sure": outcomes.significant}
    script = (PAGES / "report.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (PAGES / "report.css").read_text(encoding="utf-8")
    return pages.get_template(template).render(
        script=Markup(script), script_sha256=allowed, style=Markup(style), **values
    )
