from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccai.base.errors import UserError
from ccai.constitution.principles import Constitution, Example, Principle, load, parse, parse_json

SHIPPED = Path(__file__).parents[1] / "data" / "constitutions" / "contemplative.md"

# Line numbers in the tests below are this text's.
SMALL = """\
# Small rules

A preamble.

## plain: Plainness
Say it in short words.

### Criteria
- Uses short words.
- Says one thing at a time.

### Critique
Name the long words.

### Revision
Write only the new answer.

### Example
**User:** What is rain?
**Answer:** Precipitation.
**Critique:** A long word; say it plainly.
**Revision:** Water that falls from clouds.
"""


def fault(text: str) -> str:
    """Return the message with which parsing fails; the file is called f."""
    with pytest.raises(UserError) as caught:
        parse(text, "f")
    return str(caught.value)


def swap(old: str, new: str, text: str = SMALL) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


# The shipped file


def test_shipped_principles() -> None:
    shipped = load(SHIPPED)
    assert shipped.title == "Contemplative constitution"
    names = {principle.slug: principle.name for principle in shipped.principles}
    assert names == {
        "emptiness": "Emptiness (śūnyatā)",
        "non-duality": "Non-duality (advaya)",
        "mindfulness": "Mindfulness (sati)",
        "boundless-care": "Boundless care (anālambana karuṇā)",
    }


def test_shipped_word_budgets() -> None:
    def words(text: str) -> int:
        return len(text.split())

    for principle in load(SHIPPED).principles:
        assert words(principle.statement) <= 40
        assert 3 <= len(principle.criteria) <= 4
        assert all(words(criterion) <= 15 for criterion in principle.criteria)
        assert words(principle.critique) <= 45 and words(principle.revision) <= 45
        assert 2 <= len(principle.examples) <= 3
        for example in principle.examples:
            assert 0 < words(example.user) <= 35
            assert 0 < words(example.answer) <= 45
            assert 0 < words(example.critique) <= 45
            assert 0 < words(example.revision) <= 60


def test_shipped_revisions_show_the_principle_without_naming_it() -> None:
    naming = r"as an AI|principle|critique|emptiness|dual|mindful|boundless|śūnyatā|advaya|\bsati\b"
    for example in (example for principle in load(SHIPPED).principles for example in principle.examples):
        assert not re.search(naming, example.revision, re.IGNORECASE)
        assert re.search(r"\b(you|your)\b", example.revision, re.IGNORECASE)
        assert len({example.user, example.answer, example.critique, example.revision}) == 4


# What is read


def test_fields() -> None:
    example = Example(
        "What is rain?", "Precipitation.", "A long word; say it plainly.", "Water that falls from clouds."
    )
    plain = Principle(
        slug="plain",
        name="Plainness",
        statement="Say it in short words.",
        criteria=("Uses short words.", "Says one thing at a time."),
        critique="Name the long words.",
        revision="Write only the new answer.",
        examples=(example,),
    )
    assert parse(SMALL, "f") == Constitution("Small rules", (plain,))


def test_other_principles_in_their_order() -> None:
    blocks = SMALL[SMALL.index("## plain") :]
    text = "# Ship's rules\n" + "\n".join(
        blocks.replace("plain: Plainness", heading)
        for heading in ("zeal-2: Zeal: at sea", "rope: 索 (nawa)", "7: Seven")
    )
    principles = parse(text, "f").principles
    assert [(p.slug, p.name) for p in principles] == [
        ("zeal-2", "Zeal: at sea"),
        ("rope", "索 (nawa)"),
        ("7", "Seven"),
    ]


def test_several_examples_and_any_order_of_sections() -> None:
    start, rest = SMALL.split("### Criteria")
    rest, example = rest.split("### Example")
    text = f"{start}### Example{example}### Criteria{rest}### Example{example.replace('rain', 'snow')}"
    assert [e.user for e in parse(text, "f").principles[0].examples] == ["What is rain?", "What is snow?"]


