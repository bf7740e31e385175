"""Reads the layout of Hugging Face's own cache from paths.

models--org--name/blobs/<etag>                      of large files, the etag is the SHA-256
models--org--name/snapshots/<commit>/unet/...       links to blobs
models--org--name/refs/main                         the commit that a branch points to
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.storage.file_state import state_of
from pipeline.storage.foreign_names import fault_of_name

GENERIC = ("diffusion_pytorch_model", "pytorch_lora_weights", "model")
"""File names that say nothing of a model; it is then called like its folder or repository."""

_FOLDER = re.compile(r"models--(?:([A-Za-z0-9][\w.-]*?)--)?([A-Za-z0-9][\w.-]*)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CachedRepository:
    """A place in such a cache. `inside` is its path in the repository, empty for the whole."""

    folder: Path
    name: str
    commit: str
    inside: str

    @property
    def reference(self) -> str:
        """The canonical reference to it."""
        return f"hf:{self.name}@{self.commit}" + (f"/{self.inside}" if self.inside else "")

    @property
    def top(self) -> Path:
        """The folder of the whole repository at this commit."""
        return self.folder / "snapshots" / self.commit

    def branches(self) -> tuple[str, ...]:
        """The branches and tags that pointed to this commit when the cache was last filled."""
        return tuple(path.name for path in self._branch_files() if _first_line(path) == self.commit)

    def branch_states(self) -> list[str]:
        """The file states that change when a branch is fetched again; the files are not opened."""
        return [f"{path.name}\t{state_of(path.stat())}" for path in self._branch_files()]

    def _branch_files(self) -> list[Path]:
        try:
            return sorted(
                path for path in (self.folder / "refs").iterdir() if path.is_file() and _BRANCH.fullmatch(path.name)
            )
        except OSError:
            return []


def cached_repository(path: Path) -> CachedRepository | None:
    """The place in a Hugging Face cache for this path; None for all other paths."""
    parts = path.parts
    for place in range(len(parts) - 3, -1, -1):
        known = _FOLDER.fullmatch(parts[place])
        if known and parts[place + 1] == "snapshots" and _COMMIT.fullmatch(parts[place + 2]):
            inside = "/".join(parts[place + 3 :])
            if inside and fault_of_name(inside):
                return None
            name = f"{known[1]}/{known[2]}" if known[1] else known[2]  # the oldest have no owner
            return CachedRepository(Path(*parts[: place + 1]), name, parts[place + 2], inside)
    return None


def name_in_repository(repository: str, inside: str) -> str:
    """The name of a model in a repository: that of its file or folder, or the repository's where that says nothing."""
    own = PurePosixPath(inside).stem
    return repository.rpartition("/")[2] if own in ("", *GENERIC) else own


def claimed_sha256(path: Path) -> str | None:
    """The hash in the name of a file's blob, as given by the hub; it was not verified."""
    name = path.resolve().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(100).decode("ascii", errors="replace").strip()
    except OSError:
        return ""
