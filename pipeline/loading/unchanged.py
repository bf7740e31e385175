"""Checks that weights are still those that a plan identified by hash: when they are read, and while they are mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import WeightsChanged
from pipeline.registry.resolve import resolve
from pipeline.request import MemorySettings, ModelSettings
from pipeline.storage.file_state import FileStates, state_of
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.hashes import content_hash
from pipeline.weights.headers.base import WEIGHTS
from pipeline.weights.model_files import ModelFiles

_CHANGED = "changed since this was planned; run the same command again, which plans with what is there now"


def planned_files(settings: ModelSettings, memory: MemorySettings, files: ModelFiles) -> FileStates:
    """The files that loading reads, each with its size, time and inode.

    Raises `WeightsChanged` unless their content has the hashes that the settings name. Only what was touched since it
    was hashed is hashed again.
    """
    states: FileStates = {}
    for label, place, parts, planned in _contents(settings, memory, files):
        states |= {file: _state(file) for file in parts}
        try:
            same = content_hash(place, parts) == planned
        except OSError:
            same = False
        if not same:
            raise WeightsChanged(f"{label} has {_CHANGED}")
    return states


def check_untouched(states: FileStates, model: str) -> None:
    """Raise `WeightsChanged` if a file has changed since `planned_files`, so that another one may have been read."""
    for file, state in states.items():
        if _state(file) != state:
            raise WeightsChanged(f"model {model}: {file.parent.name}/{file.name} has {_CHANGED}")


def was_written_over(states: FileStates) -> bool:
    """Whether files were overwritten in place: then their memory-mapped weights are no longer those that were loaded.

    A file that took the place of another leaves what is mapped of that one as it was.
    """
    for file, state in states.items():
        now = _state(file) if file.suffix.lower() in WEIGHTS else None
        if now is not None and state is not None and now != state and now[-1] == state[-1]:
            return True
    return False


def _contents(
    settings: ModelSettings, memory: MemorySettings, files: ModelFiles
) -> Iterator[tuple[str, Path, tuple[Path, ...], str | None]]:
    """What is read: what to call it, where it lies, the files that decide pictures, the hash that was planned with."""
    yield f"model {settings.name}", files.path, files.files, settings.sha256
    if settings.config_source:
        config = resolve(settings.config_source)
        yield f"model {settings.name}: its model.config", config, files.files[1:], settings.config_sha256
    if settings.vae_source:
        vae = resolve(settings.vae_source)
        yield f"vae {settings.vae}", vae, inspect_file(vae).files, settings.vae_sha256
    if memory.uses("tiny_vae"):
        tiny = resolve(memory.tiny_vae_source or "")
        yield f"tiny VAE {tiny.name}", tiny, inspect_file(tiny).files, memory.tiny_vae_sha256


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        return state_of(file.stat())
    except OSError:
        return None