def test_lines_are_joined_paragraphs_and_list_items_kept() -> None:
    answer = "**Answer:**\n\nWater\n  drops.\n\n\n**Note:** a list.\n- one\n- two\n\nEnd."
    # A bold label is a turn in an example only.
    assert "unknown turn 'Note'" in fault(swap("**Answer:** Precipitation.", answer))
    text = swap("**Answer:** Precipitation.", answer.replace("**Note:** a", "A"))
    text = swap("Name the long words.", "Name them.\n**Note:** be kind.", text)
    principle = parse(text, "f").principles[0]
    assert principle.examples[0].answer == "Water drops.\n\nA list.\n- one\n- two\n\nEnd."
    assert principle.critique == "Name them. **Note:** be kind."


def test_colon_outside_the_bold() -> None:
    assert parse(SMALL.replace(":**", "**:"), "f") == parse(SMALL, "f")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, end: str) -> None:
    path = tmp_path / "c.md"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", end).encode())
    assert load(path) == parse(SMALL, "f")
    with pytest.raises(UserError, match=r"^f:12: no text under 'Critique'"):
        parse(swap("Name the long words.", "").replace("\n", end), "f")


def test_only_line_ends_count_as_lines() -> None:
    text = swap("A preamble.", "A\x0c pre\u2028amble\x85.")
    assert fault(swap("Name the long words.", "", text)).startswith("f:12:")


def test_comments_are_left_out() -> None:
    text = swap("- Says one", "<!-- - Is long. -->\n  <!-- ### Nonsense\n\n## x -->\n- Says one")
    text = swap("**Answer:**", "<!-- shorter? -->\n**Answer:**", text)
    assert parse(text, "f") == parse(SMALL, "f")


def test_frozen() -> None:
    principle = parse(SMALL, "f").principles[0]
    with pytest.raises(FrozenInstanceError):
        principle.slug = "other"  # type: ignore[misc]


# Hashes


def test_hash_is_canonical_json() -> None:
    # The recorded value: pairs made earlier are matched to a constitution by it, so it must not drift.
    assert parse(SMALL, "f").sha256 == "403f092c60a17dbde35dc31601322023fe996d0cdd532174f527d956bbb3b1a4"
    assert re.fullmatch("[0-9a-f]{64}", parse(SMALL, "f").principles[0].sha256)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A preamble.", "Another preamble.\n\n- with a list"),
        ("# Small rules", "# Short rules"),
        ("in short words", "in\n  short  \nwords"),
        ("### Critique\n", "###  Critique \n\n\n"),
        ("- Says", "* Says"),
        ("### Revision\n", "### Revision\n<!-- to do -->\n"),
    ],
)
def test_preamble_and_white_space_leave_the_hash(old: str, new: str) -> None:
    assert parse(swap(old, new), "f").sha256 == parse(SMALL, "f").sha256


@pytest.mark.parametrize(
    "old",
    ["Plainness", "Say it", "one thing", "Name the", "only the", "rain?", "Precip", "A long", "Water"],
)
def test_every_field_counts(old: str) -> None:
    before, after = parse(SMALL, "f"), parse(swap(old, old + "!"), "f")
    assert after.sha256 != before.sha256
    assert after.principles[0].sha256 != before.principles[0].sha256


def test_editing_one_principle_changes_only_its_hash() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    before = parse(text, "f")
    after = parse(swap("Sees what could go wrong before it advises.", "Sees what may go wrong.", text), "f")
    pairs = zip(before.principles, after.principles, strict=True)
    assert [new.slug for old, new in pairs if new.sha256 != old.sha256] == ["mindfulness"]
    assert after.sha256 != before.sha256
    assert len({principle.sha256 for principle in before.principles}) == 4


def test_order_and_number_of_principles_change_the_hash() -> None:
    shipped = load(SHIPPED)
    assert replace(shipped, principles=shipped.principles[::-1]).sha256 != shipped.sha256
    assert replace(shipped, principles=shipped.principles[:2]).sha256 != shipped.sha256


