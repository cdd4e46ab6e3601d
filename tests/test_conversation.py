"""The conversations a model is put into, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccai.base.errors import UserError
from ccai.base.records import Message
from ccai.constitution import dialogue, principles
from ccai.constitution.dialogue import Format, load_format, to_answer, to_criticise, to_revise
from ccai.constitution.principles import Example, Principle

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
    critique=(
        {"user": "$prompt"},
        {"assistant": "$answer"},
        {"user": "$critique ($name)\nQuestion: $prompt\nAnswer: $answer"},
    ),
    revision_in="same",
    revision=({"user": "$revision Once more: $prompt"},),
)
ANEW = Format(
    system="You help.",
    critique=({"user": "Q: $prompt\nA: $answer\n$critique"},),
    revision_in="new",
    revision=({"user": "Hint: $criticism"}, {"assistant": "Go on."}, {"user": "$prompt $revision"}),
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


def test_revision_in_a_conversation_of_its_own() -> None:
    criticised = to_criticise(ANEW, PRINCIPLE, 1, "Why?", "No.")
    assert turns(criticised.messages) == [
        ("system", "You help."),
        ("user", "Q: Q1?\nA: A1.\nSay where it hurts."),
        ("assistant", "C1."),
        ("user", "Q: Why?\nA: No.\nSay where it hurts."),
    ]
    assert criticised.shared == 3
    revised = to_revise(ANEW, PRINCIPLE, 1, "Why?", "No.", "It hurts.")
    assert turns(revised.messages) == [
        ("system", "You help."),
        ("user", "Hint: C1."),
        ("assistant", "Go on."),
        ("user", "Q1? Write it kindly."),
        ("assistant", "R1."),
        ("user", "Hint: It hurts."),
        ("assistant", "Go on."),
        ("user", "Why? Write it kindly."),
    ]
    assert revised.shared == 5


def test_example_with_requests_of_its_own_and_turns_before_it() -> None:
    example = Example("Q?", "A.", "C.", "R.", (("Hello.", "Hi."),), "What hurts?", "Anew.")
    principle = replace(PRINCIPLE, examples=(example,))
    asked = to_revise(FORMAT, principle, 1, "Why?", "No.", "Hm.")
    assert turns(asked.messages[1 : asked.shared]) == [
        ("user", "Hello."),
        ("assistant", "Hi."),
        ("user", "Q?"),
        ("assistant", "A."),
        ("user", "What hurts? (Care)\nQuestion: Q?\nAnswer: A."),
        ("assistant", "C."),
        ("user", "Anew. Once more: Q?"),
        ("assistant", "R."),
    ]
    assert turns(asked.messages)[-1] == ("user", "Write it kindly. Once more: Why?")


def test_empty_system_message_is_left_out() -> None:
    asked = to_criticise(
        ANEW.model_copy(update={"system": "$statement"}), replace(PRINCIPLE, statement=""), 0, "Q", "A"
    )
    assert ([message.role for message in asked.messages], asked.shared) == (["user"], 0)


def test_turn_that_a_principle_leaves_empty() -> None:
    format = ANEW.model_copy(update={"critique": ({"user": "$statement"}, {"assistant": "Hm."}, *ANEW.critique)})
    with pytest.raises(UserError, match=r"^critiques\.format: the turn .* is empty for 'Care'; put words"):
        to_criticise(format, replace(PRINCIPLE, statement=""), 0, "Q", "A")


@pytest.mark.parametrize(("examples", "shared"), [(0, 1), (1, 7), (2, 13), (9, 13)])
def test_shared_messages_are_the_same_for_every_prompt(examples: int, shared: int) -> None:
    criticised = to_criticise(FORMAT, PRINCIPLE, examples, "Why?", "No.")
    revised = to_revise(FORMAT, PRINCIPLE, examples, "Another?", "Yes.", "Hm.")
    assert criticised.shared == revised.shared == shared
    assert criticised.messages[:shared] == revised.messages[:shared]
    assert criticised.messages[shared] != revised.messages[shared]


@pytest.mark.parametrize("file", ["contemplative.md", "example.json"])
@pytest.mark.parametrize("path", sorted((ROOT / "data/templates").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_formats_fit_the_shipped_constitutions(path: Path, file: str) -> None:
    format = load_format(path.stem, path.parent)
    for principle in principles.load(ROOT / "data/constitutions" / file).principles:
        criticised = to_criticise(format, principle, 2, "PROMPT", "ANSWER")
        revised = to_revise(format, principle, 2, "PROMPT", "ANSWER", "CRITICISM")
        for asked in (criticised, revised):
            roles = [message.role for message in asked.messages]
            assert roles == ["system"] + ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]
            assert all(message.content and message.content == message.content.strip() for message in asked.messages)
            assert "$" not in "".join(message.content for message in asked.messages)
        task = revised.messages[revised.shared :]
        without = to_revise(format, replace(principle, examples=()), 2, "PROMPT", "ANSWER", "CRITICISM")
        assert without.messages == (revised.messages[0], *task)
        for what in ("PROMPT", "CRITICISM", principle.revision):
            assert any(what in message.content for message in without.messages), what


MINE = """\
system: '$$5, $name'
critique:
  - user: $prompt
  - assistant: $answer
  - user: $critique
