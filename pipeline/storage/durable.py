"""Files that are complete under their name or not there: temporary name, fsync, rename, fsync of folder."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DiskFull, RunStopped


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no reader of the folder picks up: `.NAME.UUID.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def sync_path(path: Path) -> None:
    """Flush a finished file, or the entries of a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, path: Path) -> None:
    """Give a synced temporary file its final name, durably."""
    temporary.rename(path)
    sync_path(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Create or replace `path` as a whole; what fails leaves no trace under the final name."""
    temporary = temporary_name(path)
    with removed_on_error(temporary):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        publish(temporary, path)


def write_all(fd: int, content: bytes) -> None:
    """`os.write` until everything is written; a full disk may take only a part of a write."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def removed_on_error(temporary: Path) -> Iterator[None]:
    """Delete a temporary file when the block fails."""
    try:
        yield
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the system's refusals to write at `place` into what a run stops for.

    Raises `DiskFull` when there is no space or quota left, `RunStopped` for any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space left while writing {place}; everything finished is kept: "
                "free some space and run the same command again"
            ) from error
        raise RunStopped(
            f"cannot write {place}: {error.strerror or error}; "
            "make the folder writable, or choose another with output.dir"
        ) from error
