"""What the review page shows and what its keys and buttons do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nicegui import events, ui

from ccai.base.terminal import NOTICE
from ccai.constitution.principles import Principle
from ccai.report.html import hazard
from ccai.review.desk import Choice, Desk, View, difference


class Button(NamedTuple):
    """A choice, its button's text, and its keys; the button shows the first key."""

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
"""JavaScript that sends the value of a list of choices to the server."""

ROLES = {"system": "System message", "user": "Prompt", "assistant": "Earlier answer"}
"""Titles of the conversation's turns before the two answers."""

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


class Page:
    """The page of one desk. All open pages show it, each by its own view."""

    def __init__(self, desk: Desk, principles: Mapping[str, Principle]) -> None:
        self._desk = desk
        self._principles = principles

    @ui.refreshable_method
    def show(self, view: View) -> None:
        """The next pair of a view, or that there is none."""
        desk = self._desk
        key, done = desk.current(view), len(desk.verdicts)
        with ui.element("main"):
            ui.linear_progress(done / len(desk.pairs), show_value=False).props("aria-label=progress")
            ui.label(f"{done} of {len(desk.pairs)} done, reviewer {desk.reviewer}. {NOTICE}").classes("faint")
            self._filters(view)
            steps: dict[str, Callable[[], Any]] = {"u": lambda: self._save(desk.undo)}
            if key is None:
                with ui.element("h1"):
                    whole = done == len(desk.pairs)
                    ui.label("All pairs have a verdict. Thank you." if whole else "All pairs like that have a verdict.")
                ui.label(f"They are in {desk.log.path}. You can close this page and stop the command.").classes("text")
            else:
                note = self._question(key, view)
                steps |= {"n": lambda: note.run_method("focus"), "d": lambda: self._compare_words(view)}
            with ui.element("div").classes("bar"):
                for choice, text, keys in BUTTONS if key is not None else ():

                    def give(choice: Choice = choice) -> None:
                        self._save(lambda: desk.choose(str(key), choice, note.value))

                    steps |= dict.fromkeys(keys, give)
                    _button(text, keys[0], give)
                if key is not None:
                    _button("Differences", "d", steps["d"])
                _button("Undo", "u", steps["u"]).set_enabled(done > 0)
            # Created anew for each pair, so that a key pressed twice does not judge the next pair.
            ui.keyboard(lambda event: _press(steps, event), repeating=False, ignore=["input", "select", "textarea"])

    def _filters(self, view: View) -> None:
        def narrow(name: str, value: str) -> None:
            setattr(view, name, value)
            self.show.refresh()

        with ui.element("div").classes("filters"):
            for name, title, of, in_words in (
                ("hazard", "Hazard", lambda pair: pair.hazard, hazard),
                ("principle", "Principle", lambda pair: pair.principle, str),
            ):
                with ui.element("label"):
                    ui.label(title)
                    chosen = ui.element("select").props(f"name={name}")
                    chosen.on("change", lambda event, name=name: narrow(name, event.args), js_handler=VALUE)
                    with chosen:
                        for value in ("", *self._desk.labels(of)):
                            option = ui.element("option")
                            option.props["value"] = value
                            if value == getattr(view, name):
                                option.props["selected"] = True
                            with option:
                                ui.label(in_words(value) if value else "all")

    def _question(self, key: str, view: View) -> ui.textarea:
        """The principle, the conversation, the two answers and a field for a note, which is returned."""
        pair = self._desk.pairs[key]
        principle = self._principles.get(pair.principle)
        with ui.element("h1"):
            ui.label("Which answer is better by this principle?")
        # A principle of a JSON constitution has requests, but no statement.
        with _box(
            principle.name if principle else pair.principle,
            (principle.statement or principle.critique) if principle else "no longer in the constitution",
        ):
            if principle and principle.criteria:
                with ui.element("ul"):
                    for criterion in principle.criteria:
                        with ui.element("li"):
                            ui.label(criterion)
        for message in pair.prompt:
            _box(ROLES[message.role], message.content)
        self._answers(key, view)
        note = ui.textarea("Note, if you like (key n; Esc leaves it)").props("autogrow outlined dense rows=1")
        return note.on("keydown.esc", js_handler="event => event.target.blur()")

    @ui.refreshable_method
    def _answers(self, key: str, view: View) -> None:
        shown = self._desk.answers(key)
        parts = difference(*shown) if view.difference else None
        if view.difference and parts is None:
            ui.label("Too long to be compared word by word.").classes("faint")
        with ui.element("div").classes("answers"):
            for place, answer in enumerate(shown):
                if parts is None:
                    _box(f"Answer {place + 1}", answer)
                    continue
                with ui.element("section").classes("box"):
                    with ui.element("h2"):
                        ui.label(f"Answer {place + 1}")
                    with ui.element("div").classes("text"):
                        for text, only in parts[place]:
                            ui.label(text).classes("part only" if only else "part")

    def _compare_words(self, view: View) -> None:
        view.difference = not view.difference
        self._answers.refresh()

    def _save(self, step: Callable[[], None]) -> None:
        """Do what writes to disk, then show what is next; a failure is said and changes nothing."""
        try:
            step()
        except OSError as error:
            ui.notify(f"Not saved: {error}", type="negative", timeout=0, close_button=True)
            return
        ui.run_javascript("window.scrollTo(0, 0)")
        self.show.refresh()


def _box(title: str, text: str) -> ui.element:
    with ui.element("section").classes("box") as made:
        with ui.element("h2"):
            ui.label(title)
        ui.label(text).classes("text")
    return made


def _button(text: str, key: str, step: Callable[[], Any]) -> ui.button:
    better = key in "12"
    with ui.button(text, on_click=step, color=None).props("no-caps " + ("unelevated" if better else "outline")) as made:
        ui.label(key).classes("key")
    made.classes("better" if better else "")
    return made


def _press(steps: Mapping[str, Callable[[], Any]], event: events.KeyEventArguments) -> None:
    held = event.modifiers.ctrl or event.modifiers.alt or event.modifiers.meta
    if event.action.keydown and not held and event.key.name in steps:
        steps[event.key.name]()
