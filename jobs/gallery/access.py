"""Who may ask the server: this machine's user, in a browser that was opened with the link that was printed.

Loopback is shared with every page that the browser has open and with all users of the machine. So a request must name
this server as its `Host` (else another site's name could be made to point here), carry the cookie that the link was
exchanged for, and where it changes anything come from a page of this server.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 65_536
MAX_QUERY_BYTES = 16_384

ENTER = "/enter/"
"""The path below which the token stands in the link, once."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""Of every answer."""


class Pass:
    """The secrets of one start: the token of the link, and the value of the cookie that it is exchanged for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"darkroom_{port}"  # cookies are shared by all ports of a host

    @property
    def hosts(self) -> tuple[str, ...]:
        """What `Host` may say."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}", f"[::1]:{self.port}"

    @property
    def link(self) -> str:
        """The address to open."""
        return f"http://{self.hosts[0]}{ENTER}{self.token}"

    def is_token(self, text: str) -> bool:
        """Whether a text is the token of the link."""
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self.token.encode())

    def set_cookie(self) -> str:
        """The header that lets a browser in; no script can read it, no other site's request carries it."""
        return f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"

    def is_known(self, cookies: str) -> bool:
        """Whether a `Cookie` header has the session."""
        pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
        values = [value for name, _, value in pairs if name == self._cookie]
        return len(values) == 1 and hmac.compare_digest(values[0].encode(), self._session.encode())


class Access:
    """The checks around an application: what fails one never reaches it. All answers get `HEADERS`."""

    def __init__(self, app: ASGIApp, own: Pass, refused: ASGIApp) -> None:
        self._app, self._own, self._refused = app, own, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if not any(name.lower() == b"cache-control" for name, _ in given):
                    own.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*given, *own]}
            await send(message)

        headers = _headers(scope)
        if fault := self._fault(scope, headers):
            await _answer(guarded, *fault)
        elif not (scope["path"].startswith(ENTER) or self._own.is_known(headers.get("cookie", ""))):
            await self._refused(scope, receive, guarded)
        elif scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                await _answer(guarded, 413, "the request is too large")
            else:
                await self._app(scope, _replay(body, receive), guarded)
        else:
            await self._app(scope, receive, guarded)

    def _fault(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason of a request that is refused."""
        if headers.get("host", "").lower() not in self._own.hosts:
            return 421, "this server answers to its own address only"
        if len(scope.get("query_string", b"")) > MAX_QUERY_BYTES:
            return 414, "the address is too long"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "there is GET and POST here"
        if scope["method"] != "POST":
            return None
        origin = headers.get("origin")
        if origin is None:
            is_ours = headers.get("sec-fetch-site") == "same-origin"
        else:
            is_ours = origin == f"http://{headers['host'].lower()}"
        if not is_ours:
            return 403, "the request comes from another page"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "expected JSON"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()) or len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return 413, "the request is too large"
        return None


def _headers(scope: Scope) -> dict[str, str]:
    """The headers of a request; of one that comes twice nothing, so that nobody can read it otherwise."""
    found: dict[str, str] = {}
    twice = set()
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name != "cookie":
            twice.add(name)
        found[name] = f"{found[name]}; {value.decode('latin-1')}" if name in found else value.decode("latin-1")
    return {name: "" if name in twice else value for name, value in found.items()}


async def _body(receive: Receive) -> bytes | None:
    """The body; None for one that is longer than allowed, whatever its header said."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": waiting.pop()} if waiting else await receive()

    return again


async def _answer(send: Send, status: int, text: str) -> None:
    content = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
