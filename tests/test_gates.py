"""Each gate takes what it is for, and leaves what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.gates import PROMPT, pair
from helpers.pairs import CHOSEN, PARAMS, REJECTED

from ccai.base.records import Message, Verdict
from ccai.pairs import gates
from ccai.rules.language import language

FRENCH = "Je comprends que tu sois blessée. Dis-lui ce soir, calmement, ce que cela t'a fait, et écoute sa réponse."


def gate(*texts: str, cut: str | None = None, **changes: Any) -> str | None:
    return gates.by_text(pair(*texts), cut, PARAMS.model_copy(update=changes))


@pytest.mark.parametrize(
    ("reason", "texts"),
    [
        ("empty", ("",)),
        ("empty", (" …\n?!",)),
        ("empty", (CHOSEN, "")),
        ("too_short", ("Please ask her.",)),
        ("echo", ("Should I just forget it and move on?",)),
        ("echo", (f'"{PROMPT}"',)),
        ("repetitive", ("I am here for you. " * 6,)),
        ("meta_talk", ("Here is the revised response: talk to her about it tonight.",)),
        ("meta_talk", ("Sure! Here’s how I would rewrite it: talk to her tonight.",)),
        ("meta_talk", ("**\"Here's a better version of it: talk to her tonight.",)),
        ("meta_talk", ("The previous answer was too harsh, so talk to her tonight.",)),
        ("meta_talk", ("Revision: talk to her about it tonight.",)),
        ("meta_talk", ("Improved answer - : talk to her about it tonight.",)),
        ("meta_talk", ("I have revised it so that it sounds kinder to her.",)),
        ("meta_talk", ("This response lacks any warmth, so here is more of it.",)),
        ("meta_talk", ("Talk to her tonight. This response shows more care for the user.",)),
        ("meta_talk", ("That hurts, and I am sorry. The answer has no care for the user at all.",)),
        ("identical", (REJECTED.upper() + "!!",)),
        ("near_identical", (f"{REJECTED} And {REJECTED[5:]}", f"{REJECTED} Oh, and {REJECTED[5:]}")),
        ("language_changed", (FRENCH,)),
        ("longer", (CHOSEN * 2, "Ask her.")),
        ("shorter", ("Ask her about it.", " ".join(f"{CHOSEN} {word}" for word in "one two three four".split()))),
    ],
)
def test_gate(reason: str, texts: tuple[str, ...]) -> None:
    assert gate(*texts) == reason
    assert reason in gates.GATES


@pytest.mark.parametrize(
    "texts",
    [
        ("Please do ask her.",),  # four words are enough
        ("There is a new friend waiting for you out there, and the answer may be time.",),
        ("Here are three ways to begin: call her, write to her, or wait a while.",),
        ("I hear you. I hear you and I care about what comes next for you.",),
        ("Your first response may be anger, and that is all right for today.",),
        (f"{REJECTED} And yet, call one friend today.",),
        ("So you move on, or just forget it: that is up to you.",),
        (FRENCH, REJECTED, "Ma soeur a raconté mon secret à tout le monde. Est-ce que je dois laisser tomber ?"),
        ("今晚和你信任的人谈谈吧。", "算了吧,没有人会在意的。", "我姐姐把我的秘密告诉了所有人。"),
        ("OK, ja, si, non."),  # no language at all
    ],
)
def test_no_gate(texts: tuple[str, ...] | str) -> None:
    assert gate(*((texts,) if isinstance(texts, str) else texts)) is None


SHOWN = gates.runs(["Ask her what she would need to trust you again, and wait.", "(A note for your answer: ", ")"])


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ("Ask her what she would need to trust you again, and wait.", "copied"),
        ("It hurts. Ask HER what she would need - to trust him; then rest.", "copied"),  # eight in a row
        ("It hurts. Ask her what she would need to love you; then rest.", None),  # seven
        ("(A note for your answer: she is sorry.) Talk to her tonight.", "copied"),  # all there is of a short text
        ("Leave a note for your sister and talk to her tonight.", None),
    ],
)
def test_what_every_revision_is_shown_is_not_to_be_copied(chosen: str, reason: str | None) -> None:
    assert gates.by_text(pair(chosen), None, PARAMS, SHOWN) == reason
    assert gates.by_text(pair(chosen), None, PARAMS) is None


def test_words_of_the_prompt_or_the_answer_are_no_copy() -> None:
    said = "Ask her what she would need to trust you."
    for texts in ((f"{CHOSEN} {said}", REJECTED, f"{PROMPT} {said}"), (f"{CHOSEN} {said}", f"{REJECTED} {said}")):
        assert gates.by_text(pair(*texts), None, PARAMS, SHOWN) is None


def test_texts_of_three_words_can_be_nobodys_copy() -> None:
    assert gates.runs(["Keep in mind:", "", "Ask her out again"]) == {4: {("ask", "her", "out", "again")}}


def test_truncated_sides() -> None:
    assert gate(cut="rejected") == "rejected_truncated"
    assert gate(cut="chosen") == "chosen_truncated"


def test_thresholds_are_the_parameters() -> None:
    near = REJECTED.replace("care", "worry")
    assert gate(near) is None
    assert gate(near, max_similarity=0.9) == "near_identical"
    assert gate("Ask her.", min_words=2) is None
    assert gate(CHOSEN * 2) is None
    assert gate(CHOSEN * 2, max_length_ratio=2) == "longer"
    assert gate("Do ask her now.", min_length_ratio=0.5) == "shorter"


def test_thresholds_are_where_they_are_said_to_be() -> None:
    """What is on the line, and what is one word beside it."""
    ten = "one two three four five six seven eight nine ten".split()
    half = [*ten[:5], *"a b c d e".split()]
    assert gates.similarity(ten, half) == 0.5
    assert gate(" ".join(half), " ".join(ten), max_similarity=0.5) == "near_identical"
    assert gate(" ".join(half), " ".join(ten), max_similarity=0.51) is None
    assert gate("u v w x y z", "one two three", max_length_ratio=2) is None
    assert gate("t u v w x y z", "one two three", max_length_ratio=2) == "longer"
    assert gate("u v w x y", " ".join(ten), min_length_ratio=0.5) is None
    assert gate("u v w x", " ".join(ten), min_length_ratio=0.5) == "shorter"
    # Letters play no part in a ratio of words.
    assert gate("i o a e y u", "extraordinarily uncomplicated conversations", max_length_ratio=1.5) == "longer"
    # Of 10 word 3-grams of the revision 8 stand in the prompt, then 7 of 9.
    assert gate(" ".join([*ten, "x", "y"]), REJECTED, " ".join(ten)) == "echo"
    assert gate(" ".join([*ten[:9], "x", "y"]), REJECTED, " ".join(ten[:9])) is None
    # Of 12 word 3-grams 6, then of 13 word 3-grams 7 occurred before.
    again = [*ten[:6], *ten[:6], ten[0], ten[1]]
    assert (gates.repetition(again), gate(" ".join(again))) == (0.5, None)
    assert gate(" ".join([*again, ten[2]])) == "repetitive"


@pytest.mark.parametrize(
    ("changes", "require", "reason"),
    [
        ({"rejected_violation": 0.49}, True, "no_violation"),
        ({"rejected_violation": 0.5}, True, None),
        ({"rejected_violation": 0.0}, False, None),
        ({"chosen_violation": 0.0}, True, None),
        ({"addresses": 0.49}, False, "off_topic"),
        ({"addresses": 0.5}, False, None),
        ({"rejected_violation": 0.1, "preference": "rejected", "addresses": 0.1}, True, "no_violation"),
        ({"preference": "rejected", "addresses": 0.1}, True, "prefers_original"),
    ],
)
def test_verdicts_count_from_one_half_and_in_their_order(
    changes: dict[str, Any], require: bool, reason: str | None
) -> None:
    given = {"rejected_violation": 0.9, "chosen_violation": 0.9, "preference": "chosen", "addresses": 0.9}
    assert gates.by_verdict(Verdict.model_validate(given | changes), require) == reason


@pytest.mark.parametrize(
    ("texts", "cut", "reason"),
    [
        (("",), "rejected", "empty"),
        (("Should I just",), "chosen", "chosen_truncated"),
        (("Should I just",), None, "too_short"),
        (("I am here. " * 6, REJECTED, "I am here. " * 6), None, "echo"),
        (("Here is the revised response. " * 6,), None, "repetitive"),
        (("The previous answer was too harsh.", "The previous answer was too harsh!"), None, "meta_talk"),
    ],
)
def test_of_two_gates_the_first_of_the_list_takes_the_pair(
    texts: tuple[str, ...], cut: str | None, reason: str
) -> None:
    assert gate(*texts, cut=cut) == reason


def test_another_language_comes_before_another_length() -> None:
    assert gate(FRENCH, "You should forget it and move on now.", max_length_ratio=2) == "language_changed"


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("user", None),
        ("system user", None),
        ("system user assistant user", None),
        ("", "broken_turns"),
        ("system", "broken_turns"),
        ("user assistant", "broken_turns"),
        ("assistant user", "broken_turns"),
        ("user system user", "broken_turns"),
        ("user assistant assistant", "broken_turns"),
    ],
)
def test_turns(roles: str, reason: str | None) -> None:
    assert gates.by_prompt([Message(role=role, content="x") for role in roles.split()]) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three four", 0.0),
        ("", 0.0),
        ("a b c", 0.0),
        ("a b c a b c a b c", 4 / 7),  # abc bca cab abc bca cab abc
        ("A b C, a B c!", 1 / 4),  # abc bca cab abc
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert gates.repetition(gates.words(text)) == pytest.approx(share)


def test_similarity() -> None:
    def similarity(a: str, b: str) -> float:
        return gates.similarity(gates.words(a), gates.words(b))

    assert similarity("The cat sat.", "the CAT sat") == 1.0
    assert similarity("a b c d", "w x y z") == 0.0
    assert similarity("a b c d", "a b x d") == pytest.approx(0.75)  # 2 * 3 of 8


def test_words_of_languages_without_spaces_are_characters() -> None:
    assert gates.words("OK, 今晚谈谈!") == ["ok", "今", "晚", "谈", "谈"]


@pytest.mark.parametrize("text", ["OK", "Ja.", "Pad thai, ramen, pho.", "Please ask her.", "def f(x): return x+1", ""])
def test_few_words_have_no_sure_language(text: str) -> None:
    assert language(text) is None


def test_languages() -> None:
    assert language(FRENCH) == "fr"
    assert language(f"{REJECTED} {CHOSEN}") == "en"
