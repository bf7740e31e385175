"""Darkroom's own folders in the user's home, readable by the user only."""

from __future__ import annotations

from pathlib import Path

import platformdirs

DEFAULT_OUTPUT_DIR = "outputs"
"""Where images go unless the user says otherwise, below the current folder."""


def cache_folder() -> Path:
    """The folder for data that can be computed again; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("darkroom"))


def config_folder() -> Path:
    """The folder of the user's own settings; only the user creates it."""
    return Path(platformdirs.user_config_dir("darkroom"))


def make_folder(folder: Path, root: Path) -> None:
    """Create a folder and, if it is in a `root` that does not exist yet, that one for this user only: mode 0700, as the
    XDG Base Directory Specification asks.

    A root that is there keeps its permissions, and what is made in it follows the umask: so several users can share one
    that was made for them.
    """
    if folder.is_relative_to(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