# Errors: each names file, line, what is wrong and what to do


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# Small rules\n", "Small rules\n", "f:1: no title; begin"),
        ("A preamble.", "# Again", "f:3: misplaced heading; use"),
        ("A preamble.", "### Criteria", "f:3: misplaced heading; use"),
        ("A preamble.", "## plain\nText.", "f:3: bad heading 'plain'; write '## slug: Name'"),
        ("plain: Plainness", "plain:", "f:5: bad heading 'plain:'; write"),
        ("plain: Plainness", "", "f:5: bad heading ''; write"),
        ("plain: Plainness", "Plain: Plainness", "f:5: bad heading 'Plain: Plainness'; write"),
        ("plain: Plainness", "plain_ness: Plainness", "f:5: bad heading"),
        ("plain: Plainness", "plain--ness: Plainness", "f:5: bad heading"),
        ("Say it in short words.", "", "f:5: no text under 'plain: Plainness'; write"),
        ("### Critique", "### Criticism", "f:12: unknown section 'Criticism'; use Criteria, Critique"),
        ("### Critique", "### critique", "f:12: unknown section 'critique'; use"),
        ("### Critique", "#### Critique", "f:12: misplaced heading; use"),
        ("### Critique", "# Critique", "f:12: misplaced heading; use"),
        ("### Critique", "### Revision", "f:15: second section 'Revision' in 'plain: Plainness'; merge"),
        (SMALL[SMALL.index("### Criteria") : SMALL.index("### Critique")], "", "f:5: no section 'Criteria'"),
        ("### Critique\nName the long words.\n", "", "f:5: no section 'Critique' in 'plain: Plainness'; add"),
        ("### Revision\nWrite only the new answer.\n", "", "f:5: no section 'Revision' in"),
        (SMALL[SMALL.index("### Example") :], "", "f:5: no section 'Example' in 'plain: Plainness'; add"),
        ("- Uses short words.\n- Says one thing at a time.\n", "\n", "f:8: no text under 'Criteria'; write"),
        ("Name the long words.", "", "f:12: no text under 'Critique'; write"),
        ("Write only the new answer.", " \n\n", "f:15: no text under 'Revision'; write"),
        ("- Uses short words.", "Uses short words.", "f:9: not a criterion; write each on one line"),
        ("- Says one thing at a time.", "  at all times", "f:10: not a criterion; write"),
        ("- Says one thing at a time.", "-  ", "f:10: not a criterion; write"),
        ("**User:** What", "For one:\n**User:** What", "f:19: text before the first turn; begin it"),
        (SMALL[SMALL.index("**User") :], "\n\n", "f:18: example without the turn 'User'; write User, Answer"),
        ("**Revision:** Water that falls from clouds.", "", "f:18: example without the turn 'Revision'"),
        ("**Critique:** A long word; say it plainly.\n", "", "f:21: turn 'Revision' is out of order; write"),
        ("**User:** What is rain?\n", "", "f:19: turn 'Answer' is out of order; write"),
        ("**Answer:**", "**User:**", "f:20: turn 'User' is out of order; write"),
        ("clouds.\n", "clouds.\n**Revision:** Rain.\n", "f:23: turn 'Revision' is out of order; write"),
        ("clouds.\n", "clouds.\n**User:** Snow?\n", "f:23: turn 'User' is out of order; write"),
        ("**Answer:**", "**Reply:**", "f:20: unknown turn 'Reply'; write User, Answer, Critique, Revision"),
        ("**Answer:** Precipitation.", "**Answer:**\n\n", "f:20: no text under 'Answer'; write"),
        ("**Revision:** Water that falls from clouds.", "**Revision:** ", "f:22: no text under 'Revision'"),
        ("**Answer:** Precipitation.", "<!-- shorter?\n**Answer:**", "f:20: comment never closed; end"),
        ("**Answer:** P", "<!-- shorter? --> **Answer:** P", "f:20: comment never closed; end"),
    ],
)
def test_errors(old: str, new: str, message: str) -> None:
    found = fault(swap(old, new))
    assert found.startswith(message)
    assert re.fullmatch(r"f:\d+: .+; .+", found)


