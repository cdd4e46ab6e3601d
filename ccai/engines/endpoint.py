"""The engine for a model behind OpenAI-compatible endpoints: vLLM, SGLang, TGI, llama.cpp, Ollama and others."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from pydantic import ValidationError

from ccai.base.errors import UserError, first
from ccai.base.records import Message
from ccai.engines.base import Completed, Request, begun
from ccai.engines.client import CONNECT, RETRIES, Client, CutShort, Down, Secret, error_of, key_in, remedy_for
from ccai.engines.wire import Answer, CompletionReply, LabelReply, Position, asking_for, completed_of, verdict_of
from ccai.models import catalogue

TOP_LOGPROBS = 20
"""Number of tokens whose probabilities are requested; vLLM's default maximum."""

BATCH = 1.0
"""Seconds of finished work that is handed on at once: the most that a kill loses."""

SEEDS = 2**31
"""Seeds are sent modulo this: llama.cpp and Ollama truncate longer ones, and some gateways round them."""

GUARD_TOKENS = 8
"""Token limit for the beginning of a guard's reply: its opening and its label."""

for name in ("httpcore2", "httpx2"):
    logging.getLogger(name).setLevel(logging.WARNING)  # lower levels log headers, in which a server may repeat a key


@dataclass(eq=False)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    running: int = 0


