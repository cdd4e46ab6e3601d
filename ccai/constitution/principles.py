"""The constitution: the principles by which a model criticises and revises its answers, read from Markdown or JSON.

A Markdown file (.md) is a `# Title`, free preamble, then one `## slug: Name` block per principle: its statement, the
sections `### Criteria` (a list, one line each), `### Critique` and `### Revision`, and at least one
`### Example`, whose turns begin `**User:**`, `**Answer:**`, `**Critique:**` and `**Revision:**` in that
order. Lines of a paragraph are joined by a space, list items keep their lines, and a blank line parts
paragraphs. An HTML comment that begins one line and ends that line or a later one is left out.

A JSON file (.json) is that of Hugging Face's constitutional-AI recipe (llm-swarm, examples/constitutional-ai):
`constitutions`, a list of `{"critic": request, "revision": request}`, and `system_chat`, a list of worked examples
for all of them. An example is a list of `{"role": "user" or "assistant", "content": text}`: the conversation to be
criticised, a request for its critique, the critique, a request for the revision, the revision.
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ccai.base import files
from ccai.base.errors import UserError, first
from ccai.base.hashing import digest

_SECTIONS = ("Criteria", "Critique", "Revision", "Example")
_TURNS = ("User", "Answer", "Critique", "Revision")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+(.*?))?\s*$")
_TURN = re.compile(r"\s*\*\*([^*:]+)(?::\*\*|\*\*:)(.*)")
_PRINCIPLE = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)\s*:\s*(\S.*)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(\S.*)")


@dataclass(frozen=True)
class Example:
    """A worked example: a poor answer, its critique, and the revised answer.

    Attributes:
        earlier: pairs of user and assistant turns before the example's prompt.
        critique_request, revision_request: this example's own requests; None: those of the principle.
    """

    user: str
    answer: str
    critique: str
    revision: str
    earlier: tuple[tuple[str, str], ...] = ()
    critique_request: str | None = None
    revision_request: str | None = None


@dataclass(frozen=True)
class Principle:
    """One principle, with its requests to critic and reviser and its few-shot examples.

    A principle from JSON has the two requests alone. Its name is the beginning of the critic's request, its slug a hash
    of both, and statement and criteria are empty.
    """

    slug: str
    name: str
    statement: str
    criteria: tuple[str, ...]
    critique: str
    revision: str
    examples: tuple[Example, ...]

    @property
    def sha256(self) -> str:
        return digest(_plain(self))


@dataclass(frozen=True)
class Constitution:
    """A title and one or more principles, in the file's order."""

    title: str
    principles: tuple[Principle, ...]

    @property
    def sha256(self) -> str:
        """The hash of the principles alone: title, preamble and white space do not change it."""
        return digest([_plain(principle) for principle in self.principles])


