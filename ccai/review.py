"""Let people say which of two answers is better, without knowing which is which.

    python -m ccai.review --reviewer ann            # opens a local page; keys 1 to 5, d for what differs, u to undo
    python -m ccai.review --reviewer ann --judged   # of the pairs that a judge compared, dropped ones too
    python -m ccai.review --agreement               # people against the judge and each other: metrics/review.json

Every verdict is on disk (data/reviews/NAME.jsonl) before the next pair is shown. The same command goes on where it
stopped. See docs/REVIEW.md.
"""

from __future__ import annotations

import argparse
import base64
import difflib
import hashlib
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from ccai import constitution, params, records
from ccai.constitution import Principle
from ccai.errors import UserError, run
from ccai.records import DroppedPair, Pair, digest
from ccai.reviews import Log, Review, content, shown_first, standing
from ccai.show import NOTICE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAIRS = Path("data/pairs")
REVIEWS = Path("data/reviews")
METRICS = Path("metrics/review.json")
HOST = "127.0.0.1"

LOOPBACK = frozenset({HOST, "localhost", "::1"})
"""Names under which a browser on this machine, or at the end of an SSH tunnel, opens the page."""

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page's content policy: nothing from elsewhere, and of scripts in the page itself those it was sent with. Vue,
with which NiceGUI draws, makes functions of strings of its own."""

MOST_WORDS = 5000
"""Words of both answers up to which their difference is looked for: its cost is the product of the two."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


class Button(NamedTuple):
    """A choice, what its button says, and its keys; the first is shown on the button."""

    choice: Choice
    text: str
    keys: tuple[str, ...]


BUTTONS = (
    Button("first", "Answer 1", ("1", "ArrowLeft")),
    Button("second", "Answer 2", ("2", "ArrowRight")),
    Button("tie", "Tie", ("3",)),
    Button("both_bad", "Both bad", ("4",)),
    Button("skip", "Skip", ("5",)),
)

VALUE = "event => emit(event.target.value)"
"""What the page tells of an event at a list of choices."""

ROLES = {"system": "System message", "user": "Prompt", "assistant": "Earlier answer"}
"""What a turn of the conversation before the two answers is called."""

STYLE = """
main { --q-primary: #1a5fb4; }
.body--dark main { --q-primary: #8ab4f8; }
.nicegui-content { padding: 0; gap: 0; }
main { width: 100%; max-width: 1200px; margin: 0 auto; padding: 12px 16px 0; line-height: 1.5; }
main { display: grid; gap: 12px; }
h1, h2 { font-size: .8125rem; font-weight: 600; line-height: 1.5; margin: 0 0 4px; opacity: .75; }
ul { margin: 6px 0 0; padding-left: 20px; list-style: disc; }
.part { display: inline; }
.only { background: #ffe08a; color: #000; border-radius: 3px; }
.filters { display: flex; flex-wrap: wrap; gap: 8px 16px; font-size: .8125rem; }
.filters label { display: flex; gap: 6px; align-items: center; }
select { font: inherit; color: inherit; background: transparent; padding: 4px; max-width: 70vw; }
select { border: 1px solid #8888; border-radius: 4px; }
.body--dark select option { background: #121212; }
h1 { font-size: 1.125rem; margin: 0; opacity: 1; }
.faint { font-size: .8125rem; opacity: .75; }
.text { font-size: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.box { border: 1px solid #8888; border-radius: 8px; padding: 10px 14px; min-width: 0; }
.answers { display: grid; gap: 12px; grid-template-columns: 1fr 1fr; }
.bar { position: sticky; bottom: 0; padding: 10px 0; display: flex; flex-wrap: wrap; gap: 8px; background: #fff; }
.body--dark .bar { background: #121212; }
.bar .q-btn { color: var(--q-primary); }
.bar .better { background: var(--q-primary); color: #fff; }
.body--dark .bar .better { color: #121212; }
.key { border: 1px solid; border-radius: 4px; padding: 0 6px; margin-left: 8px; font-size: .75rem; line-height: 1.4; }
@media (max-width: 700px) {
  .answers { grid-template-columns: 1fr; }
  .bar .q-btn { flex: 1 1 30%; padding: 4px 8px; }
  .key { display: none; }
}
"""


