"""Files in the store that belong to no model: interrupted downloads, and leftovers of processes that died."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.registry.content import SUFFIXES
from pipeline.registry.database import Registry
from pipeline.registry.store_folders import store_folder
from pipeline.storage.locks import is_locked

STRAY_S = 86_400
"""Older leftovers are removed whenever the store is pruned; younger downloads may be resumed, or get their model."""

PARTIAL = ".partial"
"""How the name of a file ends that a download grows in."""

_OURS = re.compile(rf"[0-9a-f]{{64}}({'|'.join(map(re.escape, SUFFIXES))})({re.escape(PARTIAL)})?|\..*\.tmp")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file, or a folder of links. `bytes` are those on the disk, `age_s` the seconds since the last write."""

    path: Path
    bytes: int
    age_s: float

    @property
    def is_old(self) -> bool:
        """Whether it is so old that no process can still need it."""
        return self.age_s > STRAY_S


def leftovers(registry: Registry) -> list[Leftover]:
    """All files that belong to no model, the oldest first. Raises `RegistryError`."""
    hashes = {row["sha256"] for row in registry.rows("SELECT DISTINCT sha256 FROM files WHERE owned")}
    folders = {row["path"] for row in registry.rows("SELECT path FROM models")}
    found = filter(None, map(_seen, _without_model(hashes, folders)))
    return sorted(found, key=lambda leftover: -leftover.age_s)


def remove_leftovers(registry: Registry, chosen: Iterable[Leftover]) -> list[Leftover]:
    """Delete these, except those that a process is fetching or that belong to a model by now; returns the deleted ones.

    Raises `RegistryError`.
    """
    gone = []
    with registry.changing():  # nobody adds a model meanwhile
        still = {leftover.path for leftover in leftovers(registry)}
        for leftover in chosen:
            if leftover.path not in still:
                continue
            if leftover.path.is_dir():
                shutil.rmtree(leftover.path, ignore_errors=True)
            elif not _removed(leftover.path):
                continue
            gone.append(leftover)
    return gone


def is_fetching() -> bool:
    """Whether a process is fetching weights now; what it fetched for the same model before must not be deleted."""
    return any(is_locked(path) for path in (store_folder() / "blobs").glob(f"??/*{PARTIAL}"))


def _without_model(hashes: Collection[str], folders: Collection[str]) -> Iterator[Path]:
    store = store_folder()
    for path in (store / "blobs").glob("??/*"):
        is_blob = not path.name.endswith((PARTIAL, ".tmp"))
        if _OURS.fullmatch(path.name) and not (is_blob and path.stem in hashes):
            yield path
    yield from (path for path in (store / "snapshots").glob("*") if str(path) not in folders)
    yield from (store / "notes").glob(".*.tmp")


def _seen(path: Path) -> Leftover | None:
    """With its size: links share theirs with what they lead to. None where it is gone by now."""
    try:
        stat = path.stat()
        own = [path.lstat()] if path.is_file() else [one.lstat() for one in path.rglob("*") if one.is_file()]
    except OSError:
        return None
    size = sum(one.st_size for one in own if path.is_file() or one.st_nlink == 1)
    return Leftover(path, size, time.time() - max(stat.st_mtime, stat.st_ctime))


def _removed(path: Path) -> bool:
    if path.name.endswith(PARTIAL) and is_locked(path):
        return False
    path.unlink(missing_ok=True)
    return True
