"""The registry's file: opened so that several processes can use it, brought up to date, its faults put into words."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import ModelError
from pipeline.registry.migrations import MIGRATIONS
from pipeline.registry.store_folders import data_folder, network_disk, registry_file
from pipeline.storage.user_folders import make_folder
from pipeline.system.units import duration_text

BUSY_S = 10.0
"""So long a process waits for another one that is writing; each write takes milliseconds."""

_READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RegistryError(ModelError):
    """The registry cannot be opened, read or written; the message says why and what to do."""


class RegistryNotWritable(RegistryError):
    """The registry can be read at most: its disk is read-only or full."""


class Registry:
    """The registry, open. A context manager, for one thread; other threads and processes open it too.

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a query finds. Raises `RegistryError`."""
        with self._faults_in_words():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of what is done in it or nothing, and nobody else writes meanwhile. May be nested.

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
                self._says(f"lies on a network disk ({kind}), where several machines would damage it; {_ELSEWHERE}")
            )
        try:
            make_folder(self.path.parent, data_folder())
        except OSError as error:
            if error.errno in (*_NOT_OURS, *_FULL):
                return self._opened_to_read(_IS_FULL if error.errno in _FULL else _CANNOT_BE_WRITTEN)
            raise RegistryError(self._says(f"its folder cannot be made ({error.strerror}); {_ELSEWHERE}")) from None
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
            self._prepared(connection)
            if not os.access(self.path, os.W_OK):
                self._not_writable = _CANNOT_BE_WRITTEN
            return connection
        except sqlite3.Error as error:
            if connection:
                connection.close()
            if self._is_full(error):
                return self._opened_on_full_disk()
            if _code(error) in _READ_ONLY and not self.path.is_dir():
                return self._opened_to_read(_CANNOT_BE_WRITTEN)
            raise self._in_words(error) from None
        except RegistryError:
            if connection:
                connection.close()
            raise

    def _opened_on_full_disk(self) -> sqlite3.Connection:
        """Without the file of shared memory, for which there is no room: this process alone has it open meanwhile.

        SQLite keeps that memory to itself where the lock is exclusive (sqlite.org/wal.html, section 8), and writes
        nothing before a transaction ends; what removes files in it has made the room by then.
        """
        if not self.path.stat().st_size:  # there was no room for its tables
            return self._opened_to_read(_IS_FULL)
        connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._prepared(connection)
            return connection
        except sqlite3.Error as error:
            connection.close()
            raise self._in_words(error) from None
        except RegistryError:
            connection.close()
            raise

    def _opened_to_read(self, why: str) -> sqlite3.Connection:
        """As it is on a read-only disk: with what other processes have not yet merged if possible, else without.

        `why` is what is said of writing.
        """
        self._not_writable = why
        if not self.path.exists() or not self.path.stat().st_size:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self._prepared(connection)
            return connection
        fault: RegistryError | None = None
        for how in ("mode=ro", "immutable=1"):
            aside: sqlite3.Connection | None = None
            try:
                aside = sqlite3.connect(
                    f"{self.path.as_uri()}?{how}", uri=True, timeout=self._busy_s, isolation_level=None
                )
                self._check_version(aside, exactly=True)
                aside.row_factory = sqlite3.Row
                return aside
            except sqlite3.Error as error:
                fault = self._in_words(error)
            except RegistryError as error:
                fault = error
            if aside:
                aside.close()
        raise fault or RegistryError(self._says("cannot be read"))

    def _prepared(self, connection: sqlite3.Connection) -> None:
        """Bring the tables up to date: once, whoever comes first."""
        connection.row_factory = sqlite3.Row
        if self._check_version(connection) < len(MIGRATIONS):
            _write_ahead(connection, self._busy_s)
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
        code = _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            waited = duration_text(self._busy_s)
            said = f"is in use by another process, for more than {waited} now; try again when that is done"
        elif code in _DAMAGED:
            said = (
                f"is damaged ({error}); move it away, and `darkroom models scan FOLDER` takes your folders in again "
                f"and `darkroom models scan {self.path.parent / 'models'}` what was fetched: no model is lost"
            )
        elif code in _READ_ONLY or self._is_full(error):
            return RegistryNotWritable(self._says(_IS_FULL if self._is_full(error) else _CANNOT_BE_WRITTEN))
        else:
            said = f"cannot be used ({error})"
        return RegistryError(self._says(said))

    def _is_full(self, error: sqlite3.Error) -> bool:
        """Whether there is no room on its disk: SQLite says so of some writes, and of others only that they failed."""
        code = _code(error)
        if code != sqlite3.SQLITE_IOERR:
            return code == sqlite3.SQLITE_FULL
        return shutil.disk_usage(self.path.parent).free < _LEAST_FREE_BYTES

    def _says(self, said: str) -> str:
        return f"registry {self.path}: {said}"


_ELSEWHERE = "let DARKROOM_HOME name a folder on a disk of this machine"
_CANNOT_BE_WRITTEN = "cannot be written; make it writable, or let DARKROOM_HOME name another folder"
_IS_FULL = (
    "cannot be written: no space left on its disk; make room there, of what was fetched with: darkroom models prune "
    "--max-gb N"
)
_LEAST_FREE_BYTES = 64 * 2**10
"""The file of shared memory takes half of it."""


def _write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """Readers and a writer do not wait for each other; SQLite's own waiting does not cover this switch."""
    end = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for faults that are not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