class Endpoint:
    """A model behind one or several endpoints that serve the same weights.

    Attributes:
        name: the catalogue's; `revision` is declared and not verified.
        identity: model and revision as declared. URLs, key, concurrency and timeout cannot change a text and are left
            out.
    """

    unverified_weights = True

    def __init__(self, name: str, entry: Mapping[str, Any]) -> None:
        """Check the entry of conf/models.yaml and read the key; no request is made.

        Raises:
            UserError: a wrong entry, or a key that is not set or not valid.
        """
        self._served = catalogue.served(name, entry)
        self._key = key_in(self._served.key)
        self._secret = Secret(self._key.get_secret_value()) if self._served.key else None
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
        """Complete all requests; yields (index in `requests`, completion), about a second's completions at a time.

        After an error no more requests are sent; those in progress are completed and yielded before it is raised.
        Ctrl-C, or closing the iterator, cancels them.

        Raises:
            UserError: no endpoint answers any more, or one refused a key, the model or a parameter, or cut a completion
                short.
        """
        return self._ask([self._body(request) for request in requests], completed_of)

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation; 0 if not among the likeliest 20.

        With `verdicts: json` the request is for one label as JSON, which then has probability 1; all have 0 if the
        reply is no label. A server cannot be given the beginning of a turn: the model begins by itself, and the label
        is read behind its opening.

        Raises:
            UserError: as `complete`, or the endpoint returns no probabilities.
        """

        def probabilities(content: bytes) -> list[float]:
            logprobs = CompletionReply.model_validate_json(content).choices[0].logprobs
            if logprobs is None or not logprobs.content:
                raise UserError(
                    f"model {self.name}: its endpoint gives no logprobs; put verdicts: json into its entry in "
                    f"{catalogue.CATALOGUE}, or set models.judge to another"
                )
            if opened:
                return _of_beginnings(labels, _behind(opened[0], logprobs.content))
            return _of_whole(labels, logprobs.content[0])

        def one(content: bytes) -> list[float]:
            verdict = verdict_of(LabelReply.model_validate_json(content).choices[0].message.content)
            return [float(label == verdict) for label in labels]

        opened = list({messages[-1].content for messages in conversations if begun(messages)})
        if self._served.verdicts == "json":
            bodies = [self._conversation(messages) | asking_for(labels) for messages in conversations]
            return self._ask(bodies, one)
        limit = GUARD_TOKENS if opened else 1
        shortened = [messages[:-1] if opened else messages for messages in conversations]
        bodies = [
            self._conversation(messages)
            | {"max_tokens": limit, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
            for messages in shortened
        ]
        return self._ask(bodies, probabilities)

    def estimate(self, requests: Sequence[Request]) -> None:
        """None: an endpoint's speed depends on its other users."""

    def _conversation(self, messages: Sequence[Message]) -> dict[str, Any]:
        body = {"model": self._served.model, "messages": [message.model_dump() for message in messages]}
        template = self._served.template
        return body | ({"extra_body": {"chat_template_kwargs": template}} if template else {})

    def _body(self, request: Request) -> dict[str, Any]:
        """The request's JSON. Settings outside OpenAI's API are sent only where they have an effect."""
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
        """Send all bodies, as many at a time as allowed, each to the endpoint with the fewest requests.

        The event loop runs on this thread, and only while a reply is awaited. Ctrl-C and SIGTERM therefore arrive here,
        and requests in progress can be cancelled at any time.
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
            except Down as error:
                todo.append(place)
                if server in servers:  # else another of its requests has reported it
                    servers.remove(server)
                    failures.extend(self._without(server, len(servers), error))

        async def go_on(finished: list[tuple[int, Answer]]) -> None:
            """Run until something has finished and `BATCH` seconds are over, or nothing is left to wait for."""
            clock = asyncio.get_running_loop().time
            until = clock() + BATCH
            start()
            while running and not (finished and clock() >= until):
                left = max(0.0, until - clock()) if finished else None
                done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    take(task, finished)
                start()

        with asyncio.Runner() as runner:
            try:
                while running or (todo and not failures):
                    finished: list[tuple[int, Answer]] = []
                    try:
                        runner.run(go_on(finished))
                    finally:  # also before Ctrl-C continues: these are paid for
                        if finished:
                            yield finished
            finally:
                runner.run(_stop(clients))
        if failures:
            raise failures[0]

    def _without(self, server: _Server, left: int, error: Down) -> list[UserError]:
        """Say that an endpoint failed and how many are left; the error to raise, if none is."""
        where = f"model {self.name}: endpoint {server.url}: {error}"
        if not left:
            return [UserError(f"{where}; none is left: fix or start it, and run the command again")]
        print(f"{where}; going on without it, {left} left", flush=True)
        return []

    def _client(self, url: str) -> openai.AsyncOpenAI:
        """A client that checks replies and ignores the openai package's environment variables."""
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=self._key.get_secret_value(),
            timeout=httpx2.Timeout(self._served.timeout, connect=min(CONNECT, self._served.timeout)),
            max_retries=RETRIES,
            http_client=Client(self._served.timeout, self._check),
        )
        client.organization = client.project = None
        return client

    def _check(self, response: httpx2.Response) -> None:
        """Reject a reply that cannot be recorded like a broken connection, so that the client retries.

        Raises:
            RemoteProtocolError: the reply is not a completion.
            UserError: the completion contains the key.
        """
        content, sent = response.content, response.request.content
        body = json.loads(sent)
        try:
            if "response_format" in body:
                LabelReply.model_validate_json(content)
                return
            reply = CompletionReply.model_validate_json(content)
        except ValidationError as error:
            raise httpx2.RemoteProtocolError(self._no_completion(response, error)) from None
        [choice] = reply.choices
        if self._secret and self._secret.leaks(choice.message.content or "", sent.decode()):
            # Masking it would change a text that is measured and trained on.
            raise UserError(
                f"model {self.name}: endpoint {response.request.url}: its completion holds the key in "
                f"{self._served.key}, or a part of it, and is not kept; use a server that does not repeat keys, or a "
                "key that is no word"
            )
        limit = body["max_tokens"]
        written = reply.usage.completion_tokens
        if choice.finish_reason == "length" and written < limit:
            raise CutShort(f"cut a completion at {written} of {limit} tokens; start it with a larger context")

    def _no_completion(self, response: httpx2.Response, error: ValidationError) -> str:
        if message := error_of(response.content):
            return f"answered {response.status_code} with an error ({self._quoted(message, 200)})"
        if response.content.lstrip().startswith((b"data:", b"event:")):
            return "the reply is a stream of events, which was not asked for; turn streaming off there"
        wrong = first(error, f"{len(response.content)} bytes", lambda value: self._quoted(repr(value), 60))
        return f"the reply is not a completion ({wrong})"

    async def _answer(self, server: _Server, body: Mapping[str, Any], read: Callable[[bytes], Answer]) -> Answer:
        """The result of `read` for the reply to one body.

        Raises:
            UserError: retrying, here or elsewhere, would not help.
            Down: this endpoint failed.
        """
        try:
            response = await server.client.chat.completions.with_raw_response.create(**body)
        except openai.APIStatusError as error:
            raise self._refusal(server.url, error, body) from None
        except openai.APITimeoutError:
            raise Down(f"no answer within {self._served.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, CutShort):
                raise UserError(f"model {self.name}: endpoint {server.url}: {cause}") from None
            raise Down(self._quoted(str(cause), 300) or type(cause).__name__) from None
        return read(response.content)

    def _refusal(self, url: str, error: openai.APIStatusError, body: Mapping[str, Any]) -> UserError | Down:
        status = error.status_code
        where = f"model {self.name}: endpoint {url}"
        if status in (401, 403):
            remedy = (
                f"correct the key in {self._served.key}"
                if self._served.key
                else f"name the environment variable that holds its key in {catalogue.CATALOGUE}"
            )
            return UserError(f"{where}: answered {status}; {remedy}")
        if 300 <= status < 400:
            to = self._quoted(error.response.headers.get("location", "elsewhere"), 200)
            return UserError(
                f"{where}: answered {status}, a redirect to {to}, which is not followed; correct the URL in "
                f"{catalogue.CATALOGUE}"
            )
        content = error.response.content
        message = self._quoted(error_of(content) or content.decode(errors="replace"), 200)
        answered = f"answered {status} ({message})" if message else f"answered {status}"
        if status in (408, 409, 429) or status >= 500:
            return Down(answered)
        if status == 404:
            remedy = f"no model {self._served.model} there, or the URL lacks its /v1; correct {catalogue.CATALOGUE}"
        else:
            remedy = remedy_for(content.decode(errors="replace"), body)
        return UserError(f"{where}: {answered}; {remedy}")

    def _quoted(self, text: str, most: int) -> str:
        """The beginning of a server's text: on one line, without the key and without control characters."""
        begins = " ".join("".join(c if c.isprintable() else " " for c in text[: 10 * most]).split())
        return (self._secret.hidden(begins) if self._secret else begins)[:most]


async def _stop(clients: Sequence[openai.AsyncOpenAI]) -> None:
    """Cancel all other tasks of the event loop, then close the clients."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for client in clients:
        await client.close()


def _behind(opening: str, positions: Sequence[Position]) -> Position | None:
    """The first token after an opening, ignoring white space; None where the model began differently."""
    written = ""
    for position in positions:
        if position.token.strip() and written.split() == opening.split():
            return position
        written += position.token
    return None


def _of_whole(labels: Sequence[str], position: Position) -> list[float]:
    top = {at.token: math.exp(at.logprob) for at in position.top_logprobs}
    return [top.get(label, 0.0) for label in labels]


def _of_beginnings(labels: Sequence[str], position: Position | None) -> list[float]:
    """Probabilities from tokens that begin exactly one label; the servers' tokenizers are unknown."""
    probabilities = dict.fromkeys(labels, 0.0)
    for at in position.top_logprobs if position else ():
        begun = [label for label in labels if at.token.strip() and label.strip().startswith(at.token.strip())]
        if len(begun) == 1:
            probabilities[begun[0]] += math.exp(at.logprob)
    return list(probabilities.values())
