"""The engine for a model behind OpenAI-compatible endpoints: vLLM, SGLang, TGI, llama.cpp, Ollama and their like."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import openai
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ccai import models
from ccai.engines.request import Completed, Request, begun
from ccai.errors import UserError
from ccai.records import FinishReason, Message

RETRIES = 5
"""Times the client asks again, after half a second and then twice as long each time, or as Retry-After says."""

TOP_LOGPROBS = 20
"""Tokens whose probabilities are asked for; the most that vLLM gives by default."""

BATCH = 1.0
"""Seconds of finished work handed on at once: what a kill may cost."""

CONNECT = 10.0
"""Seconds to reach a server at all."""

LARGEST = 2**23
"""Bytes of a reply, unpacked, from which on it is no completion."""

MOST_TOKENS = 2**31
"""Tokens that no conversation has."""

PART = 8
"""Characters of a key that must not be told: shorter parts say nothing and stand in ordinary text."""

KEPT_HEADERS = ("content-type", "location", "retry-after", "retry-after-ms", "x-should-retry")
"""Headers of a reply that anybody reads here; others may repeat the key and end in a log."""

SEEDS = 2**31
"""Seeds are sent modulo this: llama.cpp and Ollama cut longer ones off, and some gateways round them."""

NEUTRAL = {"min_p": 0, "repetition_penalty": 1}
"""Sampling settings that OpenAI's API does not know, and the values at which they are not sent."""

UNKNOWN = re.compile("support|unknown|unrecogni|unexpected|not permitted|invalid param", re.IGNORECASE)
"""In the words of a server that does not take a parameter as it was sent."""

VERDICT_TOKENS = 64
"""Room for a label as JSON."""

GUARD_TOKENS = 8
"""Room for the beginning of a guard's reply: what it opens with and its label."""

for name in ("httpcore2", "httpx2"):
    logging.getLogger(name).setLevel(logging.WARNING)  # below that they log headers, in which a server may repeat a key

Answer = TypeVar("Answer")


class _Part(BaseModel):
    """A part of a reply; what it has besides is passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Message(_Part):
    content: str | None


class _Token(_Part):
    token: str
    logprob: float = Field(le=0.01)  # rounding may lift a certain token's a little above 0


class _Position(_Part):
    token: str
    top_logprobs: list[_Token]


class _Logprobs(_Part):
    content: list[_Position] | None = None


class _Choice(_Part):
    message: _Message
    finish_reason: FinishReason
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    prompt_tokens: int = Field(ge=0, lt=MOST_TOKENS)
    completion_tokens: int = Field(ge=0, lt=MOST_TOKENS)


class _Reply(_Part):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage


class _Said(_Part):
    content: str | None = None


class _Spoken(_Part):
    message: _Said


class _Verdict(_Part):
    """A reply to a question with `response_format`: what came instead of a label is an answer too, if no good one."""

    choices: list[_Spoken] = Field(min_length=1, max_length=1)


class _CutShort(httpx2.RemoteProtocolError):
    """The server stopped before the limit it was given and before the model did."""


class _Down(Exception):
    """An endpoint did not do its work, although it was asked again and again; another may."""


class _Client(httpx2.AsyncClient):
    """Reads replies whole, in bounded time and memory, and follows no redirect: prompts and key go where the catalogue
    says and nowhere else."""

    def __init__(self, seconds: float, check: Callable[[httpx2.Response], None]) -> None:
        super().__init__(limits=openai.DEFAULT_CONNECTION_LIMITS, headers={"Accept-Encoding": "gzip"})
        self._seconds, self._checked = seconds, check

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The reply, with its body and few of its headers.

        Raises:
            RequestError: none came in time, or what came can't be a completion. The openai client asks again.
            UserError: what came must not be kept.
        """
        try:
            async with asyncio.timeout(self._seconds):  # httpx2's own starts anew with each byte that drips in
                came = await super().send(request, **options | {"stream": True, "follow_redirects": False})
                try:
                    content = await self._read(came)
                finally:
                    await came.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("the reply took too long", request=request) from None
        headers = {name: came.headers[name] for name in KEPT_HEADERS if name in came.headers}
        response = httpx2.Response(came.status_code, headers=headers, content=content, request=request)
        if response.is_success:
            self._checked(response)
        return response

    async def _read(self, response: httpx2.Response) -> bytes:
        packed = response.headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("identity", "gzip"):  # packed twice, 64 kB become 64 GB before they can be counted
            raise httpx2.RemoteProtocolError("the reply is packed in a way that was not asked for")
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > LARGEST:
                raise httpx2.RemoteProtocolError(f"the reply is no completion: more than {LARGEST >> 20} MB")
        return bytes(content)


