"""What a set of weights is, independent of where it lies: hashes of content, remembered per file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import platformdirs


def folder_hash(root: Path, files: Iterable[Path]) -> str:
    """Merkle hash (hex) of a model folder: SHA-256 over sorted `<sha256>  <relative path>` lines of its files.

    Only files that decide pictures are passed in, so a README or a second precision changes nothing.
    """
    hashes = file_hashes(list(files))
    lines = sorted(f"{digest}  {path.relative_to(root).as_posix()}\n" for path, digest in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_hashes(paths: list[Path]) -> dict[Path, str]:
    """SHA-256 (hex) of each file; remembered by path, size, modification time and inode."""
    known: dict[Path, str] = {}
    cache = cache_file()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(cache, timeout=10)
    except (OSError, sqlite3.Error):  # a read-only home costs time, not the run
        return {path: _hash_file(path) for path in paths}
    with closing(connection), connection:
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files "
                "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT)"
            )
            for path in paths:
                known[path] = _cached_hash(connection, path)
        except sqlite3.Error:  # locked for long, damaged or on a full disk
            return {path: known.get(path) or _hash_file(path) for path in paths}
    return known


def find_by_hash(model_sha256: str, candidates: Iterable[Path]) -> Path | None:
    """The first of some model folders whose `folder_hash` is the given one; unsound folders are passed over."""
    from pipeline.errors import ModelError
    from pipeline.models.inspection import inspect_folder

    for folder in candidates:
        try:
            if folder_hash(folder, inspect_folder(folder).files) == model_sha256:
                return folder
        except (ModelError, OSError):
            continue
    return None


def known_folders(marker: str = "model_index.json") -> list[Path]:
    """Folders that were hashed on this machine before and are still there, known by a file that each must have."""
    try:
        with closing(sqlite3.connect(f"file:{cache_file()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT path FROM files WHERE path LIKE ?", (f"%/{marker}",)).fetchall()
    except sqlite3.Error:
        return []
    return [Path(path).parent for (path,) in rows if Path(path).exists()]


def cache_file() -> Path:
    """Where hashes of model files are remembered: in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("darkroom")) / "file-hashes.sqlite"


def _cached_hash(connection: sqlite3.Connection, path: Path) -> str:
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    row = connection.execute(
        "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?", key
    ).fetchone()
    if row:
        return str(row[0])
    digest = _hash_file(path)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (*key, digest))
    return digest


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
