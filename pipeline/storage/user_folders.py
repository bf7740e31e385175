"""Folders of Darkroom's own in the user's home: what lies there is nobody else's business."""

from __future__ import annotations

from pathlib import Path

import platformdirs

DEFAULT_OUTPUT_DIR = "outputs"
"""Where images go unless the user says otherwise, below the current folder."""


def cache_folder() -> Path:
    """Where is kept what can be computed again; it need not exist yet."""
    return Path(platformdirs.user_cache_dir("darkroom"))


def config_folder() -> Path:
    """Where the user's own settings are; nothing makes it but the user."""
    return Path(platformdirs.user_config_dir("darkroom"))


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder, and if it lies in a `root` that is not there yet, that one for this user alone: mode 0700, as the
    XDG Base Directory Specification asks.

    A root that is there keeps its permissions, and what is made in it follows the umask: so several users can share one
    that was made for them.
    """
    if folder.is_relative_to(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