class _Secret:
    """A key as a server may repeat it: whole or in part, in small or capital letters, in a URL's form or in base64."""

    def __init__(self, key: str) -> None:
        self._length = min(PART, len(key))
        forms = [key, quote(key, safe=""), *(_in_base64(key, offset) for offset in range(3))]
        self._parts = {part for form in forms for _, part in self._windows(form)}

    def _windows(self, text: str) -> Iterator[tuple[int, str]]:
        # A key is ASCII, and so must be what becomes small letters: others' may be more or fewer characters.
        small = "".join(character.lower() if character.isascii() else character for character in text)
        return ((at, small[at : at + self._length]) for at in range(len(small) - self._length + 1))

    def told(self, text: str, sent: str) -> bool:
        """Whether a text tells a part of it that does not stand in what the server was sent, the key aside.

        What is shorter than `PART` is no secret, and may be a word.
        """
        found = {part for _, part in self._windows(text)} & self._parts
        return self._length >= PART and bool(found - {part for _, part in self._windows(sent)})

    def hidden(self, text: str) -> str:
        """The text with *** in place of each part."""
        cut = {
            place for at, part in self._windows(text) if part in self._parts for place in range(at, at + self._length)
        }
        return "".join(
            "***" if place in cut and place - 1 not in cut else "" if place in cut else character
            for place, character in enumerate(text)
        )