def sample(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """`count` pairs, taken one at a time: next is the one whose labels came up least, the important ones first.

    So no prompt comes twice before each came once, and principles and hazards stay even. Between equals the hash of
    seed and content decides: order in the files plays no part, and a larger sample begins with the smaller.
    """
    left = {key: (_strata(pair), digest([seed, key]), pair) for pair in pairs for key in [content(pair)]}
    seen: Counter[tuple[str, ...]] = Counter()
    taken = []
    for _ in range(min(count, len(left))):
        key = min(left, key=lambda key: (*(seen[stratum] for stratum in left[key][0]), left[key][1]))
        strata, _, pair = left.pop(key)
        seen.update(strata)
        taken.append(pair)
    return taken


def _strata(pair: Pair) -> tuple[tuple[str, ...], ...]:
    return (
        ("prompt", pair.prompt_id),
        ("principle", pair.principle),
        ("hazard", pair.hazard),
        ("principle, hazard", pair.principle, pair.hazard),
    )


@dataclass
class View:
    """What one open page shows: pairs of a hazard and a principle (empty: of all), with or without what differs."""

    hazard: str = ""
    principle: str = ""
    difference: bool = False

    def shows(self, pair: Pair) -> bool:
        """Whether a pair is among those."""
        return self.hazard in ("", pair.hazard) and self.principle in ("", pair.principle)


def difference(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]] | None:
    """Both texts in parts, each with whether it stands in this text only, by words; None if they are too long."""
    words = [re.findall(r"\S+\s*|\s+", text) for text in (first, second)]
    if sum(map(len, words)) > MOST_WORDS:
        return None
    bare = [[word.strip() for word in text] for text in words]
    parts: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for kind, *places in difflib.SequenceMatcher[str](None, bare[0], bare[1], autojunk=False).get_opcodes():
        for text, into, begin, end in zip(words, parts, places[::2], places[1::2], strict=True):
            if begin < end:
                into.append(("".join(text[begin:end]), kind != "equal"))
    return parts


