"""The registry's database: shared by processes, migrated to the current version, with its errors explained."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.registry.store_folders import data_folder, registry_file
from pipeline.storage.durable import NO_SPACE
from pipeline.storage.sqlite_files import Access, connect, fault_of, network_disk, write_ahead
from pipeline.storage.user_folders import make_folder
from pipeline.system.units import duration_text

BUSY_S = 10.0
"""So long a process waits for another one that is writing; each write takes milliseconds."""

_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)

_FIRST = (
    # `name_key` and `words` are what is compared and searched, see `storing`; lists have a word in each line.
    """CREATE TABLE models (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL, source TEXT NOT NULL,
        reference TEXT NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL,
        family TEXT, precision TEXT, base_model TEXT, licence TEXT,
        trigger_words TEXT NOT NULL, tags TEXT NOT NULL, words TEXT NOT NULL,
        last_used TEXT, added_at TEXT NOT NULL,
        revision TEXT, branches TEXT NOT NULL, version_id INTEGER, model_id INTEGER,
        UNIQUE (reference, path))""",
    "CREATE INDEX models_by_name ON models (name_key)",
    "CREATE INDEX models_by_path ON models (path)",
    "CREATE INDEX models_by_version ON models (version_id) WHERE version_id IS NOT NULL",
    "CREATE INDEX models_by_model ON models (model_id) WHERE model_id IS NOT NULL",
    """CREATE TABLE files (
        model INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE, name TEXT NOT NULL, path TEXT NOT NULL,
        bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        sha256 TEXT, tensor_hash TEXT, claimed_sha256 TEXT, owned INTEGER NOT NULL,
        PRIMARY KEY (model, path))""",
    "CREATE INDEX files_by_sha256 ON files (sha256) WHERE sha256 IS NOT NULL",
    "CREATE INDEX files_by_tensors ON files (tensor_hash) WHERE tensor_hash IS NOT NULL",
    "CREATE INDEX files_by_claim ON files (claimed_sha256) WHERE claimed_sha256 IS NOT NULL",
    # What a scan saw of a file or folder, by sizes and times; `by` is the version that looked inside, and `why` says
    # for what it was refused.
    "CREATE TABLE scanned (path TEXT PRIMARY KEY, signature TEXT NOT NULL, by TEXT NOT NULL, why TEXT)",
)

_CARDS = (
    # Of each model what its author, notes beside it and its header say, as JSON; see `stored_cards`.
    "CREATE TABLE cards (model INTEGER PRIMARY KEY REFERENCES models (id) ON DELETE CASCADE, card TEXT NOT NULL)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _CARDS)
"""Statements that bring a registry from each version to the next; the file's `user_version` counts those done.

