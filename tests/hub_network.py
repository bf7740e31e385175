"""A network for tests in which every address is one `HubServer`: it notes who was connected to, and there is no TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
from hub_server import HubServer

PUBLIC_ADDRESS = "93.184.216.34"


class OneServer(httpcore2.NetworkBackend):
    """Connects to the server whatever the address is. `connected` are the addresses, `certified` the TLS names."""

    def __init__(self, server: HubServer) -> None:
        self.connected: list[tuple[str, int]] = []
        self.certified: list[str] = []
        self._port = server.port
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        self.connected.append((host, port))
        return _Plain(self._sockets.connect_tcp("127.0.0.1", self._port, timeout), self.certified)


class _Plain(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, certified: list[str]) -> None:
        self._stream = stream
        self._certified = certified
        self.read = stream.read  # type: ignore[method-assign]
        self.write = stream.write  # type: ignore[method-assign]
        self.close = stream.close  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        self._certified.append(server_hostname or "")
        return self


class Names:
    """A name service: `addresses` by host, all others have a public one. `asked` are the hosts in order."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **options: Any) -> list[Any]:
        self.asked.append(host)
        found = self.addresses.get(host, [PUBLIC_ADDRESS])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]