def test_second_principle_with_the_same_slug() -> None:
    second = SMALL[SMALL.index("## plain") :].replace("Plainness", "Other")
    assert fault(SMALL + second) == "f:23: second principle with the slug 'plain'; give it another"


@pytest.mark.parametrize("text", ["# Title\n\nOnly a preamble.\n", "# Title"])
def test_no_principles(text: str) -> None:
    assert fault(text) == "f:1: no principles; add at least one '## slug: Name' block"


def test_empty_text() -> None:
    assert fault("") == "f:1: no title; begin the file with '# Title'"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    missing = tmp_path / "none.md"
    with pytest.raises(UserError) as caught:
        load(missing)
    assert str(caught.value).startswith(f"{missing}: cannot be read (No such file or directory); give")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        load(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.md"
    path.write_bytes(swap("short words.\n\n", "shört words.\n\n").encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:6: not UTF-8; save the file as UTF-8"


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.md"
    path.write_text("# Title\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}:1: no principles")):
        load(path)


# JSON

EXAMPLE = SHIPPED.with_name("example.json")
CHAT = [
    ("user", "What is rain?"),
    ("assistant", "Precipitation."),
    ("user", "Which words are long?"),
    ("assistant", "One is."),
    ("user", "Write it plainly."),
    ("assistant", "Water from clouds."),
]


def as_json(requests: list[Any], *chats: list[tuple[str, str]]) -> str:
    messages = [[{"role": role, "content": content} for role, content in chat] for chat in chats]
    return json.dumps({"constitutions": requests, "system_chat": messages})


def asks(word: str) -> dict[str, str]:
    return {"critic": f"Say what is {word}.", "revision": f"Write it less {word}."}


def test_json_fields() -> None:
    read = parse_json(as_json([asks("long"), asks(" \n")], CHAT), "folder/short-words.json")
    example = Example(
        user="What is rain?",
        answer="Precipitation.",
        critique="One is.",
        revision="Water from clouds.",
        critique_request="Which words are long?",
        revision_request="Write it plainly.",
    )
    assert read.title == "short-words"
    [first, second] = read.principles
    assert (first.critique, first.revision) == ("Say what is long.", "Write it less long.")
    assert (first.name, first.statement, first.criteria) == ("Say what is long.", "", ())
    assert first.examples == second.examples == (example,)
    assert re.fullmatch("p-[0-9a-f]{8}", first.slug)


def test_json_example_that_begins_in_the_midst_of_a_conversation() -> None:
    before = [("user", "Hello."), ("assistant", "Hi.")]
    [principle] = parse_json(as_json([asks("long")], [*before, *CHAT]), "f.json").principles
    [example] = principle.examples
    assert example.earlier == (("Hello.", "Hi."),)
    assert (example.user, example.critique_request) == ("What is rain?", "Which words are long?")


def test_json_slugs_and_hashes_are_those_of_the_content() -> None:
    before = parse_json(as_json([asks("long"), asks("dull")], CHAT), "f.json")
    after = parse_json(as_json([asks("new"), asks("dull"), asks("longer"), asks("long")], CHAT), "g.json")
    hashes = {principle.slug: principle.sha256 for principle in after.principles}
    assert len(hashes) == 4
    assert {(p.slug, p.sha256) for p in before.principles} <= set(hashes.items())


def test_shipped_json_example() -> None:
    shipped = load(EXAMPLE)
    assert len(shipped.principles) == 2
    assert [len(example.earlier) for example in shipped.principles[0].examples] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.json:1: not valid JSON (Expecting value)"),
        ('{\n"constitutions": [,]}', "f.json:2: not valid JSON"),
        ("[" * 100_000, "f.json: nested too deep"),
        ("9" * 5000, "f.json: a number of 5000 digits"),
        ("[]", "f.json: (whole file): input should be a valid dictionary"),
        ("{}", "f.json: constitutions: field required"),
        (as_json([]), "f.json: constitutions: list should have at least 1 item"),
        (as_json([{"critic": "a"}]), "f.json: constitutions.0.revision: field required"),
        (
            as_json([asks("long"), {**asks("dull"), "critic": " "}]),
            "f.json: constitutions.1.critic: string should have",
        ),
        (as_json([{**asks("long"), "name": "a"}]), "f.json: constitutions.0.name: no such key"),
        ('{"constitutions": [{"critic": "a", "critic": "b"}]}', "f.json: 'critic': twice in one object"),
        (as_json([asks("\ud800")]), "f.json: half a surrogate pair"),
        (as_json([asks("long"), asks("dull"), asks("long")]), "f.json: constitutions.2: the same as one before it"),
        (as_json([asks("long")], CHAT, CHAT[:4]), "f.json: system_chat.1: 4 messages, not 6, 8, 10"),
        (as_json([asks("long")], CHAT[:5]), "f.json: system_chat.0: 5 messages, not 6, 8, 10"),
        (as_json([asks("long")], CHAT[1:]), "f.json: system_chat.0.0: turn of 'assistant' is out of order; write"),
        (
            as_json([asks("long")], [("system", "Hm."), *CHAT]),
            "f.json: system_chat.0.0.role: input should be 'user' or",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_json_errors(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_json(text, "f.json")
    assert str(caught.value).startswith(message)
    assert re.fullmatch("[^\n]+; [^\n]+", str(caught.value))


def test_kind_of_file_is_told_by_its_name(tmp_path: Path) -> None:
    for path in (EXAMPLE, SHIPPED):
        copy = tmp_path / f"copy{path.suffix}"
        copy.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load(copy).sha256 == load(path).sha256
    (tmp_path / "c.txt").write_text("# Title")
    with pytest.raises(UserError, match=r"c\.txt: neither Markdown nor JSON by its name; name it"):
        load(tmp_path / "c.txt")


# Anything at all

PIECES = st.sampled_from(
    ["#", "## a: b\n", "### Example\n", "### Criteria\n", "**User:**", "**Answer:** a", "<!--", "-->", "- ", "\n", "$"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.sampled_from(["critic", "revision", "role", "content"]) | st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, whole: str) -> str:
    """A text with a few of its stretches cut out, doubled, or replaced by something else."""
    text = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 60)))
        text = text[:start] + draw(st.text(max_size=5) | PIECES | st.just(2 * text[start:end])) + text[end:]
    return text


def is_whole_or_refused(read: Callable[[str, str], Constitution], text: str) -> None:
    try:
        found = read(text, "f")
    except UserError as error:
        assert re.fullmatch(r"f:[^\n]+; [^\n]+", str(error))
        str(error).encode()  # so that it can be printed
        return
    assert found.principles
    assert re.fullmatch("[0-9a-f]{64}", found.sha256)
    assert len({principle.slug for principle in found.principles}) == len(found.principles)
    for principle in found.principles:
        given = [principle.name, principle.critique, principle.revision]
        given += [
            text
            for example in principle.examples
            for text in (example.user, example.answer, example.critique, example.revision, *sum(example.earlier, ()))
        ]
        assert all(text.strip() for text in given)


@settings(max_examples=150, deadline=None)
@given(damaged(SMALL) | st.text() | st.lists(PIECES | st.text(max_size=5)).map("".join))
def test_any_markdown_is_read_whole_or_refused(text: str) -> None:
    is_whole_or_refused(parse, text)


@settings(max_examples=150, deadline=None)
@given(
    damaged(as_json([asks("long"), asks("dull")], CHAT))
    | VALUES.map(json.dumps)
    | st.fixed_dictionaries({"constitutions": VALUES}, optional={"system_chat": VALUES}).map(json.dumps)
    | st.lists(st.builds(lambda role, content: {"role": role, "content": content}, VALUES, VALUES)).map(
        lambda chat: json.dumps({"constitutions": [asks("long")], "system_chat": [chat]})
    )
)
def test_any_json_is_read_whole_or_refused(text: str) -> None:
    is_whole_or_refused(parse_json, text)
