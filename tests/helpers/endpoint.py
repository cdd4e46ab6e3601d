"""An OpenAI-compatible server on loopback that misbehaves as told, and writes what can be foretold when it does not."""

from __future__ import annotations

import gzip
import json
import math
import select
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

STATUS = {
    "429": (429, "slow down"),
    "500": (500, "something broke"),
    "503": (503, "still loading"),
    "401": (401, "no such key"),
    "403": (403, "not for you"),
    "404": (404, "no such model"),
    "400": (400, "context exceeded"),
    "422": (422, "unexpected fields"),
}

MALFORMED: dict[str, bytes] = {
    "empty body": b"",
    "invalid json": b"<html>Bad gateway</html>",
    "half a json": b'{"choices": [{"mess',
    "not utf-8": b'{"choices": "\xff\xfe"}',
    "no object": b"[1, 2]",
    "null": b"null",
    "no choices": b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}',
    "an error": b'{"error": {"message": "overloaded, try later\\u001b[2J", "code": 502}}',
    "events": b'data: {"choices": [{"delta": {"content": "a"}, "index": 0}]}\n\ndata: [DONE]\n\n',
    "deep": b"[" * 200_000,
    "many digits": b'{"choices": ' + b"9" * 10_000 + b"}",
    "half a character": b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}',
}
"""Whole bodies that are no completion."""

EDITS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "empty choices": (("choices",), []),
    "choices of a wrong type": (("choices",), {"0": "text"}),
    "two choices": (("choices",), [{"message": {"content": "a"}, "finish_reason": "stop"}] * 2),
    "message of a wrong type": (("choices", 0, "message"), "text"),
    "content of a wrong type": (("choices", 0, "message", "content"), 5),
    "content filter": (("choices", 0, "finish_reason"), "content_filter"),
    "tool calls": (("choices", 0, "finish_reason"), "tool_calls"),
    "null finish reason": (("choices", 0, "finish_reason"), None),
    "missing finish reason": (("choices", 0, "finish_reason"), ...),
    "missing content": (("choices", 0, "message", "content"), ...),
    "missing usage": (("usage",), ...),
    "null usage": (("usage",), None),
    "tokens as text": (("usage", "completion_tokens"), "5"),
    "negative tokens": (("usage", "prompt_tokens"), -1),
    "no number of tokens": (("usage", "completion_tokens"), math.nan),
    "endless tokens": (("usage", "completion_tokens"), math.inf),
    "more tokens than there are": (("usage", "completion_tokens"), 10**30),
    "a truth for a number": (("usage", "completion_tokens"), True),
    "content in parts": (("choices", 0, "message", "content"), [{"type": "text", "text": "a"}]),
    "choice of a wrong type": (("choices", 0), "text"),
}
"""Where a good completion is changed, and into what; `...` takes the key out."""

CUT_SHORT = "cut short"
"""`length` below the limit that was asked for."""

BROKEN = ("closed", "cut body", "hang", "drip")
"""Faults of the connection. `hang` and `drip`, a byte now and then, end when the client goes away."""

PACKED: dict[str, tuple[str, bytes]] = {
    "packed badly": ("gzip", b"no gzip"),
    "packed twice": ("gzip, gzip", gzip.compress(gzip.compress(bytes(2**20)))),
    "packed tightly": ("gzip", gzip.compress(b" " * 2**27, 1)),
    "large": ("identity", b" " * 2**24),
}
"""Content-Encoding and body of replies that are large, or become so."""

REDIRECTS = {"moved": 301, "found": 302, "other": 303, "for now": 307, "for good": 308}
"""Status of a redirect to `Server.elsewhere`, with a query."""


def text(body: Mapping[str, Any]) -> str:
    """What a healthy server writes: by the last message and the seed alone."""
    return f"{body['messages'][-1]['content']} Written with {body.get('seed')}."