revision_in: same
revision:
  - user: ${revision}!
"""


def write(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_format_is_read_from_a_file(tmp_path: Path) -> None:
    format = load_format("mine", write(tmp_path, MINE))
    asked = to_revise(format, PRINCIPLE, 0, "Why?", "No.", "Hm.")
    assert [asked.messages[place].content for place in (0, 2, 5)] == ["$5, Care", "No.", "Write it kindly.!"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("system: '", "system: [", "mine.yaml:2: not valid YAML; correct it"),
        (MINE, "", "mine.yaml: input should be a valid dictionary"),
        (MINE, "2024-13-45", "mine.yaml:1: not valid YAML"),
        (MINE, "[" * 9999, "mine.yaml"),
        ("revision_in: same\n", "", "mine.yaml: revision_in: field required; correct it"),
        ("revision_in: same\n", "revision_in: there\n", "mine.yaml: revision_in: input should be 'same' or 'new'"),
        ("revision_in: same\n", "revision_in: same\nextra: d\n", "mine.yaml: extra: no such key"),
        ("user: $prompt", "user: 5", "mine.yaml: critique.0.user: input should be a valid string"),
        ("assistant: $answer", "system: $answer", "mine.yaml: critique.1.system.[key]: input should be 'user' or"),
        ("assistant: $answer", "user: $answer", "mine.yaml: critique: turns must alternate, user first and last"),
        ("  - user: ${revision}!", "  []", "mine.yaml: revision: turns must alternate"),
        ("assistant: $answer", "assistant: a", "mine.yaml: critique: the model is not shown $answer; use it in a"),
        ("revision_in: same", "revision_in: new", "mine.yaml: revision: the model is not shown $criticism $prompt;"),
        ("$name", "$prompt", "mine.yaml: system: bad placeholder 'prompt'; there are $name $statement"),
        ("$answer", "$answr", "mine.yaml: critique.1: bad placeholder 'answr'; there are $name "),
        ("$answer", "$answer $criticism", "mine.yaml: critique.1: bad placeholder 'criticism'; there are"),
        ("}!", "} costs 5$", "mine.yaml: revision.0: bad placeholder Invalid placeholder"),
    ],
)
def test_broken_format(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert MINE.count(old) == 1
    with pytest.raises(UserError) as error:
        load_format("mine", write(tmp_path, MINE.replace(old, new)))
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, len(MINE)), length=st.integers(0, 40), new=st.text(max_size=6) | st.sampled_from("$:-'[{\n")
)
def test_any_format_is_read_or_refused(tmp_path: Path, start: int, length: int, new: str) -> None:
    write(tmp_path, MINE[:start] + new + MINE[start + length :])
    try:
        format = load_format("mine", tmp_path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    for asked in (to_criticise(format, PRINCIPLE, 1, "Q", "A"), to_revise(format, PRINCIPLE, 1, "Q", "A", "C")):
        assert asked.messages[-1].role == "user"
        assert all(message.content for message in asked.messages)


def test_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"critiques\.format: no .*/other\.yaml; there are: none$"):
        load_format("other", tmp_path)
    with pytest.raises(UserError, match=r"there are: mine$"):
        load_format("other", write(tmp_path, "system: a"))


def test_default_folder_is_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load_format("conversation") == load_format("conversation", ROOT / dialogue.TEMPLATES)
