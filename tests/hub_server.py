"""A local server for tests of the hubs: it records every byte that it receives, and misbehaves on demand.

    with HubServer() as server:
        server.route("GET", r"/api/models/(?P<name>.+)", lambda request: json_reply({"id": request.match["name"]}))
        server.file("/files/a.safetensors", weights)              # with Range, If-Range and ETag, as storage does
        server.fault(r"/files/.*", cut(1000), times=1)            # the first answer breaks off, the next is whole
        ...                                                       # server.url is http://127.0.0.1:PORT
        assert b"token" not in server.received()

The endpoints of the two hubs stand in `hub_protocols.py`. `python tests/hub_server.py [PORT] [--slow]` starts the
server with some models, for use by hand, and prints what it has and the settings for it. With `--slow` it has a larger
one, too, and files come at 1 MB/s: long enough to kill a download and go on with it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

COOKIE = "__cf_bm=cookie-canary; Path=/"
"""Set with every answer, as the hubs do; no later request may carry it."""

PROMISES = 100_000
"""Some 4 MB: more than any client should read, and an end for one that does."""


@dataclass(frozen=True)
class Request:
    """One request as it came in. `match` are the named groups of the route's pattern, `raw` all of its bytes."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes
    match: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Reply:
    """One answer, and how it goes wrong on the wire.

    `length` is the Content-Length that is announced where it is a lie (None: the truth; -1: none is announced).
    After `cut_after` body bytes the connection is closed; after `stall_after` nothing more comes until the client
    leaves or the server stops; with `drip_s` the body comes byte by byte, that many seconds apart; with `bytes_per_s`
    no faster than that. With `promising` `PROMISES` provisional answers (103) come before it.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    drip_s: float | None = None
    bytes_per_s: float | None = None
    promising: bool = False

    def with_headers(self, **headers: str) -> Reply:
        """The same with more headers; `_` in a name stands for `-`."""
        more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return dataclasses.replace(self, headers=self.headers + more)


Handler = Callable[[Request], Reply]
Fault = Callable[[Request, Reply], Reply]


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), (("Content-Type", "application/json; charset=utf-8"),))


def html_reply(text: str = "<!DOCTYPE html><html><body>Please log in</body></html>", status: int = 200) -> Reply:
    return Reply(status, text.encode(), (("Content-Type", "text/html; charset=utf-8"),))


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, b"", (("Location", location),))


def ranged(request: Request, content: bytes, etag: str | None = None, ranges: bool = True) -> Reply:
    """`content` or the part that the request's Range wants, as RFC 9110 has it; `ranges=False` ignores Range."""
    etag = f'"{hashlib.sha256(content).hexdigest()}"' if etag is None else etag
    headers = (("Content-Type", "application/octet-stream"), ("ETag", etag), ("Accept-Ranges", "bytes"))
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.header("Range") or "")
    unchanged = request.header("If-Range") in (None, etag)
    if not (ranges and wanted and unchanged):
        return Reply(200, content, headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
    if first > last:
        return Reply(416, b"", (("Content-Range", f"bytes */{len(content)}"),))
    place = ("Content-Range", f"bytes {first}-{last}/{len(content)}")
    return Reply(206, content[first : last + 1], (*headers, place))


# Faults: what `HubServer.fault` does to the answer that a route has made.


def instead(reply: Reply) -> Fault:
    """Another answer altogether: a status, a web page, a redirect."""
    return lambda request, was: reply


def cut(after: int) -> Fault:
    """The connection ends after so many body bytes, though more were announced."""
    return lambda request, was: dataclasses.replace(was, cut_after=after)


def stall(after: int) -> Fault:
    """The connection stays open and silent after so many body bytes; -1: before the headers."""
    return lambda request, was: dataclasses.replace(was, stall_after=after)


def drip(seconds: float) -> Fault:
    """The body comes one byte at a time."""
    return lambda request, was: dataclasses.replace(was, drip_s=seconds)


def slow(bytes_per_s: float) -> Fault:
    """The body comes no faster."""
    return lambda request, was: dataclasses.replace(was, bytes_per_s=bytes_per_s)


def promise() -> Fault:
    """Provisional answers, one behind the other, before the one they stand for."""
    return lambda request, was: dataclasses.replace(was, promising=True)


def announce(length: int) -> Fault:
    """Content-Length says `length`, whatever the body; the connection ends after the body."""
    return lambda request, was: dataclasses.replace(was, length=length)


def flip(position: int) -> Fault:
    """One bit of the body is wrong; its length is right."""

    def damage(request: Request, was: Reply) -> Reply:
        body = bytearray(was.body)
        body[position] ^= 1
        return dataclasses.replace(was, body=bytes(body))

    return damage


class HubServer:
    """An HTTP/1.1 server on 127.0.0.1 with routes, faults and a memory; one request per connection."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        """Every request that was understood, in the order of arrival."""
        self._bytes: list[bytearray] = []
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._faults: list[list[Any]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        server = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    server._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", port), Connection)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # The poll is how long `shutdown` may take; connections do not wait for it.
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def route(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer requests whose whole path (without the query) matches `pattern`; later routes win over earlier."""
        self._routes.insert(0, (method, re.compile(pattern), handler))

    def file(self, path: str, content: bytes, *, etag: str | None = None, ranges: bool = True) -> str:
        """Serve `content` under `path`; returns the URL."""
        self.route("GET", re.escape(path), lambda request: ranged(request, content, etag, ranges))
        return self.url + path

    def fault(self, pattern: str, fault: Fault, times: int | None = None) -> None:
        """Spoil the answers to paths that match `pattern`: the next `times`, or all. The first that fits counts."""
        self._faults.append([re.compile(pattern), fault, times])

    def connections(self) -> list[bytes]:
        """The bytes that came in on each connection, also those that were no request."""
        with self._lock:
            return [bytes(connection) for connection in self._bytes]

    def received(self) -> bytes:
        """All bytes that came in on all connections."""
        return b"\n".join(self.connections())

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        request = self._read(connection)
        if request is None:
            return
        reply = self._answer(request)
        for part in self._wire(request, reply):
            connection.sendall(part)
        if reply.stall_after is not None:
            self._wait_for_the_end_of(connection)

    def _read(self, connection: socket.socket) -> Request | None:
        seen = bytearray()
        with self._lock:
            self._bytes.append(seen)

        def more() -> bool:
            data = connection.recv(65536)
            with self._lock:
                seen.extend(data)
            return bool(data)

        while b"\r\n\r\n" not in seen:
            if not more():
                return None
        head, _, _ = bytes(seen).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        while len(seen) < len(head) + 4 + length:
            if not more():
                return None
        method, target, _ = first.split(" ")
        return Request(method, target, headers, bytes(seen[len(head) + 4 :]), bytes(seen))

    def _answer(self, request: Request) -> Reply:
        reply = json_reply({"error": "Not found"}, 404)
        for method, pattern, handler in self._routes:
            if method == request.method and (match := pattern.fullmatch(request.path)):
                request = dataclasses.replace(request, match=match.groupdict())
                reply = handler(request)
                break
        with self._lock:
            self.requests.append(request)
            for entry in self._faults:
                pattern, fault, times = entry
                if times != 0 and pattern.fullmatch(request.path):
                    entry[2] = None if times is None else times - 1
                    return fault(request, reply)
        return reply

    def _wire(self, request: Request, reply: Reply) -> Iterable[bytes]:
        if reply.stall_after == -1:
            return
        if reply.promising:
            for _ in range(PROMISES):
                yield b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Connection: close"]
        if reply.length != -1:
            lines.append(f"Content-Length: {len(reply.body) if reply.length is None else reply.length}")
        lines += [f"{name}: {value}" for name, value in (*reply.headers, ("Set-Cookie", COOKIE))]
        yield "\r\n".join([*lines, "", ""]).encode("latin-1")
        end = min(len(reply.body) if cut is None else cut for cut in (reply.cut_after, reply.stall_after))
        body = b"" if request.method == "HEAD" else reply.body[:end]
        if reply.bytes_per_s:
            part, pause_s = max(1, int(reply.bytes_per_s / 20)), 0.05
        else:
            part, pause_s = (len(body), 0.0) if reply.drip_s is None else (1, reply.drip_s)
        for position in range(0, len(body), part or 1):
            if pause_s and self._stopping.wait(pause_s):
                return
            yield body[position : position + part]

    def _wait_for_the_end_of(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1024):
                    return


SLOW_BYTES_PER_S = 1e6
FILES = r"/cdn/.*|/storage/.*"
"""Where both hubs' large files lie."""


def main() -> None:
    """Serve the sample models until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Both hubs on this machine, with tiny models.")
    parser.add_argument("port", nargs="?", type=int, default=8970)
    parser.add_argument("--slow", action="store_true", help="files come at 1 MB/s, and there is a large one")
    asked = parser.parse_args()
    repository = Path(__file__).parents[1]
    sys.path[:0] = [str(repository), str(repository / "examples")]  # before `tests`, which has a folder `pipeline` too
    from hub_protocols import add_hubs, listed, sample_models

    samples = sample_models(large=asked.slow)
    with HubServer(asked.port) as server:
        add_hubs(server, samples)
        if asked.slow:
            server.fault(FILES, slow(SLOW_BYTES_PER_S))
        settings = f"hub.huggingface_url={server.url} hub.civitai_url={server.url}"
        print(*listed(samples), "", f"append to any command:  {settings}", sep="\n", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
