"""The conversations a model is put into, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from ccai import constitution, conversation
from ccai.constitution import Example, Principle
from ccai.conversation import Format, load_format, to_answer, to_criticise, to_revise
from ccai.errors import UserError
from ccai.records import Message

PRINCIPLE = Principle(
    slug="care",
    name="Care",
    statement="Care for all.",
    criteria=("Is kind.", "Costs $5 at most."),
    critique="Say where it hurts.",
    revision="Write it kindly.",
    examples=(
        Example("Q1?", "A1.", "C1.", "R1."),
        Example("Q2 for $prompt?", "A2.", "C2.", "R2."),
    ),
)
FORMAT = Format(
    system="You help. $statement\n$criteria\n",
    critique="$critique ($name)\nQuestion: $prompt\nAnswer: $answer",
    revision="$revision Once more: $prompt",
)


def turns(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


SYSTEM = ("system", "You help. Care for all.\n- Is kind.\n- Costs $5 at most.")
FIRST_EXAMPLE = [
    ("user", "Q1?"),
    ("assistant", "A1."),
    ("user", "Say where it hurts. (Care)\nQuestion: Q1?\nAnswer: A1."),
    ("assistant", "C1."),
    ("user", "Write it kindly. Once more: Q1?"),
    ("assistant", "R1."),
]
TASK = [
    ("user", "Why $1?"),
    ("assistant", "No $answer."),
    ("user", "Say where it hurts. (Care)\nQuestion: Why $1?\nAnswer: No $answer."),
]


def test_answer() -> None:
    under_system = to_answer("Be brief.", "Why?")
    assert turns(under_system.messages) == [("system", "Be brief."), ("user", "Why?")]
    assert under_system.shared == 1
    plain = to_answer("", "Why?")
    assert (turns(plain.messages), plain.shared) == ([("user", "Why?")], 0)


def test_critique_with_one_example() -> None:
    asked = to_criticise(FORMAT, PRINCIPLE, 1, "Why $1?", "No $answer.")
    assert turns(asked.messages) == [SYSTEM, *FIRST_EXAMPLE, *TASK]
    assert asked.shared == 7


def test_revision_goes_on_from_the_critique() -> None:
    asked = to_revise(FORMAT, PRINCIPLE, 0, "Why $1?", "No $answer.", "It hurts.")
    assert turns(asked.messages) == [
        SYSTEM,
        *TASK,
        ("assistant", "It hurts."),
        ("user", "Write it kindly. Once more: Why $1?"),
    ]
    assert asked.shared == 1


@pytest.mark.parametrize(("examples", "shared"), [(0, 1), (1, 7), (2, 13), (9, 13)])
def test_shared_messages_are_the_same_for_every_prompt(examples: int, shared: int) -> None:
    criticised = to_criticise(FORMAT, PRINCIPLE, examples, "Why?", "No.")
    revised = to_revise(FORMAT, PRINCIPLE, examples, "Another?", "Yes.", "Hm.")
    assert criticised.shared == revised.shared == shared
    assert criticised.messages[:shared] == revised.messages[:shared]
    assert criticised.messages[shared] != revised.messages[shared]


@pytest.mark.parametrize("path", sorted((ROOT / "data/templates").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_formats_fit_the_shipped_constitution(path: Path) -> None:
    format = load_format(path.stem, path.parent)
    for principle in constitution.load(ROOT / "data/constitutions/contemplative.md").principles:
        asked = to_revise(format, principle, 2, "PROMPT", "ANSWER", "CRITIQUE")
        roles = [message.role for message in asked.messages]
        assert roles == ["system"] + ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]
        assert all(message.content and message.content == message.content.strip() for message in asked.messages)
        without = to_revise(format, replace(principle, examples=()), 2, "PROMPT", "ANSWER", "CRITIQUE")
        assert without.messages == (asked.messages[0], *asked.messages[asked.shared :])


def write(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_format_is_read_from_a_file(tmp_path: Path) -> None:
    written = write(tmp_path, "system: '$$5, $name'\ncritique: $prompt\nrevision: ${answer}!\n")
    format = load_format("mine", written)
    asked = to_revise(format, PRINCIPLE, 0, "Why?", "No.", "Hm.")
    assert [asked.messages[place].content for place in (0, 3, 5)] == ["$5, Care", "Why?", "No.!"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("system: [", "mine.yaml: not valid YAML"),
        ("", "mine.yaml: : Input should be a valid dictionary"),
        ("system: a\ncritique: b\n", "mine.yaml: revision: Field required; correct it"),
        ("system: a\ncritique: b\nrevision: c\nextra: d\n", "mine.yaml: extra: Extra inputs are not permitted"),
        ("system: a\ncritique: 5\nrevision: c\n", "mine.yaml: critique: Input should be a valid string"),
        (
            "system: $prompt\ncritique: b\nrevision: c\n",
            "mine.yaml: system: bad placeholder 'prompt'; there are $name ",
        ),
        (
            "system: a\ncritique: $answr\nrevision: c\n",
            "mine.yaml: critique: bad placeholder 'answr'; there are $name ",
        ),
        ("system: a\ncritique: b\nrevision: costs 5$\n", "mine.yaml: revision: bad placeholder Invalid placeholder"),
    ],
)
def test_broken_format(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_format("mine", write(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"critiques\.format: no .*/other\.yaml; there are: none$"):
        load_format("other", tmp_path)
    with pytest.raises(UserError, match=r"there are: mine$"):
        load_format("other", write(tmp_path, "system: a"))


def test_default_folder_is_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load_format("conversation") == load_format("conversation", ROOT / conversation.TEMPLATES)