class Server(ThreadingHTTPServer):
    """Answers `/v1/chat/completions`.

    Attributes:
        faults: by the text of the last message, what goes wrong: at the first time it is asked, the second, …
        always: goes wrong with every request not in `faults`.
        key: that requests must bear; None: any.
        probabilities: by token, given when logprobs are asked for; None: they are silently left out.
        retry_after: seconds told with 429, 500 and 503.
        hold: answers wait until so many are under way (two minutes at most: then the test fails).
        linger: seconds that they wait after that for one more.
        bodies, headers, times: what was asked, how, and when (monotonic seconds), in order.
        answered: completions sent whole, by the text of the last message.
        most: requests under way at once, at most.
        gone: clients that went away while they waited.
        says: of the key that came, what completions begin with.
        elsewhere: where redirects lead.
        log: the lines a server would log.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        faults: Mapping[str, Sequence[str]] | None = None,
        always: str | None = None,
        key: str | None = None,
        probabilities: Mapping[str, float] | None = None,
        retry_after: float = 0.01,
        hold: int = 1,
        linger: float = 0,
        port: int = 0,
    ) -> None:
        # At a port that was given, servers of several test workers may answer alike.
        self.allow_reuse_port = bool(port)
        super().__init__(("127.0.0.1", port), Handler)
        self.faults = {prompt: list(faults) for prompt, faults in (faults or {}).items()}
        self.always, self.key, self.probabilities, self.hold = always, key, probabilities, hold
        self.errors = list[str]()
        self.linger = linger
        self.says: Callable[[str], str] | None = None
        self.elsewhere = "http://127.0.0.1:9"
        self.bodies, self.headers, self.log = list[dict[str, Any]](), list[dict[str, str]](), list[str]()
        self.retry_after, self.times = retry_after, list[float]()
        self.answered = Counter[str]()
        self.changed = Condition()
        self.under_way = self.most = self.gone = 0

    @property
    def keys(self) -> list[str | None]:
        """The `Authorization` of each request."""
        return [headers.get("authorization") for headers in self.headers]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go away; any other error is the stub's own, and must not pass for a fault."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.errors.append(repr(error))


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not server.errors, server.errors


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # connections are kept, as real servers do

    def log_message(self, format: str, *args: Any) -> None:
        self.server.log.append(format % args)

    def do_POST(self) -> None:
        content = self.rfile.read(length := int(self.headers["Content-Length"]))
        if len(content) < length:  # the client was killed while it asked
            self.close_connection = True
            return
        body = json.loads(content)
        server, prompt = self.server, body["messages"][-1]["content"]
        with server.changed:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            faults = server.faults.get(prompt)
            fault = server.always if faults is None else (faults.pop(0) if faults else None)
            if server.key is not None and self.headers["Authorization"] != f"Bearer {server.key}":
                fault = "401"
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            server.changed.notify_all()
            server.changed.wait_for(lambda: server.most >= server.hold, timeout=120)
            server.changed.wait_for(lambda: server.most > server.hold, timeout=server.linger)
        try:
            self.answer(prompt, body, fault)
        finally:
            with server.changed:
                server.under_way -= 1

    def answer(self, prompt: str, body: dict[str, Any], fault: str | None) -> None:
        if self.path != "/v1/chat/completions":
            return self.refuse("404")
        if fault in STATUS:
            return self.refuse(fault)
        if fault in MALFORMED:
            return self.send(MALFORMED[fault])
        if fault in PACKED:
            encoding, content = PACKED[fault]
            return self.send(content, {"Content-Encoding": encoding})
        if fault in REDIRECTS:
            self.start(
                REDIRECTS[fault], 0, {"Location": f"{self.server.elsewhere}?key={self.headers['Authorization']}"}
            )
            return None
        if fault == "closed":
            return self.break_off()
        if fault == "drip":
            self.start(200, 2**20)
            while not select.select([self.connection], [], [], 0.05)[0]:
                self.wfile.write(b" ")
                self.wfile.flush()
            self.server.gone += 1
            return self.break_off()
        if fault == "hang":
            select.select([self.connection], [], [], 60)
            self.server.gone += 1
            return self.break_off()
        content = json.dumps(self.completion(body, fault)).encode()
        if fault == "cut body":
            self.start(200, len(content))
            self.wfile.write(content[: len(content) // 2])
            return self.break_off()
        if fault is None:
            with self.server.changed:
                self.server.answered[prompt] += 1
        self.send(content)

    def completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        limit = body["max_tokens"]
        words = text(body).split(" ")
        if self.server.says:
            words = [self.server.says(self.headers["Authorization"].removeprefix("Bearer ")), *words]
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": " ".join(words[:limit])},
            "finish_reason": "stop" if len(words) <= limit else "length",
        }
        if self.server.probabilities is not None and body.get("logprobs"):
            top = [{"token": token, "logprob": value} for token, value in self.server.probabilities.items()]
            choice["logprobs"] = {"content": [{"token": "A", "logprob": 0, "top_logprobs": top}] if top else []}
        written = min(limit, len(words))
        usage = {"prompt_tokens": 7, "completion_tokens": written, "total_tokens": 7 + written}
        completion = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        if fault == CUT_SHORT:
            choice["finish_reason"], usage["completion_tokens"] = "length", limit - 1
        elif fault in EDITS:
            path, value = EDITS[fault]
            place: Any = completion
            for step in path[:-1]:
                place = place[step]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
        return completion

    def refuse(self, fault: str) -> None:
        status, message = STATUS[fault]
        # Some servers repeat the key they were given.
        content = json.dumps({"error": {"message": f"{message}; you sent {self.headers['Authorization']}"}}).encode()
        retry = {"Retry-After": str(self.server.retry_after)} if status in (429, 500, 503) else {}
        self.start(status, len(content), retry | {"X-Request-Id": str(self.headers["Authorization"])})
        self.wfile.write(content)

    def send(self, content: bytes, headers: Mapping[str, str] = {}) -> None:
        self.start(200, len(content), headers)
        self.wfile.write(content)

    def start(self, status: int, length: int, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def break_off(self) -> None:
        self.close_connection = True
