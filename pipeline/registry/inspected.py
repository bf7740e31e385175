"""Inspects a file or folder for the registry, from headers and small files only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.registry.records import KINDS, StoredKind

if TYPE_CHECKING:
    from pipeline.weights.headers.base import WeightsHeader
    from pipeline.weights.model_files import FileFacts


@dataclass(frozen=True, slots=True)
class Look:
    """Kind, family and precision as far as headers tell; `files` are those that pictures depend on."""

    kind: StoredKind
    family: str | None
    precision: str | None
    files: tuple[Path, ...]


def look_at(path: Path, *, configuration: bool = False) -> Look:
    """Inspect a weights file, a diffusers folder or a component's folder.

    `configuration`: a diffusers folder without its weights. Raises `ModelError` for what is damaged, refused, of no
    known kind, or of a kind that is nothing by itself.
    """
    from pipeline.weights.folder_inspection import inspect_folder, read_json
    from pipeline.weights.inspection import inspect_file, inspect_model

    if configuration:
        without = inspect_folder(path, supplied=read_json(path / "model_index.json", "not a diffusers folder"))
        return Look("checkpoint", without.family, None, without.files)
    if (path / "model_index.json").is_file():
        model = inspect_model(path)
        denoiser = model.component(model.denoiser)
        precision = model.quantization or (denoiser.dtype if denoiser else None)
        return Look("checkpoint", model.family, precision, model.files)
    return _as_stored(inspect_file(path))


def look_at_header(path: Path, header: WeightsHeader, configuration: Mapping[str, Any] | None = None) -> Look:
    """Inspect weights of which only the header is available; those of a component have a configuration beside them.

    Raises `ModelError`, which calls them by the `path` at which they will lie.
    """
    from pipeline.weights.file_inspection import inspect_header

    return _as_stored(inspect_header(path, header, configuration))


def look_at_shards(folder: Path, headers: Mapping[str, WeightsHeader]) -> Look:
    """Inspect a component's folder that has its small files, but of its weights only the headers."""
    from pipeline.weights.file_inspection import inspect_shards

    return _as_stored(inspect_shards(folder, headers))


def _as_stored(facts: FileFacts) -> Look:
    kind = "checkpoint" if facts.kind == "denoiser" else facts.kind
    if kind == "text_encoder" and "Vision" in (facts.class_name or ""):
        kind = "ip_adapter"  # the image encoder that goes with some
    known = next((one for one in KINDS if one == kind), None)
    if known is None:
        raise ModelError(
            f"{facts.path.name}: is {facts.label}, a {kind.replace('_', ' ')}, which is not used by itself"
        )
    return Look(known, facts.family, facts.quantization or facts.dtype, facts.files)
