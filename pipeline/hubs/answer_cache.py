"""What hubs have said, kept with its date: asked again only when it is old, and there when no hub can be reached.

A file of its own, `hub-cache.sqlite`, that can be deleted at any time. A cache never stops anything: what cannot be
read is as good as not there, and what cannot be written is asked for again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.hubs.remote_models import LABELS, Hub
from pipeline.registry.records import now
from pipeline.registry.store_folders import data_folder, network_disk
from pipeline.storage.user_folders import make_folder

MOST_ANSWERS = 5_000
"""The oldest go when there are more."""

MOST_BYTES = 4 * 2**20
"""Larger answers are not kept."""

_BUSY_S = 0.2
"""Waiting longer for another process would cost more than asking the hub again."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (address TEXT PRIMARY KEY, value TEXT NOT NULL, at TEXT NOT NULL)",
    # Where a file with this SHA-256 can be fetched, as hubs have told.
    "CREATE TABLE IF NOT EXISTS places (sha256 TEXT, url TEXT, hub TEXT, PRIMARY KEY (sha256, url, hub))",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept answer; None is the answer that there is no such thing. `at` is when it was given (UTC, ISO)."""

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
    """Where answers are kept."""
    return data_folder() / "hub-cache.sqlite"


def kept(address: str) -> Kept | None:
    """What is kept under an address, of whatever age."""
    with suppress(OSError, sqlite3.Error, ValueError, RecursionError), _reading() as connection:
        row = connection.execute("SELECT value, at FROM answers WHERE address = ?", (address,)).fetchone()
        if row:
            return Kept(json.loads(row[0]), str(row[1]))
    return None


def keep(address: str, value: Any, at: str = "") -> None:
    """Keep an answer (JSON, or None for the answer that there is none) that was given `at` a time, by default now."""
    text = json.dumps(value)
    if len(text) > MOST_BYTES:
        return
    with suppress(OSError, sqlite3.Error), _writing() as connection:
        connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (address, text, at or now()))
        connection.execute(
            "DELETE FROM answers WHERE address IN (SELECT address FROM answers ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (MOST_ANSWERS,),
        )


def keep_place(sha256: str, hub: Hub, url: str) -> None:
    """Remember where a hub offers the file with this hash."""
    with suppress(OSError, sqlite3.Error), _writing() as connection:
        connection.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", (sha256, url, hub))


def kept_places(sha256: str) -> list[tuple[Hub, str]]:
    """Every place at which a hub has offered the file with this hash, Hugging Face's before CivitAI's."""
    with suppress(OSError, sqlite3.Error), _reading() as connection:
        rows = connection.execute("SELECT hub, url FROM places WHERE sha256 = ? ORDER BY hub DESC, url", (sha256,))
        return [(hub, url) for hub, url in rows if hub in LABELS]
    return []


@contextmanager
def _reading() -> Iterator[sqlite3.Connection]:
    file = cache_file()
    if not file.exists():
        raise FileNotFoundError(file)
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
        yield connection


@contextmanager
def _writing() -> Iterator[sqlite3.Connection]:
    file = cache_file()
    if network_disk(file.parent):
        raise OSError("SQLite's locks do not hold there")
    make_folder(file.parent, data_folder())
    connection = _opened(file)
    with closing(connection), connection:
        yield connection


def _opened(file: Path) -> sqlite3.Connection:
    for damaged in (False, True):
        connection = sqlite3.connect(file, timeout=_BUSY_S)
        try:
            for table in _TABLES:
                connection.execute(table)
            return connection
        except sqlite3.DatabaseError as error:
            connection.close()
            if damaged or error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            file.unlink(missing_ok=True)
    raise AssertionError  # the second round returns or raises
