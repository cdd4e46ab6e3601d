"""Ready-made preference pairs: files in the formats of TRL and HH-RLHF, through the same gates as the project's own.

A line has `chosen` and `rejected`, and `prompt` if they don't begin with it. Each is a list of messages or a text; a
text may be a transcript as in HH-RLHF, turns that begin with a blank line and `Human:` or `Assistant:`. `principle`
and `hazard` are optional labels; other columns are ignored. Files in `pairs.sources` of params.yaml are trained on
after the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

from ccai.base.hashing import digest
from ccai.base.records import UNSPECIFIED, Message, Pair
from ccai.pairs import user_files
from ccai.pairs.build import Candidate
from ccai.pairs.user_files import FileRow


def candidates(
    entry: str, system: str = "", near: Set[str] = frozenset(), tokens: Callable[[str], int] = len
) -> Iterator[Candidate]:
    """The pairs of a file, in its order.

    Args:
        entry: a file, or the name of a pinned source.
        system: the system message put before conversations that have none.
        near: prompts (`user_files.key`) that must not be trained on, because they are evaluation prompts.
        tokens: counts the tokens of an answer.

    Raises:
        UserError: the file is unreadable, or a line is not a preference pair; names it.
    """
    for row in user_files.rows(entry):
        yield _candidate(row, system, near, tokens)


def prompts(entry: str) -> Iterator[list[Message]]:
    """The prompts of the pairs' chosen answers."""
    for row in user_files.rows(entry):
        yield _conversations(row)["chosen"][:-1]


def _conversations(row: FileRow) -> dict[str, list[Message]]:
    before = user_files.turns(row, "prompt", "user") if "prompt" in row.fields else []
    return {side: [*before, *user_files.turns(row, side, "assistant")] for side in ("chosen", "rejected")}


def _candidate(row: FileRow, system: str, near: Set[str], tokens: Callable[[str], int]) -> Candidate:
    sides = _conversations(row)
    prompts = {side: messages[:-1] for side, messages in sides.items()}
    chosen, rejected = (_answer(sides[side]) for side in ("chosen", "rejected"))
    labels = {name: row.fields.get(name) or UNSPECIFIED for name in ("principle", "hazard")}
    for name, label in labels.items():
        if not isinstance(label, str):
            raise row.error(name, "must be text")
    prompt = prompts["chosen"]
    fault = None
    if prompts["chosen"] != prompts["rejected"]:
        fault = "different_prompts"
    elif any(messages[-1:] and messages[-1].role != "assistant" for messages in sides.values()):
        fault = "broken_turns"
    elif user_files.key(prompt) in near:
        fault = "evaluation_prompt"
    pair = Pair(
        pair_id=digest([[message.model_dump() for message in messages] for messages in sides.values()])[:16],
        prompt=user_files.under(system, prompt),
        chosen=[Message(role="assistant", content=chosen)],
        rejected=[Message(role="assistant", content=rejected)],
        prompt_id=user_files.key(prompt),
        **labels,
        round=0,
        chosen_tokens=tokens(chosen),
        rejected_tokens=tokens(rejected),
        chosen_model=UNSPECIFIED,
        rejected_model=UNSPECIFIED,
        verdict=None,
    )
    return Candidate(pair, row.source, None, fault)


def _answer(messages: list[Message]) -> str:
    return messages[-1].content if messages else ""