def _in_base64(key: str, offset: int) -> str:
    """A key in base64 where so many bytes stand before it; without the characters that its neighbours share."""
    coded = base64.b64encode(bytes(offset) + key.encode()).decode()
    return coded[(0, 2, 3)[offset] : (offset + len(key)) * 8 // 6]


@dataclass(eq=False)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    running: int = 0


class Endpoint:
    """A model behind one endpoint or several that serve the same weights.

    Attributes:
        name: the catalogue's; `revision` is declared, and not verified.
        identity: model and revision as declared. URLs, key, concurrency and timeout can't change a text and stay out.
    """

    unverified_weights = True

    def __init__(self, name: str, entry: Mapping[str, Any]) -> None:
        """Check the entry of conf/models.yaml and read the key; no request is made.

        Raises:
            UserError: a wrong entry, or a key that is not set or can't be one.
        """
        self._served = models.served(name, entry)
        self._key = _key(self._served.key)
        self._secret = _Secret(self._key.get_secret_value()) if self._served.key else None
        self.name = name
        self.revision = self._served.revision
        self.identity: dict[str, Any] = {
            "engine": "openai-1",
            "model": self._served.model,
            "revision": self.revision,
            "unverified_weights": True,
        }
        if self._served.template:
            self.identity["template"] = self._served.template
        if self._served.verdicts == "json":
            self.identity["verdicts"] = "json"
        self.runtime: dict[str, Any] = {
            "device": "endpoint",
            "endpoints": len(self._served.endpoints),
            "concurrency": self._served.concurrency,
        }

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion), what finished within a second at once.

        After an error no more requests are sent, but those under way are waited for and yielded before it is raised.
        Ctrl-C, or closing the iterator, cancels them.

        Raises:
            UserError: no endpoint is left that answers, or one refused a key, the model or a parameter, or it cut a
                completion short.
        """
        return self._ask([self._body(request) for request in requests], _completed)

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation; 0 if not among the likeliest 20.

        With `verdicts: json` the endpoint is asked for one label as JSON, which then has probability 1; all have 0 if
        what comes is no label. How a turn begins can't be told to a server: it begins by itself, and the label is
        looked for behind that.

        Raises:
            UserError: as `complete`, or the endpoint gives no probabilities.
        """

        def probabilities(content: bytes) -> list[float]:
            logprobs = _Reply.model_validate_json(content).choices[0].logprobs
            if logprobs is None or not logprobs.content:
                raise UserError(
                    f"model {self.name}: its endpoint gives no logprobs; put verdicts: json into its entry in "
                    f"{models.CATALOGUE}, or set models.judge to another"
                )
            if opened:
                return _of_beginnings(labels, _behind(opened[0], logprobs.content))
            return _of_whole(labels, logprobs.content[0])

        def one(content: bytes) -> list[float]:
            said = _label(_Verdict.model_validate_json(content).choices[0].message.content)
            return [float(label == said) for label in labels]

        opened = list({messages[-1].content for messages in conversations if begun(messages)})
        if self._served.verdicts == "json":
            bodies = [self._conversation(messages) | _structured(labels) for messages in conversations]
            return self._ask(bodies, one)
        limit = GUARD_TOKENS if opened else 1
        asked = [messages[:-1] if opened else messages for messages in conversations]
        bodies = [
            self._conversation(messages)
            | {"max_tokens": limit, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
            for messages in asked
        ]
        return self._ask(bodies, probabilities)

    def estimate(self, requests: Sequence[Request]) -> None:
        """None: how fast an endpoint is depends on who else asks it."""

    def _conversation(self, messages: Sequence[Message]) -> dict[str, Any]:
        said = {"model": self._served.model, "messages": [message.model_dump() for message in messages]}
        template = self._served.template
        return said | ({"extra_body": {"chat_template_kwargs": template}} if template else {})

    def _body(self, request: Request) -> dict[str, Any]:
        """The request's JSON. What OpenAI's API does not know is sent only where it is not neutral."""
        sampling = request.sampling
        conversation = self._conversation(request.messages)
        extra: dict[str, Any] = conversation.get("extra_body", {})
        if sampling.min_p > 0 and sampling.temperature > 0:
            extra["min_p"] = sampling.min_p
        if sampling.repetition_penalty != 1:
            extra["repetition_penalty"] = sampling.repetition_penalty
        return (
            conversation
            | {"max_tokens": request.max_new_tokens, "temperature": sampling.temperature}
            | ({"seed": request.seed % SEEDS} if sampling.temperature > 0 else {})
            | ({"extra_body": extra} if extra else {})
        )

    def _ask(
        self, bodies: Sequence[dict[str, Any]], read: Callable[[bytes], Answer]
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Send all bodies, as many at once as allowed, each to the endpoint with the least to do.

        The event loop runs on this thread, and only while an answer is waited for. So Ctrl-C and SIGTERM arrive
        here, and what is under way can be cancelled at any time.
        """
        servers = [_Server(url, self._client(url)) for url in self._served.endpoints]
        clients = [server.client for server in servers]
        todo = deque(range(len(bodies)))
        running: dict[asyncio.Task[Answer], tuple[int, _Server]] = {}
        failures: list[UserError] = []

        def start() -> None:
            while todo and not failures and (free := [s for s in servers if s.running < self._served.concurrency]):
                server = min(free, key=lambda s: s.running)
                server.running += 1
                place = todo.popleft()
                running[asyncio.create_task(self._answer(server, bodies[place], read))] = place, server

        def take(task: asyncio.Task[Answer], finished: list[tuple[int, Answer]]) -> None:
            place, server = running.pop(task)
            server.running -= 1
            try:
                finished.append((place, task.result()))
            except UserError as error:
                failures.append(error)
            except _Down as error:
                todo.append(place)
                if server not in servers:  # others of its requests said so before
                    return
                servers.remove(server)
                where = f"model {self.name}: endpoint {server.url}: {error}"
                if servers:
                    print(f"{where}; going on without it, {len(servers)} left", flush=True)
                else:
                    failures.append(UserError(f"{where}; none is left: mend or start it, and repeat the command"))

        async def go_on(finished: list[tuple[int, Answer]]) -> None:
            """Until something is finished and `BATCH` seconds are over, or there is nothing more to wait for."""
            clock = asyncio.get_running_loop().time
            until = clock() + BATCH
            start()
            while running and not (finished and clock() >= until):
                left = max(0.0, until - clock()) if finished else None
                done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    take(task, finished)
                start()

        async def stop() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for client in clients:
                await client.close()

        with asyncio.Runner() as runner:
            try:
                while running or (todo and not failures):
                    finished: list[tuple[int, Answer]] = []
                    try:
                        runner.run(go_on(finished))
                    finally:  # before Ctrl-C goes on, too: these are paid for
                        if finished:
                            yield finished
            finally:
                runner.run(stop())
        if failures:
            raise failures[0]

    def _client(self, url: str) -> openai.AsyncOpenAI:
        """A client that checks replies, and takes neither key nor organisation from its own environment variables."""
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=self._key.get_secret_value(),
            timeout=httpx2.Timeout(self._served.timeout, connect=min(CONNECT, self._served.timeout)),
            max_retries=RETRIES,
            http_client=_Client(self._served.timeout, self._check),
        )
        client.organization = client.project = None
        return client

    def _check(self, response: httpx2.Response) -> None:
        """Make a broken connection of a reply that can't be recorded; the client asks again as after any other.

        Raises:
            RemoteProtocolError: what came instead of a completion.
            UserError: the completion holds the key.
        """
        content, sent = response.content, response.request.content
        asked = json.loads(sent)
        try:
            if "response_format" in asked:
                _Verdict.model_validate_json(content)
                return
            reply = _Reply.model_validate_json(content)
        except ValidationError as error:
            raise httpx2.RemoteProtocolError(self._no_completion(response, error)) from None
        [choice] = reply.choices
        if self._secret and self._secret.told(choice.message.content or "", sent.decode()):
            # To mask it would change a text that is measured and trained on.
            raise UserError(
                f"model {self.name}: endpoint {response.request.url}: its completion holds the key in "
                f"{self._served.key}, or a part of it, and is not kept; use a server that does not repeat keys, or a "
                "key that is no word"
            )
        limit = asked["max_tokens"]
        written = reply.usage.completion_tokens
        if choice.finish_reason == "length" and written < limit:
            raise _CutShort(f"cut a completion at {written} of {limit} tokens; start it with a larger context")

    def _no_completion(self, response: httpx2.Response, error: ValidationError) -> str:
        if said := _error(response.content):
            return f"answered {response.status_code} with an error ({self._quoted(said, 200)})"
        if response.content.lstrip().startswith((b"data:", b"event:")):
            return "the reply is a stream of events, which was not asked for; turn streaming off there"
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or f"{len(response.content)} bytes"
        came = "" if first["type"] == "missing" else f", not {self._quoted(repr(first['input']), 60)}"
        return f"the reply is no completion ({key}: {first['msg']}{came})"

    async def _answer(self, server: _Server, body: Mapping[str, Any], read: Callable[[bytes], Answer]) -> Answer:
        """What `read` finds in the reply to one body.

        Raises:
            UserError: no use to ask again or elsewhere.
            _Down: this endpoint did not do it.
        """
        try:
            response = await server.client.chat.completions.with_raw_response.create(**body)
        except openai.APIStatusError as error:
            raise self._refusal(server.url, error, body) from None
        except openai.APITimeoutError:
            raise _Down(f"no answer within {self._served.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, _CutShort):
                raise UserError(f"model {self.name}: endpoint {server.url}: {cause}") from None
            raise _Down(self._quoted(str(cause), 300) or type(cause).__name__) from None
        return read(response.content)

    def _refusal(self, url: str, error: openai.APIStatusError, body: Mapping[str, Any]) -> UserError | _Down:
        status = error.status_code
        where = f"model {self.name}: endpoint {url}"
        if status in (401, 403):
            remedy = (
                f"correct the key in {self._served.key}"
                if self._served.key
                else f"name the environment variable that holds its key in {models.CATALOGUE}"
            )
            return UserError(f"{where}: answered {status}; {remedy}")
        if 300 <= status < 400:
            to = self._quoted(error.response.headers.get("location", "elsewhere"), 200)
            return UserError(
                f"{where}: answered {status}, a redirect to {to}, which is not followed; correct the URL in "
                f"{models.CATALOGUE}"
            )
        content = error.response.content
        said = self._quoted(_error(content) or content.decode(errors="replace"), 200)
        answered = f"answered {status} ({said})" if said else f"answered {status}"
        if status in (408, 409, 429) or status >= 500:
            return _Down(answered)
        if status == 404:
            remedy = f"no model {self._served.model} there, or the URL lacks its /v1; correct {models.CATALOGUE}"
        else:
            remedy = _remedy(content.decode(errors="replace"), body)
        return UserError(f"{where}: {answered}; {remedy}")

    def _quoted(self, text: str, most: int) -> str:
        """The beginning of what a server said: on one line, without the key and without what moves a cursor."""
        begins = " ".join("".join(c if c.isprintable() else " " for c in text[: 10 * most]).split())
        return (self._secret.hidden(begins) if self._secret else begins)[:most]


def _error(content: bytes) -> str | None:
    """The words of an error that a server reports as JSON; None for anything else."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = (told.get("error") or told) if isinstance(told, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) else None


def _remedy(said: str, body: Mapping[str, Any]) -> str:
    """What may help against a refusal: by the parameters that it names and that were sent."""
    sent = [name for name in body | body.get("extra_body", {}) if name not in ("messages", "model")]
    named = [name for name in sent if name in said] if UNKNOWN.search(said) else []
    if "response_format" in named or ("response_format" in sent and not named):
        return f"if it knows no response_format, take verdicts: json out of {models.CATALOGUE}"
    if always := [name for name in named if name not in NEUTRAL]:
        return f"it does not take {' and '.join(always)} as sent: put a gateway before it that does"
    neutral = [name for name in NEUTRAL if name in (named or sent)]
    settings = " and ".join(f"generation.{name} to {NEUTRAL[name]}" for name in neutral)
    other = f"if it does not know the parameter, set {settings}"
    if named:
        return other
    return "correct what it names, or shorten conversation or limit" + (f"; {other}" if neutral else "")


def _completed(content: bytes) -> Completed:
    reply = _Reply.model_validate_json(content)
    [choice] = reply.choices
    return Completed(
        (choice.message.content or "").strip(),
        choice.finish_reason,
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
    )


def _structured(labels: Sequence[str]) -> dict[str, Any]:
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


def _label(content: str | None) -> object:
    """What a structured reply gives as its verdict; None for any other reply."""
    try:
        value = json.loads(content or "")
    except (ValueError, RecursionError):
        return None
    return value.get("verdict") if isinstance(value, dict) else None


def _behind(opening: str, positions: Sequence[_Position]) -> _Position | None:
    """The first token behind an opening, white space aside; None where the model began otherwise."""
    written = ""
    for position in positions:
        if position.token.strip() and written.split() == opening.split():
            return position
        written += position.token
    return None


def _of_whole(labels: Sequence[str], position: _Position) -> list[float]:
    top = {at.token: math.exp(at.logprob) for at in position.top_logprobs}
    return [top.get(label, 0.0) for label in labels]


def _of_beginnings(labels: Sequence[str], position: _Position | None) -> list[float]:
    """Of tokens that begin one label and no other; the servers' tokenizers are not known here."""
    found = dict.fromkeys(labels, 0.0)
    for at in position.top_logprobs if position else ():
        begun = [label for label in labels if at.token.strip() and label.strip().startswith(at.token.strip())]
        if len(begun) == 1:
            found[begun[0]] += math.exp(at.logprob)
    return list(found.values())


def _key(variable: str | None) -> SecretStr:
    """The key in an environment variable; without one a word that says nothing, since the client wants a key."""
    if variable is None:
        return SecretStr("none")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{variable}: not set; put the endpoint's key into this environment variable")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise UserError(f"{variable}: holds a space or a character that no key has; correct it")
    return SecretStr(value)
