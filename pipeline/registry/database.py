"""The registry's database: shared by processes, migrated to the current version, with its errors explained."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import ModelError
from pipeline.registry.migrations import MIGRATIONS
from pipeline.registry.store_folders import data_folder, registry_file
from pipeline.storage.sqlite_files import Access, connect, fault_of, network_disk, write_ahead
from pipeline.storage.user_folders import make_folder
from pipeline.system.units import duration_text

BUSY_S = 10.0
"""So long a process waits for another one that is writing; each write takes milliseconds."""

_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            if error.errno in (*_NOT_OURS, *_FULL):
                return self._opened_to_read(_IS_FULL if error.errno in _FULL else _CANNOT_BE_WRITTEN)
            raise RegistryError(self._says(f"its folder cannot be made ({error.strerror}); {_ELSEWHERE}")) from None
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(self.path, busy_s=self._busy_s)
            self._prepared(connection)
            if not os.access(self.path, os.W_OK):
                self._not_writable = _CANNOT_BE_WRITTEN
            return connection
        except sqlite3.Error as error:
            if connection:
                connection.close()
            fault = fault_of(error, self.path)
            if fault == "full":
                return self._opened_on_full_disk()
            if fault == "read-only" and not self.path.is_dir():
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
        connection = connect(self.path, busy_s=self._busy_s)
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
        accesses: tuple[Access, ...] = ("mode=ro", "immutable=1")
        for access in accesses:
            aside: sqlite3.Connection | None = None
            try:
                aside = connect(self.path, access, busy_s=self._busy_s)
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
