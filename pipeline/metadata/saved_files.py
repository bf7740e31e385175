"""Writes images and their sidecars to the disk, never over an existing file; and opens them."""

from __future__ import annotations

import contextlib
import errno
import io
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from pipeline.errors import DiskFull
from pipeline.storage.durable import NO_SPACE, publish_new, temporary_file

_COUNTED_NAMES = 999


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes; a pipe or a device, whose reading could block for ever, is refused.

    Raises `OSError`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.open("rb")


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
    temporaries: list[Path] = []
    try:
        with _full_disk_in_words(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporaries.append(_written(target, data))
            if sidecar is not None:
                temporaries.append(_written(target.with_suffix(".json"), sidecar))
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


def _written(path: Path, data: bytes) -> Path:
    with temporary_file(path) as (temporary, file):
        file.write(data)
    return temporary


def _place_together(target: Path, image: Path, sidecar: Path | None = None) -> Path:
    if sidecar is not None:
        publish_new(sidecar, target.with_suffix(".json"))
    try:
        publish_new(image, target)
    except BaseException:
        if sidecar is not None:  # back under its temporary name, ready for the next attempt
            target.with_suffix(".json").replace(sidecar)
        raise
    return target


@contextlib.contextmanager
def _full_disk_in_words(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(f"no space left on the disk of {folder}; free some and run the same command") from error
        raise
