"""Where Darkroom keeps what it knows and what it has fetched."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """The folder `DARKROOM_HOME` names (`~` is understood), else the user's data folder; it need not exist yet."""
    chosen = os.environ.get("DARKROOM_HOME")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("darkroom"))
    return folder.absolute()


def store_folder() -> Path:
    """Where fetched weights lie, by their content."""
    return data_folder() / "models"


def registry_file() -> Path:
    """The registry: one SQLite file."""
    return data_folder() / "registry.sqlite"
