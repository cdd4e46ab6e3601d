"""The HTTP client for endpoints: bounded replies, no redirects, a hidden key, and remedies for errors."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2
import openai
from pydantic import SecretStr

from ccai.base.errors import UserError
from ccai.engines.wire import LARGEST, PART
from ccai.models import catalogue

RETRIES = 5
"""Retries of the client: after half a second, then twice as long each time, or as Retry-After says."""

CONNECT = 10.0
"""Seconds to connect to a server."""

KEPT_HEADERS = ("content-type", "location", "retry-after", "retry-after-ms", "x-should-retry")
"""Headers of a reply that are kept; others may repeat the key and end up in a log."""

NEUTRAL = {"min_p": 0, "repetition_penalty": 1}
"""Sampling settings outside OpenAI's API, with the values at which they are not sent."""

UNKNOWN = re.compile("support|unknown|unrecogni|unexpected|not permitted|invalid param", re.IGNORECASE)
"""Words of a server that does not accept a parameter."""


class CutShort(httpx2.RemoteProtocolError):
    """The server ended a completion before its limit, although the model had not finished."""


class Down(Exception):
    """An endpoint failed after all retries; another may work."""


class Client(httpx2.AsyncClient):
    """Reads replies completely, in bounded time and memory, and follows no redirect.

    Prompts and key go to the URLs of the catalogue and nowhere else.
    """

    def __init__(self, seconds: float, check: Callable[[httpx2.Response], None]) -> None:
        super().__init__(limits=openai.DEFAULT_CONNECTION_LIMITS, headers={"Accept-Encoding": "gzip"})
        self._seconds, self._checked = seconds, check

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The reply, with its body and a few of its headers.

        Raises:
            RequestError: none came in time, or it cannot be a completion. The openai client retries.
            UserError: the reply must not be kept.
        """
        try:
            async with asyncio.timeout(self._seconds):  # httpx2's own timeout restarts with every byte
                reply = await super().send(request, **options | {"stream": True, "follow_redirects": False})
                try:
                    content = await self._read(reply)
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("the reply took too long", request=request) from None
        headers = {name: reply.headers[name] for name in KEPT_HEADERS if name in reply.headers}
        response = httpx2.Response(reply.status_code, headers=headers, content=content, request=request)
        if response.is_success:
            self._checked(response)
        return response

    async def _read(self, response: httpx2.Response) -> bytes:
        packed = response.headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("identity", "gzip"):  # packed twice, 64 kB unpack to 64 GB before they can be counted
            raise httpx2.RemoteProtocolError("the reply is compressed in a way that was not requested")
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > LARGEST:
                raise httpx2.RemoteProtocolError(f"the reply is not a completion: more than {LARGEST >> 20} MB")
        return bytes(content)


class Secret:
    """A key in the forms in which a server may repeat it: whole or in part, in any case, URL-encoded or in base64."""

    def __init__(self, key: str) -> None:
        self._length = min(PART, len(key))
        forms = [key, quote(key, safe=""), *(_in_base64(key, offset) for offset in range(3))]
        self._parts = {part for form in forms for _, part in self._windows(form)}

    def _windows(self, text: str) -> Iterator[tuple[int, str]]:
        # Only ASCII is lowercased, which keeps the length; keys are ASCII.
        small = "".join(character.lower() if character.isascii() else character for character in text)
        return ((at, small[at : at + self._length]) for at in range(len(small) - self._length + 1))

    def leaks(self, text: str, sent: str) -> bool:
        """Whether a text contains a part of the key that is not in the text sent to the server (without the key).

        A part shorter than `PART` is not secret: it may be a word.
        """
        parts = {part for _, part in self._windows(text)} & self._parts
        return self._length >= PART and bool(parts - {part for _, part in self._windows(sent)})

    def hidden(self, text: str) -> str:
        """The text with *** in place of each part of the key."""
        cut = {
            place for at, part in self._windows(text) if part in self._parts for place in range(at, at + self._length)
        }
        return "".join(
            "***" if place in cut and place - 1 not in cut else "" if place in cut else character
            for place, character in enumerate(text)
        )


def _in_base64(key: str, offset: int) -> str:
    """A key in base64 after `offset` bytes, without the characters that it shares with its neighbours."""
    coded = base64.b64encode(bytes(offset) + key.encode()).decode()
    return coded[(0, 2, 3)[offset] : (offset + len(key)) * 8 // 6]


def error_of(content: bytes) -> str | None:
    """The message of an error that a server reports as JSON; None for anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = (value.get("error") or value) if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None


def remedy_for(message: str, body: Mapping[str, Any]) -> str:
    """What may fix a refusal, from the sent parameters that its message names."""
    sent = [name for name in body | body.get("extra_body", {}) if name not in ("messages", "model")]
    named = [name for name in sent if name in message] if UNKNOWN.search(message) else []
    if "response_format" in named or ("response_format" in sent and not named):
        return f"if it knows no response_format, take verdicts: json out of {catalogue.CATALOGUE}"
    if always := [name for name in named if name not in NEUTRAL]:
        return f"it does not take {' and '.join(always)} as sent: put a gateway before it that does"
    neutral = [name for name in NEUTRAL if name in (named or sent)]
    settings = " and ".join(f"generation.{name} to {NEUTRAL[name]}" for name in neutral)
    other = f"if it does not know the parameter, set {settings}"
    if named:
        return other
    return "correct what it names, or shorten conversation or limit" + (f"; {other}" if neutral else "")


def key_in(variable: str | None) -> SecretStr:
    """The key in an environment variable, or a placeholder, because the openai client requires a key."""
    if variable is None:
        return SecretStr("none")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{variable}: not set; put the endpoint's key into this environment variable")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise UserError(f"{variable}: contains a space or a character that a key cannot have; correct it")
    return SecretStr(value)
