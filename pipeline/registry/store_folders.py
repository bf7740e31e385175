"""The folders of the registry and of downloaded models."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """The folder that `DARKROOM_HOME` names (`~` is understood), else the user's data folder; may not exist yet."""
    chosen = os.environ.get("DARKROOM_HOME")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("darkroom"))
    return folder.absolute()


def store_folder() -> Path:
    """The folder of downloaded weights, by content."""
    return data_folder() / "models"


def registry_file() -> Path:
    """The registry's SQLite file."""
    return data_folder() / "registry.sqlite"
