"""Finds the known models that have the same content as a file."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.registry.database import Registry
from pipeline.registry.queries import files_by_hash, files_by_tensors
from pipeline.registry.records import StoredFile, StoredModel
from pipeline.registry.storing import MODEL_COLUMNS, file_of, model_of, note_hashes
from pipeline.weights.hashes import file_hash, tensor_hash


@dataclass(frozen=True, slots=True)
class Identified:
    """The hashes of a file, and the models with the same content.

    `same` hold the very file. `same_tensors` hold the same weights under a header with other remarks; only files that
    were hashed before are compared so. Of `claimed` only a file beside them says that they are the same.
    `tensor_hash` is that of safetensors files.
    """

    sha256: str
    tensor_hash: str | None
    same: list[StoredModel]
    same_tensors: list[StoredModel]
    claimed: list[StoredModel]


def identify_file(registry: Registry, path: Path) -> Identified:
    """Hash a file, and known files of the same length that have no hash yet, and compare.

    Raises `ModelError` for what is no file or cannot be read, `RegistryError`.
    """
    if not path.is_file():
        what = "is a folder; expected a file" if path.is_dir() else f"no such file (looked in {Path.cwd()})"
        raise ModelError(f"identify {path}: {what}")
    try:
        sha256 = file_hash(path)
        tensors = tensor_hash(path) if path.suffix.lower() == ".safetensors" else None
        length = path.stat().st_size
    except OSError as error:
        raise ModelError(f"identify {path}: cannot be read ({error.strerror})") from None
    hashed_now = _hashed_of_length(registry, length)
    same = _models_of(
        registry, [*files_by_hash(registry, sha256), *(file for file in hashed_now if file.sha256 == sha256)]
    )
    alike = _models_of(registry, files_by_tensors(registry, tensors)) if tensors else []
    claimed = _models_of(registry, files_by_hash(registry, sha256, claimed=True))
    return Identified(
        sha256,
        tensors,
        same,
        [model for model in alike if model not in same],
        [model for model in claimed if model not in same],
    )


def _hashed_of_length(registry: Registry, length: int) -> list[StoredFile]:
    """The files that could be the same and had no hash yet, with theirs; no other needs to be read."""
    files = []
    for row in registry.rows("SELECT * FROM files WHERE bytes = ? AND sha256 IS NULL", (length,)):
        file = file_of(row)
        with suppress(OSError):  # gone since the scan
            files.append(replace(file.now(), sha256=file_hash(file.path)))
            note_hashes(registry, files[-1])
    return files


def _models_of(registry: Registry, files: Iterable[StoredFile]) -> list[StoredModel]:
    ids = ", ".join(str(file.model_id) for file in files)
    rows = registry.rows(f"SELECT {MODEL_COLUMNS} FROM models WHERE id IN ({ids}) ORDER BY name_key, id")
    return [model_of(row) for row in rows]
