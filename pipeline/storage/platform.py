"""Differences between operating systems in file operations and process groups; locks are in `locks`.

Linux is tried; macOS has the same calls. What is for Windows is written from the documentation of Python and of Win32,
and was never run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path

if sys.platform == "win32":
    import _winapi
    import msvcrt

    _CREATE_NEW, _OPEN_ALWAYS, _NORMAL = 1, 4, 0x80
    _SHARE_READ_WRITE_DELETE = 1 | 2 | 4

    def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
        """A descriptor as `os.open` gives it, of a file that can be renamed and deleted while it is open.

        `os.open` itself does not let others delete, and changes line ends; `mode` has no meaning here.
        """
        access = _winapi.GENERIC_READ | (_winapi.GENERIC_WRITE if flags & (os.O_WRONLY | os.O_RDWR) else 0)
        create = _OPEN_ALWAYS if flags & os.O_CREAT else _winapi.OPEN_EXISTING
        if flags & os.O_EXCL:
            create = _CREATE_NEW
        handle = _winapi.CreateFile(str(path), access, _SHARE_READ_WRITE_DELETE, 0, create, _NORMAL, 0)
        return msvcrt.open_osfhandle(handle, os.O_BINARY | os.O_NOINHERIT | flags & os.O_APPEND)

    def rename_new(source: Path, target: Path) -> None:
        """Rename a file; raises `FileExistsError` when the new name is taken."""
        source.rename(target)

    def sync_folder(folder: Path) -> None:
        """Nothing: folders cannot be opened, and NTFS keeps a journal of names."""

    def will_read_in_order(fd: int) -> None:
        """Nothing: a file is opened for that, not told later."""

    def kill_group(leader: int) -> None:
        """End a process that was started in a session of its own; what it has started lives on, without a group."""
        with contextlib.suppress(OSError):
            os.kill(leader, signal.SIGTERM)  # TerminateProcess

else:
    _NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

    def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
        """A descriptor as `os.open` gives it, of a file that can be renamed and deleted while it is open."""
        return os.open(path, flags, mode)

    def rename_new(source: Path, target: Path) -> None:
        """Rename a file; raises `FileExistsError` when the new name is taken."""
        try:
            # A hard link is the only rename that fails, atomically, when the new name is taken (POSIX.1-2024, link).
            os.link(source, target)
        except OSError as error:
            if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
                raise
        else:
            source.unlink()
            return
        # FAT, some network and container file systems: reserve the name, then replace our own empty file.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            source.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def sync_folder(folder: Path) -> None:
        """Force the names in a folder to the disk: without it a power cut can take a new one away again."""
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def will_read_in_order(fd: int) -> None:
        """Let the kernel read ahead further; macOS has no such call."""
        if sys.platform == "linux":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def kill_group(leader: int) -> None:
        """End a process that was started in a session of its own, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
