"""Parses the origin of URLs strictly, and resolves host names to public IP addresses only.

A name that a hub's answer leads to must not mean a machine in here.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from pipeline.errors import Unreachable, UnsafeAnswer
from pipeline.hubs.waiting import begun

PORTS = {"http": 80, "https": 443}
"""The schemes that are spoken, with their usual ports."""

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")
"""A name, an IPv4 or an IPv6 address."""

Resolve = Callable[..., list[tuple[Any, Any, Any, str, tuple[Any, ...]]]]
"""`socket.getaddrinfo`, or what stands in for it."""

LOOKED_UP_S = 6.0
"""So long a name is waited for: after 5 s the system asks its second name server (resolv.conf(5), `timeout`)."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that stand for IPv4 ones where a network has no IPv4 (RFC 6052)."""


class Origin(NamedTuple):
    """Scheme, host (small letters, no dot at its end) and port of a URL."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """The origin of a URL. Raises `UnsafeAnswer` for other schemes, user names, and characters that hide the host."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise UnsafeAnswer("an address of a hub's answer is no address; it is not followed") from None
    odd = not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc
    if odd or parts.scheme not in PORTS or not _HOST.fullmatch(host) or port == 0:
        raise UnsafeAnswer(f"{shown_host(url)}: comes with an address whose form is not taken; it is not followed")
    return Origin(parts.scheme, host, port or PORTS[parts.scheme])


def followed(url: str, location: str) -> str:
    """Where the answer from `url` redirects to with this `Location`. Raises `UnsafeAnswer` for an invalid one."""
    try:
        return urljoin(url, location).partition("#")[0]
    except ValueError:
        raise UnsafeAnswer(f"{shown_host(url)}: leads to something that is no address") from None


def shown_host(url: str) -> str:
    """The host of a URL for messages: never the rest, which may contain a signature that grants access."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return "".join(c for c in host if c.isascii() and c.isprintable())[:80] or "a server"


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet; an address embedded in it (IPv4 in IPv6) must be public too."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inside = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inside.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        carried = [str(one) for one in inside if one is not None]
        if carried:
            return all(map(is_public, carried))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def addresses_of(host: str, port: int, resolve: Resolve, limit_s: float) -> list[str]:
    """The IP addresses of a host, in the order to try; an IP address is its own and is not looked up.

    Raises `Unreachable` if the name is not known, and if no name server answers: the system knows no limit for that.
    """
    if _is_address(host):
        return [host]
    try:
        answers = begun(lambda: resolve(host, port, type=socket.SOCK_STREAM)).result(limit_s)
    except TimeoutError:
        raise Unreachable(f"{host}: no name server answers within {limit_s:g} s; is there a network?") from None
    except (OSError, UnicodeError):
        answers = []
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    if not addresses:
        raise Unreachable(f"{host}: its address cannot be found; is there a network?")
    return addresses


def public_addresses(host: str, port: int, resolve: Resolve, limit_s: float) -> list[str]:
    """The addresses of a host, all of them public; the connection must be made to one of exactly these addresses.

    Raises as `addresses_of`, and `UnsafeAnswer` if any of the addresses is not public.
    """
    addresses = addresses_of(host, port, resolve, limit_s)
    inner = next((address for address in addresses if not is_public(address)), None)
    if inner is not None:
        raise UnsafeAnswer(
            f"{host}: has the address {inner}, which is not on the internet; it is not connected to "
            "(a mirror of your own goes into hub.huggingface_url or hub.civitai_url)"
        )
    return addresses


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
