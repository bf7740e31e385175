"""The store of downloaded weights: one copy per hash, and folders of links to them.

    models/blobs/ab/abcd....safetensors      a file, named by the SHA-256 of its content
    models/snapshots/<hash>/unet/...         a diffusers folder: links to blobs under the names its author gave

Names that a server gave are only ever used inside a snapshot, and only after `fault_of_name` had a look at them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pipeline.errors import ModelError
from pipeline.registry.store_folders import store_folder
from pipeline.storage.foreign_names import fault_of_name, same_file

SUFFIXES = (".safetensors", ".gguf", ".json", ".txt", ".model", ".jinja")
"""Endings of what the store takes: weights, configurations, vocabularies. No pickles, no code."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def blob_path(sha256: str, suffix: str = ".safetensors") -> Path:
    """The path for the file with this SHA-256. Raises `ModelError` for an invalid hash and other endings."""
    digest = sha256.lower()
    if not _SHA256.fullmatch(digest):
        raise ModelError(f"{sha256[:80]!r}: is no SHA-256; expected 64 digits from 0-9 and a-f")
    if suffix not in SUFFIXES:
        raise ModelError(f"the store takes {', '.join(SUFFIXES)}, not {suffix[:20]!r}")
    return store_folder() / "blobs" / digest[:2] / f"{digest}{suffix}"


def suffix_of(name: str) -> str:
    """The ending under which the store keeps a file of this name. Raises `ModelError` for other endings."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ModelError(f"{name[:80]!r}: the store takes {', '.join(SUFFIXES)} only")
    return suffix


def snapshot(files: Mapping[str, str]) -> Path:
    """A folder with these files as links to their blobs; `files` are SHA-256 by relative name.

    One folder per content, whoever asks: it is made aside and renamed, so it is there whole or not at all. Raises
    `ModelError` for names that must not become paths, and where a blob is missing.
    """
    _check_names(files)
    lines = sorted(f"{sha256.lower()}  {name}\n" for name, sha256 in files.items())
    folder = store_folder() / "snapshots" / hashlib.sha256("".join(lines).encode()).hexdigest()
    if folder.is_dir():
        return folder
    with provisional(files) as aside, suppress(OSError):  # another process was faster; what it made is the same
        aside.rename(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: cannot be made; is the disk writable?")
    return folder


@contextmanager
def provisional(files: Mapping[str, str]) -> Iterator[Path]:
    """Such a folder under a temporary name, deleted after the block unless renamed. Raises as `snapshot` does."""
    _check_names(files)
    aside = store_folder() / "snapshots" / f".{uuid.uuid4().hex}.tmp"
    try:
        for name, sha256 in files.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(blob_path(sha256, suffix_of(name)), target, name)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_owned(path: Path) -> bool:
    """Whether a path is in the store."""
    return path.absolute().is_relative_to(store_folder())


def _check_names(files: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for name in files:
        if fault := fault_of_name(name):
            raise ModelError(f"{name[:80]!r}: {fault}; the file is refused")
        other = seen.setdefault(same_file(name), name)
        if other != name:
            raise ModelError(f"{name!r} and {other!r}: are one file on some systems; they are refused")
    for name in files:
        parents = [str(parent) for parent in PurePosixPath(same_file(name)).parents]
        if any(parent in seen for parent in parents):
            raise ModelError(f"{name!r}: is inside of what is itself a file; it is refused")


def _link(blob: Path, target: Path, name: str) -> None:
    """A hard link if the file system can, else a symbolic one, else a copy."""
    if not blob.is_file():
        raise ModelError(f"{name}: its content is not in the store (any more); run the same command again")
    try:
        target.hardlink_to(blob)
        return
    except OSError:
        pass
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except (OSError, NotImplementedError):
        shutil.copyfile(blob, target)