To change the tables, add an entry; never change released ones.
"""


class RegistryError(ModelError):
    """The registry cannot be opened, read or written; the message says why and what to do."""


class RegistryNotWritable(RegistryError):
    """The registry can only be read: its disk is read-only or full."""


class Registry:
    """The open registry. A context manager, for one thread; other threads and processes open their own.

    Where its disk is read-only, what is there can be read, and a write raises `RegistryNotWritable`. On a full disk it
    can be read as well, and written once what is done in the same transaction has made room.
    """

    def __init__(self, path: Path | None = None, *, busy_s: float = BUSY_S) -> None:
        """Opens the file at `path`, by default the user's, and makes it if need be. Raises `RegistryError`."""
        self.path = path or registry_file()
        self._busy_s = busy_s
        self._not_writable: str | None = None
        self._connection = self._opened()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query. Raises `RegistryError`."""
        with self._faults_in_words():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: either all changes are made or none, and no other process writes meanwhile. May be nested.

        Raises `RegistryError`.
        """
        with self._faults_in_words():
            if self._connection.in_transaction:
                yield self._connection
                return
            if self._not_writable:
                raise RegistryNotWritable(self._says(self._not_writable))
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite itself has rolled back after some faults
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        if kind := network_disk(self.path.parent):
            raise RegistryError(
                self._says(f"is on a network disk ({kind}), where several machines would damage it; {_ELSEWHERE}")
            )
        try:
            make_folder(self.path.parent, data_folder())
        except OSError as error:
            if error.errno in (*_NOT_OURS, *NO_SPACE):
                return self._opened_to_read(_IS_FULL if error.errno in NO_SPACE else _CANNOT_BE_WRITTEN)
            raise RegistryError(self._says(f"its folder cannot be made ({error.strerror}); {_ELSEWHERE}")) from None
        try:
            connection = self._connected()
        except sqlite3.Error as error:
            fault = fault_of(error, self.path)
            if fault == "full":
                return self._opened_on_full_disk()
            if fault == "read-only" and not self.path.is_dir():
                return self._opened_to_read(_CANNOT_BE_WRITTEN)
            raise self._in_words(error) from None
        if not os.access(self.path, os.W_OK):
            self._not_writable = _CANNOT_BE_WRITTEN
        return connection

    def _opened_on_full_disk(self) -> sqlite3.Connection:
        """Without the file of shared memory, for which there is no room: this process alone has it open meanwhile.

        SQLite keeps that memory to itself where the lock is exclusive (sqlite.org/wal.html, section 8), and writes
        nothing before a transaction ends; what removes files in it has made the room by then.
        """
        if not self.path.stat().st_size:  # there was no room for its tables
            return self._opened_to_read(_IS_FULL)
        with self._faults_in_words():
            return self._connected(alone=True)

    def _opened_to_read(self, why: str) -> sqlite3.Connection:
        """As it is on a read-only disk: with what other processes have not yet merged if possible, else without.

        `why` is what is said of writing.
        """
        self._not_writable = why
        if not self.path.exists() or not self.path.stat().st_size:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self._prepared(connection)
            return connection
        with suppress(RegistryError), self._faults_in_words():
            return self._connected("mode=ro")
        with self._faults_in_words():
            return self._connected("immutable=1")

    def _connected(self, access: Access = "write", *, alone: bool = False) -> sqlite3.Connection:
        """The file, open, with tables of this version; `alone`: no other process has it open meanwhile."""
        connection = connect(self.path, access, busy_s=self._busy_s)
        try:
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if access == "write":
                self._prepared(connection)
            else:
                connection.row_factory = sqlite3.Row
                self._check_version(connection, exactly=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepared(self, connection: sqlite3.Connection) -> None:
        """Bring the tables up to date: once, whoever comes first."""
        connection.row_factory = sqlite3.Row
        if self._check_version(connection) < len(MIGRATIONS):
            write_ahead(connection, self._busy_s)
            connection.execute("BEGIN IMMEDIATE")
            version = self._check_version(connection)  # another process may have done it by now
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    def _check_version(self, connection: sqlite3.Connection, *, exactly: bool = False) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise RegistryError(
                self._says(
                    f"was written by a newer Darkroom (its version is {version}, this one knows {len(MIGRATIONS)}); "
                    "update Darkroom, or let DARKROOM_HOME name another folder"
                )
            )
        if exactly and version < len(MIGRATIONS):
            raise RegistryError(self._says(f"is of an older Darkroom and {_CANNOT_BE_WRITTEN}"))
        return version

    @contextmanager
    def _faults_in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._in_words(error) from None

    def _in_words(self, error: sqlite3.Error) -> RegistryError:
        match fault_of(error, self.path):
            case "busy":
                waited = duration_text(self._busy_s)
                said = f"is in use by another process, for more than {waited} now; try again when that is done"
            case "damaged":
                said = (
                    f"is damaged ({error}); move it away, and `darkroom models scan FOLDER` scans your folders "
                    f"again and `darkroom models scan {self.path.parent / 'models'}` the downloads: no model is lost"
                )
            case "full":
                return RegistryNotWritable(self._says(_IS_FULL))
            case "read-only":
                return RegistryNotWritable(self._says(_CANNOT_BE_WRITTEN))
            case "other":
                said = f"cannot be used ({error})"
        return RegistryError(self._says(said))

    def _says(self, said: str) -> str:
        return f"registry {self.path}: {said}"


_ELSEWHERE = "let DARKROOM_HOME name a folder on a disk of this machine"
_CANNOT_BE_WRITTEN = "cannot be written; make it writable, or let DARKROOM_HOME name another folder"
_IS_FULL = (
    "cannot be written: no space left on its disk; make room there, or delete downloads with: darkroom models prune "
    "--max-gb N"
)
