"""Atomic, durable files, complete under their name or absent: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DiskFull, RunStopped
from pipeline.storage.platform import open_file, rename_new, sync_folder

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where there is no space or no quota left."""


def temporary_name(path: Path) -> Path:
    """A name beside `path` that readers of the folder ignore: `.NAME.UUID.tmp`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def temporary_file(path: Path, *, mode: int = 0o666, sync: bool = True) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside its final `path`, to be written in the block and then renamed by `publish` or `publish_new`.

    It is on the disk when the block ends, unless not `sync`, and gone when the block fails. Raises `OSError`.
    """
    temporary = temporary_name(path)
    with (
        removed_on_error(temporary),
        os.fdopen(open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file,
    ):
        yield temporary, file
        if sync:
            file.flush()
            os.fsync(file.fileno())


def write_whole(path: Path, content: bytes, *, mode: int = 0o666, sync: bool = True) -> None:
    """Create or replace `path` atomically; after a failure nothing of the new content is left. Raises `OSError`.

    Without `sync` a power cut may leave it torn: for what can be computed again.
    """
    with temporary_file(path, mode=mode, sync=sync) as (temporary, file):
        file.write(content)
    with removed_on_error(temporary):
        publish(temporary, path, sync=sync)


def publish(temporary: Path, path: Path, *, sync: bool = True) -> None:
    """Rename a temporary file to its final name, replacing an existing file; durably if `sync`."""
    temporary.replace(path)
    if sync:
        sync_folder(path.parent)


def publish_new(temporary: Path, path: Path) -> None:
    """Rename a temporary file to its final name, durably, and never over an existing file.

    Raises `FileExistsError` when the name is taken (the temporary file stays, for the next name), also by a name that
    differs in case alone where the file system does not tell them apart; `OSError`.
    """
    rename_new(temporary, path)
    sync_folder(path.parent)


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
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the system's write errors at `place` into the errors that stop a run.

    Raises `DiskFull` when there is no space or quota left, `RunStopped` for any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(
                f"no space left while writing {place}; everything finished is kept: "
                "free some space and run the same command again"
            ) from error
        raise RunStopped(
            f"cannot write {place}: {error.strerror or error}; "
            "make the folder writable, or choose another with output.dir"
        ) from error
