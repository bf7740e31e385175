"""SQLite files: opening, errors in words, and small caches that can be deleted at any time."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.storage.user_folders import cache_folder, make_folder

Access = Literal["write", "mode=ro", "immutable=1"]
"""`mode=ro` reads beside writers, `immutable=1` a file of which nobody can be writing (sqlite.org/uri.html)."""

Fault = Literal["busy", "damaged", "read-only", "full", "other"]
Values = Sequence[str | int | float | bytes]

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "lustre", "gpfs", "beegfs", "beegfs_nodev", "pvfs2",
     "orangefs", "glusterfs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs",
     "fuse.gcsfuse", "fuse.davfs", "davfs"}
)  # fmt: skip
"""File systems, by Linux's names, whose locks and shared memory do not hold between machines, as SQLite needs them."""

_LEAST_FREE_BYTES = 64 * 2**10
"""The file of shared memory takes half of it."""

_MOUNTS = Path("/proc/self/mounts")


def connect(path: Path, access: Access = "write", *, busy_s: float) -> sqlite3.Connection:
    """Open a file; waits up to `busy_s` for other processes' locks. Transactions must be begun explicitly."""
    place = str(path) if access == "write" else f"{path.absolute().as_uri()}?{access}"
    return sqlite3.connect(place, uri=access != "write", timeout=busy_s, isolation_level=None)


def write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """Let readers and a writer not wait for each other; SQLite's own waiting does not cover this switch."""
    end = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def fault_of(error: sqlite3.Error, path: Path) -> Fault:
    """What is wrong with the file at `path`.

    SQLite says of some writes that the disk is full, and of others only that they failed.
    """
    code = int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF  # the primary one; faults of sqlite3's own have none
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "busy"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "damaged"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "read-only"
    failed_for_room = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < _LEAST_FREE_BYTES
    return "full" if code == sqlite3.SQLITE_FULL or failed_for_room else "other"


def network_disk(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of network file system of a path; None for a local disk, or if that cannot be told.

    `mounts` is the kernel's list, which only Linux has.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, kind = path.resolve(), -1, ""
    for line in lines:
        _, point, name, *_ = [*line.split(" "), "", "", ""]
        where = Path(point.replace("\\040", " ").replace("\\011", "\t"))
        if real.is_relative_to(where) and len(where.parts) >= best:  # a later mount hides an earlier one
            best, kind = len(where.parts), name
    return kind if kind in NETWORK else None


class CacheFile:
    """Tables of data that can be computed again, in one file that can be deleted at any time.

    Where the file is missing, in use for long, damaged or cannot be written, nothing is known and nothing kept; no
    error is raised. A damaged file is replaced by a new one with the next change. The disk is not waited for: what a
    process has kept outlives the process, but perhaps not a power cut.
    """

    def __init__(self, path: Path | None, *tables: str, root: Path | None = None, busy_s: float = 10.0) -> None:
        """`path` is by default the file of what was learnt about this machine; `root` is the folder of the user that it
        is in, by default the cache folder; `tables` are names and columns, as `CREATE TABLE` takes them.
        """
        self._path = path or cache_folder() / "memory.sqlite"
        self._tables = tables
        self._root = root or cache_folder()
        self._busy_s = busy_s
        self._is_damaged = False

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. Values may be of any type, since other versions wrote the file too."""
        try:
            with closing(connect(self._path, "mode=ro", busy_s=self._busy_s)) as connection:
                found = connection.execute(query, values).fetchall()
            self._is_damaged = False  # or another process has replaced it since
            return found
        except (OSError, ValueError, sqlite3.Error) as error:  # not there yet, unreadable; text that is no Unicode
            self._is_damaged = isinstance(error, sqlite3.Error) and fault_of(error, self._path) == "damaged"
            return []

    def change(self, *statements: tuple[str, Values]) -> None:
        """Execute statements with their values, all or none."""
        with suppress(OSError, ValueError, sqlite3.Error):  # it costs what it would have told, not the run
            make_folder(self._path.parent, self._root)
            try:
                if not self._is_damaged:  # a change may not come upon what is
                    self._carry_out(statements)
                    return
            except sqlite3.DatabaseError as error:
                if fault_of(error, self._path) != "damaged":
                    raise
            for name in (self._path.name, f"{self._path.name}-journal"):  # which would be played back into the new one
                self._path.with_name(name).unlink(missing_ok=True)
            self._is_damaged = False
            self._carry_out(statements)

    def _carry_out(self, statements: Sequence[tuple[str, Values]]) -> None:
        with closing(connect(self._path, busy_s=self._busy_s)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN IMMEDIATE")
            for table in self._tables:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            for statement, values in statements:
                connection.execute(statement, values)
