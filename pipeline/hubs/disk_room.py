"""Room for downloads on the store's disk: one measure for plans, dry runs and the downloads themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.hubs.partial_file import partial_path
from pipeline.hubs.remote_models import RemoteFile
from pipeline.registry.content import blob_path, suffix_of
from pipeline.registry.store_folders import store_folder
from pipeline.system.units import size_text

SPARE_BYTES = 64 * 2**20
"""So much of the disk is left to others."""


def free_bytes(folder: Path | None = None) -> int:
    """What downloads may still take of the disk on which a folder is or will be, by default the store."""
    place = folder or store_folder()
    free = shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free
    return max(0, free - SPARE_BYTES)


def to_fetch_bytes(files: Iterable[RemoteFile]) -> int:
    """What is still to come of these, each content once, as far as hubs tell sizes."""
    contents = {file.sha256 or file.git_blob or file.url: file for file in files}
    return sum(map(_rest_bytes, contents.values()))


def no_room(needed_bytes: int, room_bytes: int, folder: Path | None = None) -> str:
    """The end of a line for the user: how much is missing where, and the way out."""
    return (
        f"{size_text(needed_bytes)} are to be fetched and {size_text(room_bytes)} are free for "
        f"{folder or store_folder()}, but for {size_text(SPARE_BYTES)} that stay free; make room there or set "
        "DARKROOM_HOME to another disk"
    )


def _rest_bytes(file: RemoteFile) -> int:
    if file.sha256 is None or file.bytes is None:
        return file.bytes or 0
    left = partial_path(blob_path(file.sha256, suffix_of(file.name)))
    return max(0, file.bytes - (left.stat().st_size if left.is_file() else 0))
