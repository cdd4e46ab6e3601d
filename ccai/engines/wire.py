"""The JSON that endpoints send: schemas of replies, and requests for one label as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ccai.base.records import FinishReason
from ccai.engines.base import Completed

LARGEST = 2**23
"""Size limit of a reply in bytes, unpacked."""

MOST_TOKENS = 2**31
"""Limit of token counts in a reply, above any conversation's."""

PART = 8
"""Characters of a key that count as secret; shorter parts occur in ordinary text."""

VERDICT_TOKENS = 64
"""Token limit for a label as JSON."""

Answer = TypeVar("Answer")


class _Part(BaseModel):
    """A part of a reply; other keys are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _ReplyMessage(_Part):
    content: str | None


class _Token(_Part):
    token: str
    logprob: float = Field(le=0.01)  # rounding may lift a certain token's a little above 0


class Position(_Part):
    token: str
    top_logprobs: list[_Token]


class _Logprobs(_Part):
    content: list[Position] | None = None


class _Choice(_Part):
    message: _ReplyMessage
    finish_reason: FinishReason
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    prompt_tokens: int = Field(ge=0, lt=MOST_TOKENS)
    completion_tokens: int = Field(ge=0, lt=MOST_TOKENS)


class CompletionReply(_Part):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage


class _VerdictMessage(_Part):
    content: str | None = None


class _VerdictChoice(_Part):
    message: _VerdictMessage


class LabelReply(_Part):
    """The reply to a request with `response_format`. Text that is no label is accepted and counts for none."""

    choices: list[_VerdictChoice] = Field(min_length=1, max_length=1)


def completed_of(content: bytes) -> Completed:
    reply = CompletionReply.model_validate_json(content)
    [choice] = reply.choices
    return Completed(
        (choice.message.content or "").strip(),
        choice.finish_reason,
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
    )


def asking_for(labels: Sequence[str]) -> dict[str, Any]:
    """Parameters that request one of the labels as JSON."""
    verdict = {"type": "string", "enum": list(labels)}
    schema = {
        "type": "object",
        "properties": {"verdict": verdict},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    named = {"name": "verdict", "strict": True, "schema": schema}
    return {
        "max_tokens": VERDICT_TOKENS,
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": named},
    }


def verdict_of(content: str | None) -> object:
    """The verdict in a structured reply; None for any other reply."""
    try:
        value = json.loads(content or "")
    except (ValueError, RecursionError):
        return None
    return value.get("verdict") if isinstance(value, dict) else None