def load(path: Path) -> Constitution:
    """A constitution from a .md or .json file. Raises UserError if it is unreadable, not UTF-8 or malformed."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a constitution's file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from error
    if path.suffix not in (".md", ".json"):
        raise UserError(f"{path}: neither Markdown nor JSON by its name; name it .md or .json")
    return parse(text, str(path)) if path.suffix == ".md" else parse_json(text, str(path))


def parse(text: str, where: str) -> Constitution:
    """A constitution from Markdown. Raises UserError, naming `where` and the line, if it is malformed."""
    root = _tree(text, where)
    if not root.label:
        raise root.error("no title; begin the file with '# Title'")
    if not root.blocks:
        raise root.error("no principles; add at least one '## slug: Name' block")
    principles: dict[str, Principle] = {}
    for block in root.blocks:
        principle = _principle(block)
        if principle.slug in principles:
            raise block.error(f"second principle with the slug '{principle.slug}'; give it another")
        principles[principle.slug] = principle
    return Constitution(root.label, tuple(principles.values()))


@dataclass
class _Block:
    """A heading or a turn, the text directly below it, and the blocks inside it."""

    where: str
    line: int
    label: str = ""
    text: list[tuple[int, str]] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)

    def error(self, message: str, line: int | None = None) -> UserError:
        return UserError(f"{self.where}:{line or self.line}: {message}")

    def prose(self) -> str:
        prose = ""
        for line in (line.strip() for _, line in self.text):
            prose += ("\n" if not line or prose.endswith("\n") or _ITEM.match(line) else " ") + line
        if not prose.strip():
            raise self.error(f"no text under '{self.label}'; write it below")
        return re.sub(r"\n{2,}", "\n\n", prose.strip())


def _tree(text: str, where: str) -> _Block:
    """Read the lines and attach each to the heading or turn it belongs to."""
    root = _Block(where, 1)
    path = [root]  # from the root to the current block
    comment = 0
    # Not splitlines(): it also breaks at characters that editors do not count as line ends.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        if comment or line.lstrip().startswith("<!--"):
            comment = 0 if line.rstrip().endswith("-->") else comment or number
            continue
        if heading := _HEADING.match(line):
            depth, label, rest = len(heading[1]) - 1, heading[2] or "", ""
            if depth == 0 and label and len(path) == 1 and not root.label:
                root.label = label
                continue
            if depth not in (1, 2) or depth > len(path):
                raise root.error("misplaced heading; use '# Title', '## slug: Name', '### Section'", number)
        elif len(path) > 2 and path[2].label == "Example" and (turn := _TURN.match(line)):
            depth, label, rest = 3, turn[1].strip(), turn[2]
        else:
            path[-1].text.append((number, line))
            continue
        block = _Block(where, number, label, [(number, rest)])
        path[depth - 1].blocks.append(block)
        path[depth:] = [block]
    if comment:
        raise root.error("comment never closed; end one of its lines with '-->'", comment)
    return root


def _principle(block: _Block) -> Principle:
    heading = _PRINCIPLE.fullmatch(block.label)
    if not heading:
        raise block.error(f"bad heading '{block.label}'; write '## slug: Name' (slug: a-z, 0-9, hyphens)")
    statement = block.prose()
    sections: dict[str, _Block] = {}
    examples = []
    for section in block.blocks:
        if section.label not in _SECTIONS:
            raise section.error(f"unknown section '{section.label}'; use {', '.join(_SECTIONS)}")
        if section.label == "Example":
            examples.append(_example(section))
        elif section.label in sections:
            raise section.error(f"second section '{section.label}' in '{block.label}'; merge the two")
        sections[section.label] = section
    for label in _SECTIONS:
        if label not in sections:
            raise block.error(f"no section '{label}' in '{block.label}'; add '### {label}'")
    criteria = _criteria(sections["Criteria"])
    critique, revision = sections["Critique"].prose(), sections["Revision"].prose()
    return Principle(heading[1], heading[2], statement, criteria, critique, revision, tuple(examples))


def _criteria(section: _Block) -> tuple[str, ...]:
    section.prose()  # raises if the section is empty
    criteria = []
    for number, line in section.text:
        if item := _ITEM.fullmatch(line):
            criteria.append(item[1].strip())
        elif line.strip():
            raise section.error("not a criterion; write each on one line that begins '- '", number)
    return tuple(criteria)


def _example(section: _Block) -> Example:
    for number, line in section.text:
        if line.strip():
            raise section.error("text before the first turn; begin it with '**User:**'", number)
    order = ", ".join(_TURNS)
    for place, turn in enumerate(section.blocks):
        if turn.label not in _TURNS:
            raise turn.error(f"unknown turn '{turn.label}'; write {order}")
        if _TURNS.index(turn.label) != place:
            raise turn.error(f"turn '{turn.label}' is out of order; write {order}, once each")
    if len(section.blocks) < len(_TURNS):
        raise section.error(f"example without the turn '{_TURNS[len(section.blocks)]}'; write {order}")
    user, answer, critique, revision = (turn.prose() for turn in section.blocks)
    return Example(user, answer, critique, revision)


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Json(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Requests(_Json):
    critic: _Text
    revision: _Text


class _ChatMessage(_Json):
    role: Literal["user", "assistant"]
    content: _Text


class _ConstitutionFile(_Json):
    constitutions: list[_Requests] = Field(min_length=1)
    system_chat: list[list[_ChatMessage]] = []


def parse_json(text: str, where: str) -> Constitution:
    """A constitution from JSON. Raises UserError, naming `where` and the key or line, if it is malformed."""
    try:
        file = _ConstitutionFile.model_validate(files.loads(text.removeprefix("\ufeff")))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}:{error.lineno}: not valid JSON ({error.msg}); correct it") from None
    except ValidationError as error:
        raise UserError(f"{where}: {first(error, '(whole file)')}; correct it") from None
    except ValueError as error:  # a key twice, a number of thousands of digits, too deep
        raise UserError(f"{where}: {error}; correct it") from None
    examples = tuple(_chat(chat, f"{where}: system_chat.{place}") for place, chat in enumerate(file.system_chat))
    principles: dict[str, Principle] = {}
    for place, requests in enumerate(file.constitutions):
        # From the content, so that adding or removing other principles does not change it.
        slug = "p-" + digest([requests.critic, requests.revision])[:8]
        if slug in principles:
            raise UserError(f"{where}: constitutions.{place}: the same as one before it; remove one of them")
        name = textwrap.shorten(requests.critic, 60, placeholder=" …")
        principles[slug] = Principle(slug, name, "", (), requests.critic, requests.revision, examples)
    return Constitution(Path(where).stem, tuple(principles.values()))


def _chat(chat: list[_ChatMessage], where: str) -> Example:
    order = "user and assistant in turn, the last four: critique asked for, given, revision asked for, given"
    texts = [message.content for message in chat]
    for place, message in enumerate(chat):
        if message.role != ("user", "assistant")[place % 2]:
            raise UserError(f"{where}.{place}: turn of '{message.role}' is out of order; write {order}")
    if len(chat) < 6 or len(chat) % 2:
        raise UserError(f"{where}: {len(chat)} messages, not 6, 8, 10 …; write {order}")
    *before, user, answer, critique_request, critique, revision_request, revision = texts
    earlier = tuple(zip(before[::2], before[1::2], strict=True))
    return Example(user, answer, critique, revision, earlier, critique_request, revision_request)


def _plain(principle: Principle) -> dict[str, Any]:
    """The hash's input, without empty fields: a field that only JSON has does not change the hash of Markdown."""
    return asdict(principle, dict_factory=lambda fields: {name: value for name, value in fields if value})
