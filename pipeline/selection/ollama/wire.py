"""What lies below the package `ollama`: requests with our headers alone, answers bounded in time and size.

httpx's own transport bounds each read, but neither all of them together nor what is read, and an answer may begin with
any number of provisional ones.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

from pipeline.version import VERSION

MOST_BYTES = 2**20
"""Of one answer with its headers: the list of a thousand models takes half of it."""

CONNECT_S = 3.0

HEADERS = (b"host", b"accept", b"content-type", b"content-length")
"""Sent as the package makes them; beside these only User-Agent and Accept-Encoding, and those are ours."""


class TooLarge(httpx.TransportError):
    """An answer of more than `MOST_BYTES`."""


class Wire(httpx.BaseTransport):
    """Connections to one server, straight to it: no proxy, no netrc, no redirects. `longest_s` is for a whole request.

    Raises httpcore's errors, and `TooLarge`.
    """

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._network = _Network()
        self._connections = httpcore.ConnectionPool(network_backend=self._network)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the answer's body is read by whoever iterates over it."""
        self._network.ends, self._network.left_bytes = time.monotonic() + self.longest_s, MOST_BYTES
        timeouts = httpx.Timeout(self.longest_s, connect=min(CONNECT_S, self.longest_s)).as_dict()
        answer = self._connections.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=_headers(request.headers.raw),
                content=request.stream,
                extensions={"timeout": timeouts},
            )
        )
        # None was asked for; what is compressed all the same is no JSON.
        headers = [(name, value) for name, value in answer.headers if name.lower() != b"content-encoding"]
        return httpx.Response(answer.status, headers=headers, stream=_Body(answer))

    def close(self) -> None:
        """End all connections."""
        self._connections.close()


def _headers(made: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in made if name.lower() in HEADERS]
    return [*kept, (b"User-Agent", f"darkroom/{VERSION}".encode()), (b"Accept-Encoding", b"identity")]


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Network(httpcore.SyncBackend):
    """Sockets that share what the present request may still take: seconds until `ends`, and bytes."""

    def __init__(self) -> None:
        self.ends = 0.0
        self.left_bytes = 0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options), self)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left_s = self._network.ends - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout
        data = self._stream.read(max_bytes, left_s if timeout is None else min(timeout, left_s))
        self._network.left_bytes -= len(data)
        if self._network.left_bytes < 0:
            raise TooLarge(f"more than {MOST_BYTES:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
