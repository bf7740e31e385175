"""Whether a server listens at all, found out in a moment and without the package that speaks with it."""

from __future__ import annotations

import socket
from contextlib import closing
from urllib.parse import urlsplit

_PROBE_S = 0.3
"""So long is waited for a connection; on one machine it takes under a millisecond."""


def is_listening(address: str) -> bool:
    """Whether a connection to the server of this URL can be made; nothing is sent."""
    parts = urlsplit(address)
    try:
        with closing(socket.create_connection((parts.hostname, parts.port), timeout=_PROBE_S)):
            return True
    except OSError:
        return False
