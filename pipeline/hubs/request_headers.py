"""The headers of every request to a hub: what is not here is not sent."""

from __future__ import annotations

from pipeline.hubs.origins import PORTS, Origin
from pipeline.version import VERSION

USER_AGENT = f"darkroom/{VERSION}"
"""All that a hub learns of the program. It must not look like a browser: CivitAI sends those to a login page."""

ANYTHING = "*/*"
ANSWERS = "application/json, */*"
"""What a request says that it takes: a file, or what a hub has to say."""


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
