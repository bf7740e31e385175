"""Thumbnails of pictures, kept in the user's cache folder under the hash of the file that each was made of."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from jobs.archive.pictures import as_webp, read_picture, reduced
from pipeline.storage.user_folders import cache_folder, make_folder

SIZES = (256, 512)
"""Pixels of the longer side of thumbnails."""

_SHA256 = re.compile("[0-9a-f]{64}")

_decoding = threading.BoundedSemaphore(max(1, (os.cpu_count() or 2) - 1))
"""A picture of 1024 x 1024 takes 40 ms of a processor: the others of the machine belong to a run."""


def thumbnail(output_dir: Path, path: str, file_sha256: str, size: int) -> bytes:
    """A small WebP of a picture; it is made when it is asked for first. Raises `ReadError` as `read_picture`."""
    kept = _place(file_sha256, size)
    if kept is not None:
        with suppress(OSError):
            return kept.read_bytes()
    with _decoding:
        content, _ = read_picture(output_dir, path)
        small = as_webp(reduced(content, (size, size)))
    if kept is not None and hashlib.sha256(content).hexdigest() == file_sha256:  # else it would be found for another
        _keep(kept, small)
    return small


def _place(file_sha256: str, size: int) -> Path | None:
    if not _SHA256.fullmatch(file_sha256):
        return None
    return cache_folder() / "gallery" / "thumbnails" / file_sha256[:2] / f"{file_sha256}-{size}.webp"


def _keep(place: Path, content: bytes) -> None:
    """Keep a thumbnail, whole or not at all; where that cannot be, it is made again the next time."""
    with suppress(OSError):
        make_folder(place.parent, cache_folder())
        fd, temporary = tempfile.mkstemp(prefix=".", dir=place.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
            Path(temporary).replace(place)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
