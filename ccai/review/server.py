"""The review page's server on loopback: only this page's own hosts and origins, and a content security policy."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ccai.base.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
HOST = "127.0.0.1"

LOOPBACK = frozenset({HOST, "localhost", "::1"})
"""Host names under which a browser on this machine, or at the end of an SSH tunnel, opens the page."""

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page's content security policy: nothing from elsewhere, and as inline scripts only those the page was sent with.
Vue, which NiceGUI uses, creates functions from strings.
"""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class Prefixed:
    """ASGI middleware: the page's addresses begin with this path, whatever a proxy's headers contain.

    jupyter-server-proxy sends the path in X-Forwarded-Prefix, which NiceGUI reads; other proxies may not.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = b"x-forwarded-prefix"
        if scope["type"] == "http":
            scope["headers"] = [*(header for header in scope["headers"] if header[0] != name), (name, self.prefix)]
        await self.app(scope, receive, send)


class Guarded:
    """ASGI middleware: answers only requests for this page by one of its names, and adds its policy.

    A browser that another site's page directs here reveals it: by that site's name as Host, if the name resolves to
    loopback (DNS rebinding), or by an Origin that is not this page's.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif not self._ours(scope["headers"]):
            await self._refuse(scope, receive, send)
        elif scope["type"] == "websocket" or scope["path"] != "/":
            await self.app(scope, receive, send)
        else:
            packed = b"accept-encoding"  # the policy hashes the page's uncompressed scripts
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != packed]}
            await self.app(scope, receive, _with_policy(send))

    def _ours(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        values: dict[bytes, list[str]] = {b"host": [], b"origin": []}
        for name, value in headers:
            if name in values:
                values[name].append(value.decode("latin-1").lower())
        [host], origins = values[b"host"] if len(values[b"host"]) == 1 else [""], values[b"origin"]
        return _name(host) in LOOPBACK | self.hosts and all(
            urlsplit(origin).netloc == host or _name(urlsplit(origin).netloc) in self.hosts for origin in origins
        )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        from starlette.responses import PlainTextResponse

        message = "This page does not go by that name. If a proxy leads here, start it with --host NAME."
        await PlainTextResponse(message, 403)(scope, receive, send)


def _name(address: str) -> str:
    """The name in `NAME:PORT`; empty for anything else."""
    try:
        return urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return ""


def _with_policy(send: Send) -> Send:
    """Hold the page back until it is complete, because its policy contains hashes of its scripts."""
    begun: list[Message] = []
    page = bytearray()

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)
            return
        page.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        scripts = re.findall(rb"<script\b[^>]*>(.*?)</script>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts if script.strip()]
        policy = POLICY.format(scripts=" ".join(f"'sha256-{value}'" for value in hashes))
        headers = [*begun[0]["headers"], (b"content-security-policy", policy.encode())]
        await send({**begun[0], "headers": [*headers, (b"referrer-policy", b"no-referrer")]})
        await send({"type": "http.response.body", "body": bytes(page)})

    return keep


def listen(port: int) -> socket.socket:
    """A socket that accepts connections from now on, so that its address can be printed; port 0 picks a free port.

    Raises:
        UserError: the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: {error}; give another, or 0 for any") from None
