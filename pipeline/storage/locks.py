"""Locks held by the kernel: they end with their process, so that none must ever be deleted by hand.

Linux is tried; macOS has the same calls. The part for Windows is written from the documentation of `msvcrt.locking` and
was never run. There nobody else can read a locked byte, so those far behind the end of our files are taken.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage.platform import open_file

if sys.platform == "win32":
    import msvcrt

    _LAST_BYTE = 2**31 - 1
    """C's `long`, in which the runtime counts."""

    def try_lock(fd: int) -> bool:
        """Take the lock on an open file as a whole; False when somebody else has it."""
        return try_lock_byte(fd, _LAST_BYTE)

    def lock(fd: int) -> None:
        """Take the lock on an open file as a whole, however long that takes."""
        while not try_lock(fd):
            time.sleep(0.05)

    def try_lock_byte(fd: int, offset: int) -> bool:
        """Take the lock on one byte, which need not exist; False when another process has it."""
        try:
            _locking(fd, msvcrt.LK_NBLCK, offset)
        except PermissionError:
            return False
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Let go of one byte."""
        _locking(fd, msvcrt.LK_UNLCK, offset)

    def _locking(fd: int, how: int, offset: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, offset & _LAST_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, how, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)

else:
    import fcntl

    def try_lock(fd: int) -> bool:
        """Take the lock on an open file as a whole; False when somebody else has it. Raises `OSError`."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(fd: int) -> None:
        """Take the lock on an open file as a whole, however long that takes. Raises `OSError`."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def try_lock_byte(fd: int, offset: int) -> bool:
        """Take the lock on one byte, which need not exist; False when another process has it.

        POSIX: closing ANY descriptor of the file drops all of the process's locks on bytes of it, and a process never
        conflicts with itself.
        """
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows either
            return False
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Let go of one byte."""
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file for the block; yields False when another process has it and `wait` is False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        if wait:
            lock(fd)
        yield wait or try_lock(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def taken_from_the_dead(path: Path) -> Iterator[bool]:
    """Lock a journal whose owner has died; yields False if the owner lives or has just sealed it."""
    try:
        fd = open_file(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield try_lock(fd) and os.fstat(fd).st_nlink > 0
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether a process has locked a file; False for one that cannot be opened."""
    try:
        fd = open_file(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(fd)
    except OSError:
        return True
    finally:
        os.close(fd)
