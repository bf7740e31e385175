"""Finished bytes onto the disk: a temporary name, fsync, and a final name that never replaces anything; and back."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from pipeline.errors import DiskFull

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_COUNTED_NAMES = 999


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes; a pipe or a device, at which one would wait for ever, is refused.

    Raises `OSError`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.open("rb")


def write_temporary(directory: Path, name: str, data: bytes) -> Path:
    """Write `data` to `.NAME.UUID.tmp` in `directory` (made if need be) and force it to the disk.

    Raises `DiskFull` when there is no space, `OSError` for anything else; no temporary file is left behind
    then.
    """
    temporary = directory / f".{name}.{uuid4()}.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _raise_if_full(error, directory)
        raise
    return temporary


def place(temporary: Path, target: Path) -> Path:
    """Give a temporary file its final name, atomically, and force the folder to the disk. Returns `target`.

    Raises `FileExistsError` when the name is taken (the temporary file stays, for the next name), also by a
    name that differs in case alone where the file system does not tell them apart; `DiskFull`.
    """
    try:
        _link(temporary, target)
    except OSError as error:
        _raise_if_full(error, target.parent)
        raise
    _sync_folder(target.parent)
    return target


def next_free(target: Path, attempt: int) -> Path:
    """The name for the n-th attempt: `cat.png`, `cat-2.png`, `cat-3.png`; at random from the thousandth on,
    so that ten thousand images of one name are not tried in turn.
    """
    if attempt <= 1:
        return target
    ending = str(attempt) if attempt <= _COUNTED_NAMES else uuid4().hex[:8]
    return target.with_name(f"{target.stem}-{ending}{target.suffix}")


def store(
    data: bytes,
    target: Path,
    sidecar: bytes | None = None,
    announce: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write an image, and its sidecar as `<stem>.json`, under `target` or the next free name. Returns the
    image's path.

    `announce` is told each name just before it is tried, for a caller who keeps a journal. The sidecar gets
    its name first: an image without the record that it promises must never be seen. Raises `DiskFull`,
    `OSError`.
    """
    temporaries = [write_temporary(target.parent, target.name, data)]
    try:
        if sidecar is not None:
            temporaries.append(write_temporary(target.parent, f"{target.stem}.json", sidecar))
        attempt = 1
        while True:
            name = next_free(target, attempt)
            announce(name)
            with contextlib.suppress(FileExistsError):
                return _place_together(name, *temporaries)
            attempt += 1
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _place_together(target: Path, image: Path, sidecar: Path | None = None) -> Path:
    if sidecar is None:
        return place(image, target)
    beside = place(sidecar, target.with_suffix(".json"))
    try:
        return place(image, target)
    except BaseException:
        beside.replace(sidecar)  # back under its temporary name, ready for the next attempt
        raise


def _link(temporary: Path, target: Path) -> None:
    """A hard link is the only rename that fails, atomically, when the new name is taken (POSIX.1-2024,
    link).
    """
    try:
        os.link(temporary, target)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
    else:
        temporary.unlink()
        return
    # FAT, some network and container file systems: reserve the name, then replace our own empty file.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        temporary.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Without this a power cut can take the name away again. Windows cannot open folders and needs no such
    call.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_if_full(error: BaseException, directory: Path) -> None:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        raise DiskFull(f"no space left on the disk of {directory}; free some and run the same command") from error
