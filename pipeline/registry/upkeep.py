"""Maintains the registry and the store: hashes, verification, removal, pruning of the least recently used."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from pipeline.registry.content import blob_path, is_owned
from pipeline.registry.database import Registry
from pipeline.registry.leftovers import PARTIAL, Leftover, is_fetching, leftovers, remove_leftovers
from pipeline.registry.notes import remove_note
from pipeline.registry.queries import downloaded_bytes, list_models
from pipeline.registry.records import StoredFile, StoredModel, now
from pipeline.registry.storing import files_of, note_hashes
from pipeline.weights.hashes import file_hash, tensor_hash

State = Literal["ok", "noted", "changed", "missing", "unreadable"]

Progress = Callable[[StoredFile], None]
"""Called with each file before it is read."""

TOUCHED_ANEW_S = 3_600
"""A use is noted once an hour at most: what it is for, the order of removal, needs no more."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One file after verification. `noted`: it had no hash to compare with, and has one now."""

    model: StoredModel
    file: StoredFile
    state: State
    found_sha256: str | None = None


def hashed(registry: Registry, model: StoredModel) -> list[StoredFile]:
    """The files of a model with their hashes; unknown hashes are computed, which reads whole files.

    A model in one safetensors file gets its `tensor_hash` too. Raises `OSError` for what is gone, `RegistryError`.
    """
    files = []
    known = files_of(registry, model)
    for file in known:
        alone = len(known) == 1 and file.path.suffix.lower() == ".safetensors"
        lacks_tensors = alone and file.tensor_hash is None
        if file.sha256 is None or lacks_tensors or not (file.owned or file.unchanged()):
            file = replace(
                file.now(),
                sha256=file.sha256 if file.owned else file_hash(file.path),
                tensor_hash=tensor_hash(file.path) if alone else None,
            )
            note_hashes(registry, file)
        files.append(file)
    return files


def verify(
    registry: Registry, models: Iterable[StoredModel] | None = None, progress: Progress | None = None
) -> Iterator[Checked]:
    """Read every file of the given models, by default of all, and compare it with its hash. Raises `RegistryError`.

    What has no hash yet gets one. Files that the user has replaced since they were hashed count as changed; a scan of
    their folder takes them for new.
    """
    for model in list_models(registry) if models is None else models:
        for file in files_of(registry, model):
            if progress:
                progress(file)
            yield _checked(registry, model, file)


def touch(registry: Registry, model: StoredModel) -> None:
    """Record that a model is used now. Raises `RegistryError`."""
    time_now = now()
    if model.last_used and _seconds_between(model.last_used, time_now) < TOUCHED_ANEW_S:
        return
    with registry.changing() as connection:
        connection.execute("UPDATE models SET last_used = ? WHERE id = ?", (time_now, model.id))


def remove(registry: Registry, model: StoredModel) -> int:
    """Remove a model from the registry, and delete the files that Darkroom downloaded for it and for no other.

    Files in the user's own folders stay; the next scan finds them again. Returns the bytes that became free. Raises
    `RegistryError`, and `OSError` where a file cannot be removed; the model is then still known.
    """
    with registry.changing() as connection:
        files = files_of(registry, model)
        connection.execute("DELETE FROM models WHERE id = ?", (model.id,))
        connection.execute("DELETE FROM scanned WHERE path = ?", (str(model.path),))
        if not any(file.owned for file in files):
            return 0
        kept = {row["sha256"] for row in registry.rows("SELECT DISTINCT sha256 FROM files WHERE owned")}
        shared = registry.rows("SELECT 1 FROM models WHERE path = ?", (str(model.path),))
        if not shared and model.path.is_dir() and is_owned(model.path):
            shutil.rmtree(model.path)
        freed = 0
        for file in files:
            if file.owned and file.sha256 and file.sha256 not in kept:
                blob_path(file.sha256, file.path.suffix.lower()).unlink(missing_ok=True)
                freed += file.bytes
                kept.add(file.sha256)
        remove_note(model)
    return freed


def least_used(registry: Registry, max_bytes: int) -> list[StoredModel]:
    """Downloaded models to remove for the rest to fit into `max_bytes`, the longest unused first.

    What was never used counts from when it was fetched. Raises `RegistryError`.
    """
    fetched = sorted(list_models(registry, downloaded=True), key=lambda model: model.last_used or model.added_at)
    users: dict[str, set[int]] = {}
    sizes: dict[str, int] = {}
    for model in fetched:
        for file in files_of(registry, model):
            if file.owned:
                content = file.sha256 or str(file.path)
                users.setdefault(content, set()).add(model.id)
                sizes[content] = file.bytes
    left, going = sum(sizes.values()), []
    for model in fetched:
        if left <= max_bytes:
            break
        going.append(model)
        for content, of in users.items():
            if model.id in of:
                of.discard(model.id)
                left -= 0 if of else sizes[content]
    return going


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed from the store, and the bytes that became free."""

    models: list[StoredModel]
    leftovers: list[Leftover]
    freed_bytes: int


def prune(registry: Registry, max_bytes: int) -> Pruned:
    """Make the store no larger than this: removes leftovers of downloads first, then the models of `least_used`.

    Of what is left over the old goes in any case, and nothing that a process is fetching. Nothing that was scanned in
    is ever removed. Raises `RegistryError`, `OSError`.
    """
    found = leftovers(registry)
    too_many = downloaded_bytes(registry) + sum(one.bytes for one in found if not one.is_old) - max_bytes
    chosen = []
    busy = is_fetching()
    for one in found:
        is_used = busy and not one.path.name.endswith(PARTIAL)
        if one.is_old or (too_many > 0 and not is_used):
            chosen.append(one)
            too_many -= 0 if one.is_old else one.bytes
    gone = remove_leftovers(registry, chosen)
    left = sum(one.bytes for one in found) - sum(one.bytes for one in gone)
    models = least_used(registry, max(0, max_bytes - left))
    freed = sum(remove(registry, model) for model in models)
    return Pruned(models, gone, freed + sum(one.bytes for one in gone))


def _checked(registry: Registry, model: StoredModel, file: StoredFile) -> Checked:
    try:
        if file.sha256 is None:
            found = file_hash(file.path)
        else:
            with file.path.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        noted = replace(file.now(), sha256=found)
    except FileNotFoundError:
        return Checked(model, file, "missing")
    except OSError:
        return Checked(model, file, "unreadable")
    if file.sha256 not in (None, found):
        return Checked(model, file, "changed", found)
    if noted != file:
        note_hashes(registry, noted)
    return Checked(model, noted, "ok" if file.sha256 else "noted", found)


def _seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
