"""Identifies weights by hashes of their content, cached per file, and remembers where content was seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipeline.storage.file_state import state_of
from pipeline.storage.sqlite_files import CacheFile
from pipeline.storage.user_folders import cache_folder

_SHA256, _TENSORS = "files", "tensor_files"
"""Tables of the two kinds of hash that a file has."""

_HASHED_AT_ONCE = 4

_COLUMNS = "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT)"
_TABLES = (
    f"{_SHA256} {_COLUMNS}",
    f"{_TENSORS} {_COLUMNS}",
    "places (sha256 TEXT, path TEXT, PRIMARY KEY (sha256, path))",
)


def content_hash(place: Path, files: Iterable[Path]) -> str:
    """Hash (hex) of a file, or of a folder over its files that pictures depend on."""
    return file_hash(place) if place.is_file() else folder_hash(place, files)


def folder_hash(root: Path, files: Iterable[Path]) -> str:
    """Merkle hash (hex) of a model folder: SHA-256 over sorted `<sha256>  <relative path>` lines of its files.

    Only files that decide pictures are passed in, so a README or a second precision changes nothing.
    """
    hashes = file_hashes(list(files))
    lines = sorted(f"{digest}  {path.relative_to(root).as_posix()}\n" for path, digest in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of one file, cached as in `file_hashes`."""
    return file_hashes([path])[path]


def file_hashes(paths: list[Path]) -> dict[Path, str]:
    """SHA-256 (hex) of each file; cached by path, size, modification time and inode."""
    return _remembered(paths, _SHA256, _hash_file)


def tensor_hash(path: Path) -> str:
    """SHA-256 (hex) over the tensor bytes of a safetensors file, cached likewise.

    Remarks in the header do not change it. Its first 12 digits are the AutoV3 hash of A1111 and Civitai.
    """
    return _remembered([path], _TENSORS, _hash_tensors)[path]


def identified(place: Path, files: Iterable[Path]) -> str:
    """The `content_hash`. Where it lies is remembered, for a picture's record, which names no place."""
    sha256 = content_hash(place, files)
    remember_place(sha256, place)
    return sha256


def remember_place(sha256: str, path: Path) -> None:
    """Remember that the content with this hash is at this path: a file, or a folder with a hash of its own."""
    _cache().change(("INSERT OR REPLACE INTO places VALUES (?, ?)", (sha256, str(path.absolute()))))


def known_places(sha256: str) -> list[Path]:
    """Existing paths where content with this hash was seen, the newest first; it may have changed since."""
    rows = _cache().rows("SELECT path FROM places WHERE sha256 = ? ORDER BY rowid DESC", (sha256,))
    return [Path(path) for (path,) in rows if Path(path).exists()]


def cache_file() -> Path:
    """The file of the hash cache, in the user's cache folder."""
    return cache_folder() / "file-hashes.sqlite"


def _cache() -> CacheFile:
    return CacheFile(cache_file(), *_TABLES)


def _remembered(paths: list[Path], table: str, compute: Callable[[Path], str]) -> dict[Path, str]:
    keys: dict[Path, tuple[str, int, int, int]] = {}
    with suppress(OSError):  # a file that is gone is said below
        keys = {path: _key(path) for path in paths}
    query = f"SELECT path, size, mtime_ns, inode, sha256 FROM {table} WHERE path IN ({', '.join('?' * len(paths))})"
    kept = {tuple(key): str(digest) for *key, digest in _cache().rows(query, [str(path) for path in paths])}
    known = {path: kept[key] for path, key in keys.items() if key in kept}
    computed = _computed([path for path in paths if path not in known], compute)
    insert = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)"
    if computed:
        _cache().change(*((insert, (*keys[path], digest)) for path, digest in computed.items() if path in keys))
    return known | computed


def _computed(paths: list[Path], compute: Callable[[Path], str]) -> dict[Path, str]:
    """Hashes of several files at once: one core hashes 1 to 2 GB/s, which is less than a solid-state disk reads."""
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:
        return dict(zip(paths, threads.map(compute, paths), strict=True))


def _key(path: Path) -> tuple[str, int, int, int]:
    return str(path), *state_of(path.stat())


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_tensors(path: Path) -> str:
    from pipeline.weights.headers.safetensors import read_safetensors

    start = read_safetensors(path).data_start
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()
