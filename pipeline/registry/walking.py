"""Finds models in a folder and its subfolders by names, sizes and times; opens no file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.registry.huggingface_cache import CachedRepository, cached_repository
from pipeline.registry.sidecars import sidecars_of
from pipeline.storage.file_state import state_of
from pipeline.weights.headers.base import PICKLES, WEIGHTS

_COMPONENT = re.compile(r"(diffusion_pytorch_model|model)[.-].*safetensors$")
"""The weights that, beside a config.json, make a folder a component; as `weights_files` has it."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_DECIDING = (".json", ".txt", ".model", ".jinja", *WEIGHTS)
_NO_MODELS = ("datasets--", "spaces--")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A possible model: a weights file, a diffusers folder, or a component's folder.

    `signature` changes with any name, size, time or inode of what belongs to it. `sidecars` lie beside a file, `readme`
    in a folder or at the top of a cached repository. `folders` are those between it and the folder that is scanned.
    `fault` is what can be told without a look inside.
    """

    path: Path
    signature: str
    sidecars: tuple[Path, ...] = ()
    folders: tuple[str, ...] = ()
    repository: CachedRepository | None = None
    fault: str | None = None
    readme: Path | None = None


@dataclass(slots=True)
class Walk:
    """Walks through a folder and its subfolders, links included, each folder once.

    Hidden folders and those in `skipped` are passed over, however one gets there. `unreadable` holds folders that could
    not be listed, and why.
    """

    root: Path
    skipped: tuple[Path, ...] = ()
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def __iter__(self) -> Iterator[FoundModel]:
        for folder in self.skipped:
            self._was_seen(folder)
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            entries = self._entries(folder)
            if entries is None or self._was_seen(folder):
                continue
            inside = [entry for entry in entries if _is_folder(entry)]
            there = {entry.name: entry for entry in entries}
            if "model_index.json" in there:
                yield self._folder(folder, self._below(folder, entries, inside))
                inside = []  # components of this model
                taken: set[str] = set()
            else:
                taken = {name for name in there if _COMPONENT.match(name)} if "config.json" in there else set()
                if taken:
                    yield self._folder(folder, _described("", entries))
            for name, entry in there.items():
                if name not in taken and not _is_folder(entry) and (item := self._file(folder, entry, there)):
                    yield item
            waiting += [Path(one.path) for one in reversed(inside) if not one.name.startswith((".", *_NO_MODELS))]

    def _entries(self, folder: Path) -> list[os.DirEntry[str]] | None:
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append((folder, f"cannot be read ({error.strerror or error})"))
            return None

    def _was_seen(self, folder: Path) -> bool:
        """Whether this folder was already gone through, as happens where links lead in circles."""
        try:
            found = folder.stat()
        except OSError:
            return True
        key = (found.st_dev, found.st_ino)
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _below(
        self, folder: Path, entries: Iterable[os.DirEntry[str]], inside: Iterable[os.DirEntry[str]]
    ) -> list[str]:
        lines = _described("", entries)
        for entry in inside:
            if not entry.name.startswith("."):
                lines += _described(f"{entry.name}/", self._entries(folder / entry.name) or [])
        return lines

    def _folder(self, folder: Path, lines: list[str]) -> FoundModel:
        odd = next((line for line in lines if line.endswith(_ODD)), None)
        fault = f"{odd.partition(_PARTED)[0]} is no regular file" if odd else None
        return self._item(folder, lines, (), fault)

    def _file(self, folder: Path, entry: os.DirEntry[str], there: dict[str, os.DirEntry[str]]) -> FoundModel | None:
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (a Path for each of a million files takes long)
        if suffix not in WEIGHTS and suffix not in PICKLES:
            return None
        path = folder / entry.name
        line = _describe("", entry)
        if line is None:
            return self._item(path, [], (), "is a link that leads nowhere")
        if line.endswith(_ODD):
            return self._item(path, [], (), "is no regular file")
        if _SHARD.search(entry.name):
            return self._item(path, [line], (), "is one part of several, without the folder of a component around it")
        beside = [there[name] for name in sidecars_of(entry.name) if name in there]
        known = [(one, said) for one in beside if (said := _describe("", one)) and not said.endswith(_ODD)]
        lines = [line, *(said for _, said in known)]
        return self._item(path, lines, tuple(Path(one.path) for one, _ in known), None)

    def _item(self, path: Path, lines: list[str], sidecars: tuple[Path, ...], fault: str | None) -> FoundModel:
        try:
            "\n".join([str(path), *lines]).encode()
        except UnicodeEncodeError:
            return FoundModel(path, "", fault="has a name that is not UTF-8, itself or in it; rename that")
        repository = cached_repository(path)
        if repository:
            lines = [*lines, *repository.branch_states()]
        readme, state = _readme(path, repository, fault)
        signature = hashlib.sha256("\n".join([*lines, *state]).encode()).hexdigest()
        folders = path.parent.relative_to(self.root).parts if path != self.root else ()
        return FoundModel(path, signature, sidecars, folders, repository, fault, readme)


_PARTED, _ODD = "\t", "\tnot regular"


def _described(prefix: str, entries: Iterable[os.DirEntry[str]]) -> list[str]:
    """The state of the files that decide what a folder is."""
    lines = (_describe(prefix, entry) for entry in entries if entry.name.lower().endswith(_DECIDING))
    return [line for line in lines if line]


def _describe(prefix: str, entry: os.DirEntry[str]) -> str | None:
    """One file's name and state; None for a folder, and for a link that leads nowhere."""
    try:
        found = entry.stat()
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    state = "\t".join(map(str, state_of(found))) if stat.S_ISREG(found.st_mode) else _ODD[1:]
    return f"{prefix}{entry.name}{_PARTED}{state}"


def _readme(path: Path, repository: CachedRepository | None, fault: str | None) -> tuple[Path | None, list[str]]:
    """The README of a folder, or of the repository of which a cache has this, and its state for the signature."""
    if fault or (repository is None and path.suffix.lower() in (*WEIGHTS, *PICKLES)):
        return None, []
    readme = (repository.top if repository else path) / "README.md"
    try:
        found = readme.stat()
    except OSError:
        return None, []
    if not stat.S_ISREG(found.st_mode):
        return None, []
    return readme, [f"README.md{_PARTED}{state_of(found)}"]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
