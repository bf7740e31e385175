"""Sockets: connected to addresses that were checked, and watched for connections that stand still or drip.

Imported only where a connection is opened, since httpcore2 takes 0.1 s to import.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore2

from pipeline.errors import Unreachable
from pipeline.models.hubs.addresses import Resolve, public_addresses


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a server may take. Only time spent waiting for it counts.

    `connect_s` for a connection, `silence_s` between two arrivals of bytes. From the first byte on, `window_s` must
    bring `min_bytes_per_s` on average; a server that drips would else hold a download for ever. CivitAI's searches have
    been seen to take 20 s (reliability.md 3.2, trap 3).
    """

    connect_s: float = 10.0
    silence_s: float = 60.0
    window_s: float = 60.0
    min_bytes_per_s: float = 512.0


class CheckedNetwork(httpcore2.NetworkBackend):
    """Opens connections: to what `trusted` says as it is named, else to public addresses only."""

    def __init__(
        self,
        network: httpcore2.NetworkBackend,
        pace: Pace,
        resolve: Resolve,
        trusted: Callable[[str, int], bool],
    ) -> None:
        self._network = network
        self._pace = pace
        self._resolve = resolve
        self._trusted = trusted

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of the host's addresses that answers. Raises as `public_addresses`, and httpcore's."""
        addresses = [host] if self._trusted(host, port) else public_addresses(host, port, self._resolve)
        for position, address in enumerate(addresses):
            try:
                stream = self._network.connect_tcp(address, port, self._pace.connect_s, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if position == len(addresses) - 1:
                    raise
            else:
                return WatchedStream(stream, self._pace, host)
        raise AssertionError("there is always an address")


class WatchedStream(httpcore2.NetworkStream):
    """A connection that raises `Unreachable` once its server is too slow."""

    def __init__(
        self,
        stream: httpcore2.NetworkStream,
        pace: Pace,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._pace = pace
        self._host = host
        self._clock = clock
        self._waited_s = 0.0
        self._bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, at most `max_bytes`."""
        began = self._clock()
        data = self._stream.read(max_bytes, self._pace.silence_s)
        if self._bytes:  # before the first byte the server may think
            self._waited_s += self._clock() - began
        self._bytes += len(data)
        if self._waited_s >= self._pace.window_s:
            if self._bytes < self._waited_s * self._pace.min_bytes_per_s:
                raise Unreachable(f"{self._host}: sends so slowly ({self._bytes} bytes in {self._waited_s:.0f} s)")
            self._waited_s, self._bytes = 0.0, 1
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        self._stream.write(buffer, self._pace.silence_s)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """The same connection, encrypted; the certificate must be the one of `server_hostname`."""
        encrypted = self._stream.start_tls(ssl_context, server_hostname, self._pace.connect_s)
        return WatchedStream(encrypted, self._pace, self._host, self._clock)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of its own streams."""
        return self._stream.get_extra_info(info)
