"""TODO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ccai.base.records import FinishReason
from ccai.engines.base import Completed

LARGEST = 2**23
"""Bytes of a reply, unpacked, from which on it is no completion."""

MOST_TOKENS = 2**31
"""Tokens that no conversation has."""

PART = 8
"""Characters of a key that must not be told: shorter parts say nothing and stand in ordinary text."""

VERDICT_TOKENS = 64
"""Room for a label as JSON."""

Answer = TypeVar("Answer")


class _Part(BaseModel):
    """A part of a reply; what it has besides is passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Message(_Part):
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
    message: _Message
    finish_reason: FinishReason
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    prompt_tokens: int = Field(ge=0, lt=MOST_TOKENS)
    completion_tokens: int = Field(ge=0, lt=MOST_TOKENS)


class Reply(_Part):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage


class _Said(_Part):
    content: str | None = None


class _Spoken(_Part):
    message: _Said


class Verdict(_Part):
    """A reply to a question with `response_format`: what came instead of a label is an answer too, if no good one."""

    choices: list[_Spoken] = Field(min_length=1, max_length=1)


def completed_of(content: bytes) -> Completed:
    reply = Reply.model_validate_json(content)
    [choice] = reply.choices
    return Completed(
        (choice.message.content or "").strip(),
        choice.finish_reason,
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
    )


def asking_for(labels: Sequence[str]) -> dict[str, Any]:
    """Parameters that ask for one of the labels as JSON."""
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
    """What a structured reply gives as its verdict; None for any other reply."""
    try:
        value = json.loads(content or "")
    except (ValueError, RecursionError):
        return None
    return value.get("verdict") if isinstance(value, dict) else None
