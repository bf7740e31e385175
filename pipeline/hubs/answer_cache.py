"""A cache of hubs' answers with their dates: requested again only when old, and used when no hub can be reached.

A file of its own, `hub-cache.sqlite`, that can be deleted at any time. A cache never stops anything: what cannot be
read is as good as not there, and what cannot be written is asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.hubs.remote_models import LABELS, Hub
from pipeline.registry.records import now
from pipeline.registry.store_folders import data_folder
from pipeline.storage.sqlite_files import CacheFile, network_disk

MOST_ANSWERS = 5_000
"""The oldest go when there are more."""

MOST_BYTES = 4 * 2**20
"""Larger answers are not kept."""

_BUSY_S = 0.2
"""Waiting longer for another process would cost more than asking the hub again."""

_TABLES = (
    "answers (address TEXT PRIMARY KEY, value TEXT NOT NULL, at TEXT NOT NULL)",
    # Where a file with this SHA-256 can be fetched, as hubs have told.
    "places (sha256 TEXT, url TEXT, hub TEXT, PRIMARY KEY (sha256, url, hub))",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A cached answer; None means that the hub said there is no such thing. `at` is when it was given (UTC, ISO)."""

    value: Any
    at: str

    @property
    def age_s(self) -> float:
        """Seconds since it was given."""
        try:
            return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.at)).total_seconds())
        except (ValueError, TypeError):  # not written by us
            return float("inf")


def cache_file() -> Path:
    """The file of the cache."""
    return data_folder() / "hub-cache.sqlite"


def kept(address: str) -> Kept | None:
    """The cached answer for an address, however old."""
    for value, at in _cache().rows("SELECT value, at FROM answers WHERE address = ?", (address,)):
        with suppress(TypeError, ValueError, RecursionError):  # not written by us
            return Kept(json.loads(value), str(at))
    return None


def keep(address: str, value: Any, at: str = "") -> None:
    """Cache an answer (JSON, or None for "there is none") that was given at the time `at`, by default now."""
    text = json.dumps(value)
    if len(text) > MOST_BYTES:
        return
    oldest = "SELECT address FROM answers ORDER BY at DESC LIMIT -1 OFFSET ?"
    _change(
        ("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (address, text, at or now())),
        (f"DELETE FROM answers WHERE address IN ({oldest})", (MOST_ANSWERS,)),
    )


def keep_place(sha256: str, hub: Hub, url: str) -> None:
    """Remember a hub's URL of the file with this hash."""
    _change(("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", (sha256, url, hub)))


def kept_places(sha256: str) -> list[tuple[Hub, str]]:
    """Every known URL of the file with this hash, Hugging Face's before CivitAI's."""
    rows = _cache().rows("SELECT hub, url FROM places WHERE sha256 = ? ORDER BY hub DESC, url", (sha256,))
    return [(hub, url) for hub, url in rows if hub in LABELS]


def _cache() -> CacheFile:
    return CacheFile(cache_file(), *_TABLES, root=data_folder(), busy_s=_BUSY_S)


def _change(*statements: tuple[str, Sequence[str | int]]) -> None:
    if not network_disk(cache_file().parent):  # SQLite's locks do not hold there
        _cache().change(*statements)
