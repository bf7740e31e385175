"""Sends requests to the hubs, anonymously; the only code in Darkroom that opens connections.

Every request has the same headers: `Host`, `User-Agent: darkroom/<version>`, `Accept`, `Accept-Encoding: identity`, and
`Range` where a download goes on. No cookies, no `.netrc`, no proxies or other settings from the environment, no
referrer, no connection used twice. Redirects are followed by hand, and only to where the hub's files are known to lie.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.errors import BrokenOff, Unreachable, UnsafeAnswer
from pipeline.hubs.addresses import PORTS, Origin, Resolve, followed, origin_of, shown_host
from pipeline.hubs.hub_settings import PUBLIC_URLS, HubSettings, is_allowed_host
from pipeline.hubs.limits import BUCKETS, Limits, RequestKind
from pipeline.hubs.remote_models import Hub
from pipeline.hubs.waiting import Say, say_nothing
from pipeline.registry.store_folders import data_folder
from pipeline.version import VERSION

if TYPE_CHECKING:
    import httpcore2

    from pipeline.hubs.connecting import CheckedNetwork, Pace

USER_AGENT = f"darkroom/{VERSION}"
"""All that a hub learns of the program. It must not look like a browser: CivitAI sends those to a login page."""

ANYTHING = "*/*"
ANSWERS = "application/json, */*"
"""What a request says that it takes: a file, or what a hub has to say."""

MOST_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, whatever its status. `headers` have small letters; `url` is where it came from in the end.

    `body` is read as it arrives and only once. Reading raises `Unreachable` if it breaks off or stands still, and
    `UnsafeAnswer` if it is longer than allowed or compressed, which was not requested and could be a bomb.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    body: Iterator[bytes]

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.body)


class Transport:
    """Sends the requests of this process; may be shared by threads. `settings` say to which servers.

    `say` is told of waits that last. With `asks=False` nothing is sent, for what is kept of the hubs' answers: to all
    else they are out of reach. `limits` is shared with other processes through the data folder. `network` and
    `resolve` stand in for sockets and for the system's name service in tests.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        say: Say = say_nothing,
        asks: bool = True,
        limits: Limits | None = None,
        pace: Pace | None = None,
        network: httpcore2.NetworkBackend | None = None,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self.settings = settings
        self.say = say
        self._asks = asks
        self._limits = limits or Limits(data_folder() / "limits", say=say)
        self._pace = pace
        self._network = network
        self._resolve = resolve

    def has_token(self, hub: Hub) -> bool:
        """Whether requests to this hub carry the user's token."""
        return self.settings.token_of(hub) is not None

    @contextmanager
    def get(
        self,
        url: str,
        *,
        kind: RequestKind,
        accept: str = ANYTHING,
        range_start: int | None = None,
        max_bytes: int,
    ) -> Iterator[Response]:
        """Request a URL, which must begin with the address of the hub of this `kind`; waits for the hub's limits.

        `range_start` asks for what follows that many bytes; whether the answer is only that tells its status, 206.
        A body longer than `max_bytes` is not read. Raises `Unreachable` and `UnsafeAnswer`.
        """
        hub = BUCKETS[kind].hub
        base = self.settings.url_of(hub)
        if url != base and not url.startswith((f"{base}/", f"{base}?")):
            raise UnsafeAnswer(f"{shown_host(url)}: is not the address of this hub, {base}")
        home = origin_of(base)
        if not self._asks:
            raise Unreachable(f"{shown_host(url)}: is not asked now")
        with self._limits.turn(kind):
            for hop in range(MOST_REDIRECTS + 1):
                origin = origin_of(url)
                known = (origin.scheme, origin.port) == ("https", 443) and is_allowed_host(hub, origin.host)
                if origin != home and not known:
                    place = f"{origin.scheme}://{shown_host(url)}"
                    raise UnsafeAnswer(f"{home.host}: leads to {place}, which is no known place of its files")
                if origin == home:
                    self._limits.wait(kind)
                token = self.settings.token_of(hub) if hop == 0 else None
                headers = headers_for(origin, accept, range_start, token)
                with self._answer(origin, url, headers, trusted=home if base != PUBLIC_URLS[hub] else None) as answer:
                    found = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in answer.headers}
                    if answer.status not in _REDIRECTS or "location" not in found:
                        yield Response(answer.status, found, url, _body(answer, found, max_bytes, self._shown(origin)))
                        return
                    url = followed(url, found["location"])
        raise UnsafeAnswer(f"{home.host}: redirects more than {MOST_REDIRECTS} times")

    @contextmanager
    def _answer(
        self, origin: Origin, url: str, headers: list[tuple[str, str]], trusted: Origin | None
    ) -> Iterator[httpcore2.Response]:
        """The answer to one request over a connection of its own, headers read."""
        import httpcore2

        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        where = httpcore2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target)
        request = httpcore2.Request("GET", where, headers=[(n.encode(), v.encode()) for n, v in headers])
        network = self._checked_network(trusted)
        with self._connections(network) as connections:
            with _plain_faults(self._shown(origin)):
                answer = connections.handle_request(request)
            network.head_ended = True
            try:
                yield answer
            finally:
                answer.close()

    def _shown(self, origin: Origin) -> str:
        return f"{origin.host} (through hub.proxy)" if self.settings.proxy else origin.host

    def _checked_network(self, trusted: Origin | None) -> CheckedNetwork:
        import httpcore2

        from pipeline.hubs.connecting import CheckedNetwork, Pace

        proxy = self.settings.proxy

        def is_trusted(host: str, port: int) -> bool:
            # A proxy looks names up itself, and it is the only one that is connected to.
            return proxy is not None or (trusted is not None and (host, port) == trusted[1:])

        network = self._network or httpcore2.SyncBackend()
        return CheckedNetwork(network, self._pace or Pace(), self._resolve, is_trusted)

    def _connections(self, network: CheckedNetwork) -> httpcore2.ConnectionPool:
        import httpcore2

        proxy = self.settings.proxy
        if proxy is None:
            return httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=network)
        parts = urlsplit(proxy)
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        port = parts.port or {"http": 8080, "https": 443}.get(parts.scheme, 1080)
        where = httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=port, target="/")
        if parts.scheme.startswith("socks"):
            return httpcore2.SOCKSProxy(where, auth, ssl_context=self._tls, network_backend=network)
        return httpcore2.HTTPProxy(
            where,
            auth,
            ssl_context=self._tls,
            proxy_ssl_context=self._tls if parts.scheme == "https" else None,
            network_backend=network,
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpcore2

        return httpcore2.default_ssl_context()


def headers_for(origin: Origin, accept: str, range_start: int | None, token: str | None) -> list[tuple[str, str]]:
    """Every header of a request, as it is sent."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    headers = [
        ("Host", host if origin.port == PORTS[origin.scheme] else f"{host}:{origin.port}"),
        ("User-Agent", USER_AGENT),
        ("Accept", accept),
        ("Accept-Encoding", "identity"),
    ]
    if range_start:
        headers.append(("Range", f"bytes={range_start}-"))
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    return headers


def _body(answer: httpcore2.Response, headers: Mapping[str, str], max_bytes: int, host: str) -> Iterator[bytes]:
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsafeAnswer(f"{host}: sends its answer compressed ({encoding[:20]!r}), which was not requested")
    announced = headers.get("content-length", "")
    too_long = UnsafeAnswer(f"{host}: sends more than the {max_bytes:,} bytes that were expected")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > max_bytes:
        raise too_long
    received = 0
    with _plain_faults(host):
        for chunk in answer.iter_stream():
            received += len(chunk)
            if received > max_bytes:
                raise too_long
            yield chunk


@contextmanager
def _plain_faults(where: str) -> Iterator[None]:
    """httpcore's errors as one line for the user."""
    import httpcore2

    try:
        yield
    except httpcore2.TimeoutException as error:
        kind = Unreachable if isinstance(error, httpcore2.ConnectTimeout) else BrokenOff
        raise kind(f"{where}: does not answer, or has stopped to") from None
    except httpcore2.ProxyError as error:
        raise Unreachable(f"{where}: the proxy refuses ({error})") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        cause = error.args[0] if error.args else ""  # httpcore drops __cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UnsafeAnswer(
                f"{where}: its certificate is not trusted ({cause.verify_message}); somebody may be in between"
            ) from None
        said = cause.strerror if isinstance(cause, OSError) else cause
        kind = Unreachable if isinstance(error, httpcore2.ConnectError) else BrokenOff
        raise kind(f"{where}: the connection failed ({said or 'it was closed'})") from None