class Desk:
    """A reviewer, a sample, and what was said of it so far."""

    def __init__(self, pairs: Sequence[Pair], log: Log, reviewer: str) -> None:
        self.pairs = {content(pair): pair for pair in pairs}
        self.log = log
        self.reviewer = reviewer

    @property
    def verdicts(self) -> dict[str, Review]:
        """Standing verdicts on the sample, the latest last."""
        return {key: said for key, said in standing(self.log.reviews).items() if key in self.pairs}

    def current(self, view: View) -> str | None:
        """`content` of the pair to be shown in a view; None when all of it have a verdict."""
        done = self.verdicts
        return next((key for key, pair in self.pairs.items() if key not in done and view.shows(pair)), None)

    def labels(self, of: Callable[[Pair], str]) -> list[str]:
        """What the sample's pairs have as hazard, or as principle."""
        return sorted({of(pair) for pair in self.pairs.values()})

    def answers(self, key: str) -> tuple[str, str]:
        """The two answers in the order in which they are shown."""
        pair = self.pairs[key]
        chosen, rejected = pair.chosen[-1].content, pair.rejected[-1].content
        return (chosen, rejected) if shown_first(pair, self.reviewer) == "chosen" else (rejected, chosen)

    def choose(self, key: str, choice: Choice, note: str) -> None:
        """Write a verdict down, unless this pair has got one meanwhile, from another page or by a second key press.

        Raises:
            OSError: it could not be written.
        """
        if key not in self.verdicts:
            self._append(key, choice, note.strip())

    def undo(self) -> None:
        """Withdraw the latest verdict, so that its pair comes again.

        Raises:
            OSError: it could not be written.
        """
        if done := list(self.verdicts):
            self._append(done[-1], "undo", "")

    def _append(self, key: str, choice: Choice | Literal["undo"], note: str) -> None:
        pair = self.pairs[key]
        self.log.append(
            Review(
                pair_id=pair.pair_id,
                content=key,
                first=shown_first(pair, self.reviewer),
                choice=choice,
                note=note,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )


class Prefixed:
    """ASGI middleware: the page's addresses begin with this path, whatever a proxy says.

    jupyter-server-proxy says it in X-Forwarded-Prefix, which NiceGUI reads; other proxies may not.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = b"x-forwarded-prefix"
        if scope["type"] == "http":
            scope["headers"] = [*(header for header in scope["headers"] if header[0] != name), (name, self.prefix)]
        await self.app(scope, receive, send)


class Guarded:
    """ASGI middleware: answers only who asks for this page by one of its names, and gives the page its policy.

    A browser that is led here by another site's page says so: by a Host that is that site's name, if the name was made
    to lead to loopback (DNS rebinding), or else by an Origin that is not this page's.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif not self._ours(scope["headers"]):
            await self._refuse(scope, receive, send)
        elif scope["type"] == "websocket" or scope["path"] != "/":
            await self.app(scope, receive, send)
        else:
            packed = b"accept-encoding"  # the policy goes by what stands in the page
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != packed]}
            await self.app(scope, receive, _with_policy(send))

    def _ours(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        said: dict[bytes, list[str]] = {b"host": [], b"origin": []}
        for name, value in headers:
            if name in said:
                said[name].append(value.decode("latin-1").lower())
        [host], origins = said[b"host"] if len(said[b"host"]) == 1 else [""], said[b"origin"]
        return _name(host) in LOOPBACK | self.hosts and all(
            urlsplit(origin).netloc == host or _name(urlsplit(origin).netloc) in self.hosts for origin in origins
        )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        from starlette.responses import PlainTextResponse

        told = "This page does not go by that name. If a proxy leads here, start it with --host NAME."
        await PlainTextResponse(told, 403)(scope, receive, send)


def _name(address: str) -> str:
    """The name in `NAME:PORT`; empty for what is no such thing."""
    try:
        return urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return ""


def _with_policy(send: Send) -> Send:
    """Keeps the page until it is whole, since its policy names its scripts by their hashes."""
    begun: list[Message] = []
    page = bytearray()

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)
            return
        page.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        scripts = re.findall(rb"<script\b[^>]*>(.*?)</script>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts if script.strip()]
        policy = POLICY.format(scripts=" ".join(f"'sha256-{told}'" for told in hashes))
        headers = [*begun[0]["headers"], (b"content-security-policy", policy.encode())]
        await send({**begun[0], "headers": [*headers, (b"referrer-policy", b"no-referrer")]})
        await send({"type": "http.response.body", "body": bytes(page)})

    return keep


def serve(
    desk: Desk,
    principles: Mapping[str, Principle],
    listening: socket.socket,
    prefix: str,
    hosts: Sequence[str],
    *,
    show: bool,
) -> None:
    """Serve the page on loopback until stopped. NiceGUI brings all it needs: no other host is asked for anything.

    Args:
        hosts: names beside those of loopback by which the page is asked for.
        prefix: the path that a proxy takes off what it hands on, such as `/jupyter/default/proxy/8765`; empty: as the
            proxy says, or none.
        show: open the page in this machine's browser.
    """
    from nicegui import app, events, ui

    from ccai.page import hazard  # with matplotlib

    def save(step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            ui.notify(f"Not saved: {error}", type="negative", timeout=0, close_button=True)
            return
        ui.run_javascript("window.scrollTo(0, 0)")
        desk_view.refresh()

    def box(title: str, text: str) -> ui.element:
        with ui.element("section").classes("box") as made:
            with ui.element("h2"):
                ui.label(title)
            ui.label(text).classes("text")
        return made

    def filters(view: View) -> None:
        def narrow(name: str, value: str) -> None:
            setattr(view, name, value)
            desk_view.refresh()

        with ui.element("div").classes("filters"):
            for name, title, of, told in (
                ("hazard", "Hazard", lambda pair: pair.hazard, hazard),
                ("principle", "Principle", lambda pair: pair.principle, str),
            ):
                with ui.element("label"):
                    ui.label(title)
                    chosen = ui.element("select").props(f"name={name}")
                    chosen.on("change", lambda event, name=name: narrow(name, event.args), js_handler=VALUE)
                    with chosen:
                        for value in ("", *desk.labels(of)):
                            option = ui.element("option")
                            option.props["value"] = value
                            if value == getattr(view, name):
                                option.props["selected"] = True
                            with option:
                                ui.label(told(value) if value else "all")

    @ui.refreshable
    def answers(key: str, view: View) -> None:
        shown = desk.answers(key)
        parts = difference(*shown) if view.difference else None
        if view.difference and parts is None:
            ui.label("Too long to be compared word by word.").classes("faint")
        with ui.element("div").classes("answers"):
            for place, answer in enumerate(shown):
                if parts is None:
                    box(f"Answer {place + 1}", answer)
                    continue
                with ui.element("section").classes("box"):
                    with ui.element("h2"):
                        ui.label(f"Answer {place + 1}")
                    with ui.element("div").classes("text"):
                        for text, only in parts[place]:
                            ui.label(text).classes("part only" if only else "part")

    def question(key: str, view: View) -> ui.textarea:
        pair = desk.pairs[key]
        principle = principles.get(pair.principle)
        with ui.element("h1"):
            ui.label("Which answer is better by this principle?")
        # A principle of a JSON constitution has guidance, but no statement.
        with box(
            principle.name if principle else pair.principle,
            (principle.statement or principle.critique) if principle else "no longer in the constitution",
        ):
            if principle and principle.criteria:
                with ui.element("ul"):
                    for criterion in principle.criteria:
                        with ui.element("li"):
                            ui.label(criterion)
        for message in pair.prompt:
            box(ROLES[message.role], message.content)
        answers(key, view)
        note = ui.textarea("Note, if you like (key n; Esc leaves it)").props("autogrow outlined dense rows=1")
        return note.on("keydown.esc", js_handler="event => event.target.blur()")

    @ui.refreshable
    def desk_view(view: View) -> None:
        key, done = desk.current(view), len(desk.verdicts)
        with ui.element("main"):
            ui.linear_progress(done / len(desk.pairs), show_value=False).props("aria-label=progress")
            ui.label(f"{done} of {len(desk.pairs)} done, reviewer {desk.reviewer}. {NOTICE}").classes("faint")
            filters(view)
            steps: dict[str, Callable[[], Any]] = {"u": lambda: save(desk.undo)}
            if key is None:
                with ui.element("h1"):
                    whole = done == len(desk.pairs)
                    ui.label("All pairs have a verdict. Thank you." if whole else "All pairs like that have a verdict.")
                ui.label(f"They are in {desk.log.path}. You can close this page and stop the command.").classes("text")
            else:
                note = question(key, view)
                steps |= {"n": lambda: note.run_method("focus"), "d": lambda: compare_words(view)}
            with ui.element("div").classes("bar"):
                for choice, text, keys in BUTTONS if key is not None else ():

                    def give(choice: Choice = choice) -> None:
                        save(lambda: desk.choose(str(key), choice, note.value))

                    steps |= dict.fromkeys(keys, give)
                    button(text, keys[0], give)
                if key is not None:
                    button("Differences", "d", steps["d"])
                button("Undo", "u", steps["u"]).set_enabled(done > 0)
            # Made anew with each pair: a key that is pressed twice finds the old one gone and says nothing of the next.
            ui.keyboard(lambda event: press(steps, event), repeating=False, ignore=["input", "select", "textarea"])

    def compare_words(view: View) -> None:
        view.difference = not view.difference
        answers.refresh()

    def button(text: str, key: str, step: Callable[[], Any]) -> ui.button:
        better = key in "12"
        with ui.button(text, on_click=step, color=None).props(
            "no-caps " + ("unelevated" if better else "outline")
        ) as made:
            ui.label(key).classes("key")
        made.classes("better" if better else "")
        return made

    def press(steps: Mapping[str, Callable[[], Any]], event: events.KeyEventArguments) -> None:
        held = event.modifiers.ctrl or event.modifiers.alt or event.modifiers.meta
        if event.action.keydown and not held and event.key.name in steps:
            steps[event.key.name]()

    @ui.page("/", title="Review")
    def page() -> None:
        ui.add_css(STYLE)
        desk_view(View())

    if prefix:
        app.add_middleware(Prefixed, prefix=prefix)
    app.add_middleware(Guarded, hosts=hosts)
    print(f"review: {len(desk.verdicts)} of {len(desk.pairs)} pairs done; verdicts go to {desk.log.path}")
    port = listening.getsockname()[1]
    print(f"review: http://{HOST}:{port}/ (Ctrl-C stops)", flush=True)
    ui.run(
        host=HOST,
        port=port,
        fd=listening.fileno(),
        dark=None,  # as the browser is set
        language="en-US",
        reload=False,
        show=show,
        show_welcome_message=False,
        reconnect_timeout=30,
        tailwind=False,
        timeout_graceful_shutdown=1,
    )


def listen(port: int) -> socket.socket:
    """A socket that takes connections from now on, so that the address may be told; port 0 is one that is free.

    Raises:
        UserError: the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: {error}; give another, or 0 for any") from None


def read_pairs(*, dropped: bool) -> list[Pair]:
    """All pairs that were kept, and those that were not, if wanted."""
    kept = [pair for side in ("train", "validation") for pair in records.read(PAIRS / f"{side}.jsonl", Pair)]
    return kept + list[Pair](records.read(PAIRS / "dropped.jsonl", DroppedPair)) if dropped else kept


def has_screen() -> bool:
    """Whether a browser window can be opened here: without one, Python would start a text browser."""
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def compare() -> None:
    """Write metrics/review.json and say the main figures.

    Raises:
        UserError: nobody has reviewed any of the pairs as they are now.
    """
    from ccai import agreement  # with statsmodels, which takes longer to import than the page to start

    reviews = {path.stem: standing(records.read(path, Review)) for path in sorted(REVIEWS.glob("*.jsonl"))}
    found = agreement.summary(read_pairs(dropped=True), reviews)
    if not found["pairs"]:
        raise UserError(
            f"{REVIEWS}: no verdict on the pairs as they are now ({found['outdated']} on other texts);"
            " begin with python -m ccai.review --reviewer NAME"
        )
    records.write_json(METRICS, found)
    print("\n".join(agreement.lines(found)))
    print(f"review: written to {METRICS}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.review", description="Blind review of preference pairs.")
    parser.add_argument("--agreement", action="store_true", help="compare what was said so far; opens no page")
    parser.add_argument("--reviewer", metavar="NAME", help="who reviews: the name of the file in data/reviews")
    parser.add_argument("-n", type=int, default=50, help="how many pairs (50)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample (0)")
    parser.add_argument("--judged", action="store_true", help="pairs that a judge compared, dropped ones too")
    parser.add_argument("--port", type=int, default=8765, help="port on this machine (8765); 0: any that is free")
    parser.add_argument("--prefix", default="", help="path that a proxy takes off, if it does not say so itself")
    parser.add_argument(
        "--host", action="append", default=[], help="name in the browser's address, if a proxy leads here"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser here")
    options = parser.parse_args()
    if options.agreement:
        compare()
        return
    if not NAME.fullmatch(options.reviewer or ""):
        raise UserError("--reviewer NAME: give a name of a-z, 0-9, - and _; it becomes the name of a file")
    if options.n < 1:
        raise UserError(f"-n {options.n}: give 1 or more")
    if find_spec("nicegui") is None:
        raise UserError("ccai.review: NiceGUI is not installed; pip install -r requirements-review.txt")
    pairs = read_pairs(dropped=options.judged)
    if options.judged:
        pairs = [pair for pair in pairs if pair.verdict and pair.verdict.preference]
    if not pairs:
        judged = " with a judge's preference" if options.judged else ""
        raise UserError(f"{PAIRS}: no pairs{judged}; run dvc repro")
    principles = {p.slug: p for p in constitution.load(params.load().critiques.constitution).principles}
    desk = Desk(sample(pairs, options.n, options.seed), Log(REVIEWS / f"{options.reviewer}.jsonl"), options.reviewer)
    prefix = "/" + options.prefix.strip("/") if options.prefix.strip("/") else ""
    try:
        hosts = [name.lower() for name in options.host]
        serve(desk, principles, listen(options.port), prefix, hosts, show=has_screen() and not options.no_browser)
    except KeyboardInterrupt:
        print(f"stopped: {len(desk.verdicts)} of {len(desk.pairs)} pairs done; the same command goes on")
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    run(main)
