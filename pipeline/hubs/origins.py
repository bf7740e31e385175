"""Whom a URL means, read so strictly that no two programs can read it differently."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from pipeline.errors import UnsafeAnswer

PORTS = {"http": 80, "https": 443}
"""The schemes that are spoken, with their usual ports."""

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")
"""A name, an IPv4 or an IPv6 address."""


class Origin(NamedTuple):
    """Scheme, host (small letters, no dot at its end) and port of a URL."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """Whom a URL means. Raises `UnsafeAnswer` for other schemes, user names, and characters that hide the host."""
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
    """Where the answer from `url` leads with this `Location`. Raises `UnsafeAnswer` for what is no address."""
    try:
        return urljoin(url, location).partition("#")[0]
    except ValueError:
        raise UnsafeAnswer(f"{shown_host(url)}: leads to something that is no address") from None


def shown_host(url: str) -> str:
    """The host to show of any text: never the rest, which may hold a signature that lets anybody in."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return "".join(c for c in host if c.isascii() and c.isprintable())[:80] or "a server"
