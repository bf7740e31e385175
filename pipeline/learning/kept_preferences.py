"""The preferences that plans have used, each kept under its hash, so that an old plan can be explained."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pipeline.errors import ReadError
from pipeline.learning.preferences import Preferences
from pipeline.registry.store_folders import data_folder
from pipeline.storage.durable import write_whole
from pipeline.storage.user_folders import make_folder

_HASH = re.compile(r"[0-9a-f]{64}")


def keep(preferences: Preferences) -> Path:
    """Write preferences into the user's data folder, some kilobytes, unless they are there. Raises OSError."""
    path = _place(preferences.hash)
    if not path.exists():
        make_folder(path.parent, data_folder())
        write_whole(path, preferences.to_json().encode())
    return path


def kept(hash: str) -> Preferences:
    """The preferences of this hash. Raises `ReadError` where they are not kept here, or not what was written."""
    if not _HASH.fullmatch(hash):
        raise ReadError(f"{hash!r:.80}: no hash of preferences; expected 64 hex digits")
    path = _place(hash)
    try:
        content = path.read_bytes()
    except OSError:
        raise ReadError(f"{path}: not here; these preferences were learned on another machine, or deleted") from None
    if hashlib.sha256(content).hexdigest() != hash:
        raise ReadError(f"{path}: damaged; delete it, and it is written again when a plan uses the same ratings")
    return Preferences.from_json(content)


def _place(hash: str) -> Path:
    return data_folder() / "preferences" / f"{hash}.json"
