"""Opens sockets to checked addresses, and watches for servers that stall or send too slowly.

Imported only where a connection is opened, since httpcore2 takes 0.1 s to import.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore2

from pipeline.errors import BrokenOff, UnsafeAnswer
from pipeline.hubs.addresses import LOOKED_UP_S, Resolve, addresses_of, public_addresses
from pipeline.system.units import duration_text, size_text

MOST_HEAD_BYTES = 256 * 2**10
"""So much may come before the body. h11 takes a head of up to 100 KiB, but any number of provisional ones (1xx)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a server may take. Only time spent waiting for it counts.

    `looked_up_s` for the host's addresses, `connect_s` for a connection to one of them, `silence_s` between two
    arrivals of bytes. From the first byte on, `window_s` must bring `min_bytes_per_s` on average; a server that drips
    would else hold a download for ever. CivitAI's searches have been seen to take 20 s (reliability.md 3.2, trap 3).
    """

    looked_up_s: float = LOOKED_UP_S
    connect_s: float = 10.0
    silence_s: float = 60.0
    window_s: float = 60.0
    min_bytes_per_s: float = 512.0


class CheckedNetwork(httpcore2.NetworkBackend):
    """Opens connections: to any address of hosts that `trusted` accepts, else to public addresses only.

    `head_ended` is set once the answer's body begins; what comes before may not have more than `MOST_HEAD_BYTES`.
    """

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
        self.head_ended = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of the host's addresses that answers. Raises as `public_addresses`, and httpcore's."""
        found = addresses_of if self._trusted(host, port) else public_addresses
        addresses = found(host, port, self._resolve, self._pace.looked_up_s)
        ends = time.monotonic() + self._pace.connect_s
        for position, address in enumerate(addresses):
            left = len(addresses) - position
            share_s = max(0.1, ends - time.monotonic()) / left
            try:
                stream = self._network.connect_tcp(address, port, share_s, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
            else:
                return WatchedStream(stream, self._pace, host, head_ended=lambda: self.head_ended)
        raise AssertionError("there is always an address")


class WatchedStream(httpcore2.NetworkStream):
    """A connection that raises `BrokenOff` if its server is too slow, and `UnsafeAnswer` for endless headers."""

    def __init__(
        self,
        stream: httpcore2.NetworkStream,
        pace: Pace,
        host: str,
        clock: Callable[[], float] = time.monotonic,
        head_ended: Callable[[], bool] = lambda: True,
    ) -> None:
        self._stream = stream
        self._pace = pace
        self._host = host
        self._clock = clock
        self._head_ended = head_ended
        self._head_bytes = 0
        self._waited_s = 0.0
        self._bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, at most `max_bytes`."""
        began = self._clock()
        data = self._stream.read(max_bytes, self._pace.silence_s)
        if self._bytes:  # before the first byte the server may think
            self._waited_s += self._clock() - began
        self._bytes += len(data)
        if not self._head_ended():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                raise UnsafeAnswer(f"{self._host}: sends headers without end")
        if self._waited_s >= self._pace.window_s:
            if self._bytes < self._waited_s * self._pace.min_bytes_per_s:
                took = f"{size_text(self._bytes)} in {duration_text(self._waited_s)}"
                raise BrokenOff(f"{self._host}: sends so slowly ({took})")
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
        return WatchedStream(encrypted, self._pace, self._host, self._clock, self._head_ended)

    def get_extra_info(self, info: str) -> Any:
        """As httpcore's own streams have it."""
        return self._stream.get_extra_info(info)
