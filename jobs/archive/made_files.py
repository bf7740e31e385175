"""Files that a command writes where it is told to: sheets, pages, statistics."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError, ReadError
from pipeline.metadata.reading import read_id
from pipeline.storage.durable import write_whole


def write_made(path: Path, content: bytes) -> None:
    """Write a file whole, and its folder where there is none; over an older one, but never over an image of ours.

    Raises `ConfigError` where that cannot be.
    """
    if not path.name or path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the name of a file")
    if _is_image_of_ours(path):
        raise ConfigError(f"{path}: is an image that Darkroom made; give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


def _is_image_of_ours(path: Path) -> bool:
    try:
        return read_id(path) is not None
    except ReadError:  # it is not there, or no image
        return False
