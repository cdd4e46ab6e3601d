"""Demonstrations for supervised fine-tuning: the chosen answers of pairs, and helpful answers from a user's file.

The file is JSONL in one of TRL's formats: `messages`, which end with the assistant's, or `prompt` and `completion`,
as texts or as messages. Other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.records import UNSPECIFIED, Demonstration, Pair
from ccai.pairs import gates, user_files
from ccai.pairs.user_files import FileRow


def of(pair: Pair, source: str) -> Demonstration:
    """The chosen answer of a pair; `source` is that of its prompt."""
    return Demonstration(
        messages=[*pair.prompt, *pair.chosen],
        prompt_id=pair.prompt_id,
        source=source,
        principle=pair.principle,
        pair_id=pair.pair_id,
    )


def mix(
    entry: str,
    share: float,
    answers: Mapping[str, int],
    system: str,
    seed: int,
    evaluation: Sequence[str],
    threshold: float,
) -> dict[str, list[Demonstration]]:
    """As many demonstrations from a file as make up a share of each side's conversations.

    Choice and side follow from hashes, so the file's order has no effect. Of several with the same prompt one is used,
    so no prompt is on both sides. Demonstrations with evaluation prompts are not used (`user_files.near`).

    Args:
        answers: number of chosen answers on each side; the result has the same sides.
        system: put before conversations that have no system message.

    Raises:
        UserError: the file is unreadable, or has too few.
    """
    by_prompt: dict[str, Demonstration] = {}
    for row in sorted(user_files.rows(entry), key=lambda row: digest(["demonstration", seed, row.fields])):
        demonstration = _read(row, system)
        by_prompt.setdefault(demonstration.prompt_id, demonstration)
    near = user_files.near((one.messages[:-1] for one in by_prompt.values()), evaluation, threshold)
    usable = [demonstration for key, demonstration in by_prompt.items() if key not in near]
    quotas = {side: round(count * share / (1 - share)) for side, count in answers.items()}
    if sum(quotas.values()) > len(usable):
        raise UserError(
            f"pairs.demonstrations_share: {share} of the SFT data is {sum(quotas.values())} demonstrations, but "
            f"{entry} has {len(usable)} with prompts of their own that are not held out; lower it or bring more"
        )
    stream = iter(usable)
    return {side: list(islice(stream, count)) for side, count in quotas.items()}


def _read(row: FileRow, system: str) -> Demonstration:
    if "messages" in row.fields:
        messages = user_files.turns(row, "messages", "user")
    else:
        messages = [*user_files.turns(row, "prompt", "user"), *user_files.turns(row, "completion", "assistant")]
    if not messages or messages[-1].role != "assistant" or gates.by_prompt(messages[:-1]):
        raise row.error("messages", "not user and assistant in turn, ending with the assistant")
    if not gates.words(messages[-1].content):
        raise row.error("messages", "the last answer is empty")
    return Demonstration(
        messages=user_files.under(system, messages),
        prompt_id=user_files.key(messages[:-1]),
        source=row.source,
        principle=UNSPECIFIED,
        pair_id=None,
    )
