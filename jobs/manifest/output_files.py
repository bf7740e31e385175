"""The image files of an output folder: listed, looked up, hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.metadata.naming import OWN_FOLDERS
from pipeline.metadata.saved_files import open_regular

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def iterate_files(output_dir: Path) -> Iterator[Path]:
    """Every file below the folder except those of `manifest/` and `runs/`, in order of folder and name."""
    for folder, folders, names in os.walk(output_dir):
        if Path(folder) == output_dir:
            folders[:] = [name for name in folders if name not in OWN_FOLDERS]
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def is_image(path: Path) -> bool:
    """Whether a file name can be that of a finished image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def name_fault(path: str) -> str | None:
    """Why this path cannot be in a row; None for nearly all."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises `OSError`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ExistingFiles:
    """Says whether images exist; lists each folder once instead of checking each file."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._listed: dict[str, tuple[str, frozenset[str]]] = {}

    def folder_of(self, path: str) -> str | None:
        """The folder of an image, the same string object for the same folder; None if the image does not exist."""
        folder, _, name = path.rpartition("/")
        listed = self._listed.get(folder)
        if listed is None:
            listed = self._listed[folder] = folder, _file_names(self._output_dir / folder)
        return listed[0] if name in listed[1] else None


def _file_names(folder: Path) -> frozenset[str]:
    names = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file() and entry.stat().st_size:
                        names.add(entry.name)
                except FileNotFoundError:  # gone since it was listed; the others are there
                    continue
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return frozenset(names)
