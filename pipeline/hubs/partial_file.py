"""The file that a download is written to: beside its target, locked by one process, never under the target's name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.hubs.waiting import lock_and_tell
from pipeline.registry.leftovers import PARTIAL
from pipeline.registry.store_folders import data_folder
from pipeline.storage.durable import publish, write_all
from pipeline.storage.platform import open_file
from pipeline.storage.user_folders import make_folder

START_BYTES = 32
"""Bytes of the beginning that are kept in memory: enough to tell what a file is."""

_BLOCK_BYTES = 2**20


class PartialFile:
    """`<target>.partial`, with the SHA-256 of its content so far. It survives its process and can be resumed."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.restart(os.fstat(fd).st_size)

    def restart(self, keep: int = 0) -> None:
        """Drop everything after the first `keep` bytes, and hash those."""
        os.ftruncate(self._fd, keep)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size, self.start = 0, b""
        self._digest = hashlib.sha256()
        while block := os.read(self._fd, _BLOCK_BYTES):
            self._count(block)

    def append(self, data: bytes) -> None:
        """Write at the end. Raises `OSError`; what was written of it then counts only after opening again."""
        write_all(self._fd, data)
        self._count(data)

    def sha256(self) -> str:
        """The hash of the content so far, as 64 hex digits."""
        return self._digest.hexdigest()

    def becomes(self, target: Path) -> None:
        """Give the file the target's name, durably: forced to the disk before and after."""
        os.fsync(self._fd)
        publish(self.path, target)

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        if len(self.start) < START_BYTES:
            self.start += data[: START_BYTES - len(self.start)]


def partial_path(target: Path) -> Path:
    """The path of the partial file of a target."""
    return target.with_name(f"{target.name}{PARTIAL}")


@contextmanager
def held_partial(target: Path, waiting: Callable[[], None]) -> Iterator[PartialFile | None]:
    """Open the target's partial file with this process as its only writer; None if the target exists.

    While another process is at it, this one waits, and then finds the target or what the other has left; `waiting` is
    called if that takes long. The lock is the kernel's and on the file itself, so it ends with its process and leaves
    nothing behind. Raises `OSError`.
    """
    path = partial_path(target)
    make_folder(target.parent, data_folder())
    fd = _locked(target, path, waiting)
    if fd is None:
        yield None
        return
    try:
        partial = PartialFile(path, fd)
        yield partial
    finally:
        # Only a file that can be resumed stays.
        if os.fstat(fd).st_size == 0 and _is_at(path, fd):
            path.unlink()
        os.close(fd)


def _locked(target: Path, path: Path, waiting: Callable[[], None]) -> int | None:
    while not target.exists():
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            lock_and_tell(fd, waiting)
        except BaseException:
            os.close(fd)
            raise
        # Who held it before may have given it the target's name or thrown it away.
        if _is_at(path, fd):
            return fd
        os.close(fd)
    return None


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
