"""Describes a model or a weights file, for people and for programs. Reads headers; weights only to hash them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jobs.terminal import aligned
from pipeline.errors import ModelError
from pipeline.registry.resolve import resolve
from pipeline.system.units import size_text
from pipeline.weights.families import FAMILIES
from pipeline.weights.hashes import file_hash, folder_hash, tensor_hash
from pipeline.weights.inspection import Component, FileFacts, ModelFiles, inspect_file, inspect_model
from pipeline.weights.shipped import SHIPPED

AUTOV3_DIGITS = 12
"""So many digits of the tensor hash other programs show."""

_NUMERIC = (2, 3)
"""Columns of the table of components that hold numbers."""

_MODELS = ("checkpoint", "denoiser")


def inspect(reference: str) -> ModelFiles | FileFacts:
    """Inspect a diffusers folder as a model, anything else as a weights file. Raises `ModelError`."""
    path = resolve(reference)
    if path.is_dir() and not any((path / name).is_file() for name in ("model_index.json", "config.json")):
        raise ModelError(
            f"{path.name}: holds no model; expected a diffusers folder with a model_index.json, the folder of one "
            "component with a config.json, or a file of weights"
        )
    return inspect_model(path) if (path / "model_index.json").is_file() else inspect_file(path)


def hashes(found: ModelFiles | FileFacts) -> dict[str, str]:
    """`sha256` as in records and, for a safetensors file, `tensors_sha256`, which header metadata does not change."""
    path = found.path
    if path.is_dir():
        return {"sha256": folder_hash(path, found.files)}
    known = {"sha256": file_hash(path)}
    if path.suffix.lower() == ".safetensors":
        known["tensors_sha256"] = tensor_hash(path)
    return known


def as_json(found: ModelFiles | FileFacts) -> dict[str, Any]:
    """Every fact by its name; paths relative to the model's folder, sizes in bytes."""
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    if isinstance(found, ModelFiles):
        values["kind"] = "model"
        values["parameters"] = sum(component.parameters for component in found.components)
        values["file_bytes"] = sum(component.file_bytes for component in found.components)
    else:
        values["family"] = found.family
    return {name: _plain(value, found.path) for name, value in sorted(values.items())}


def as_lines(found: ModelFiles | FileFacts) -> list[tuple[str, str]]:
    """Names and values for people, the most important first; unknown values are left out."""
    values = _model(found) if isinstance(found, ModelFiles) else _file(found)
    lines = [(name, value) for name, value in values.items() if value]
    return lines + [("note", note) for note in found.notes]


def component_lines(components: Sequence[Component]) -> list[str]:
    """The components as an aligned table, with its heading; nothing if there are none."""
    if not components:
        return []
    rows = [("component", "class", "parameters", "size", "dtype", "quantisation")]
    rows += [
        (
            component.name,
            component.class_name or "?",
            _count(component.parameters),
            size_text(component.file_bytes),
            component.dtype or "?",
            component.quantization or "",
        )
        for component in components
    ]
    return aligned(rows, _NUMERIC)


def _model(found: ModelFiles) -> dict[str, str]:
    parameters = sum(component.parameters for component in found.components)
    return {
        "model": found.path.name,
        "family": _family(found.label, (found.family,) if found.family else ()),
        "layout": "diffusers folder",
        "pipeline": found.pipeline_class,
        "variant": found.variant or "",
        "precision": _unique(component.dtype for component in found.components),
        "quantisation": found.quantization or "",
        "prediction": _prediction(found.prediction_type, found.zero_snr),
        "guidance": "distilled: a guidance scale changes nothing" if found.guidance_distilled else "",
        "scheduler": found.scheduler_class,
        "native size": f"{found.width} x {found.height}",
        "parameters": _count(parameters),
        "size": _exact_size(sum(component.file_bytes for component in found.components)),
    }


def _file(found: FileFacts) -> dict[str, str]:
    layout = {"original": "as its authors released it", "diffusers": "as diffusers saves it", None: ""}[found.layout]
    named = " or ".join(FAMILIES[family].label for family in found.families)
    model = found.kind in _MODELS
    return {
        "file": found.path.name,
        "kind": found.kind if model else found.label,
        "family": _family(found.label, found.families) if model else named,
        "format": found.format,
        "layout": layout,
        "precision": _unique(found.dtypes),
        "quantisation": found.quantization or "",
        "prediction": _prediction(found.prediction_type, found.zero_snr),
        "guidance": {True: "embedded", False: "distilled: a guidance scale changes nothing", None: ""}[
            found.guidance_embedded
        ],
        "needs": _needs(found),
        "rank": _unique(map(str, found.ranks)),
        "text encoder": "trained too" if found.trains_text_encoder else "",
        "latents": f"{found.latent_channels} channels" if found.latent_channels else "",
        "vectors": str(found.vectors or ""),
        "image encoder": f"{found.image_width:,} wide" if found.image_width else "",
        "width": f"{found.attention_width:,}" if found.attention_width and not model else "",
        "blocks": str(found.blocks or ""),
        "parameters": _count(found.parameters),
        "size": _exact_size(found.file_bytes),
    }


def _needs(found: FileFacts) -> str:
    """What a single file of a model cannot be loaded without."""
    if found.kind not in _MODELS or found.path.is_dir():
        return ""
    if found.kind == "denoiser":
        return "model.config=FOLDER, a diffusers folder of its family that has the rest"
    # The configuration that is shipped for SD 1.5 does not suit SD 2, which is of the same family.
    if found.family in SHIPPED and not found.notes:
        return ""
    return "model.config=FOLDER, a diffusers folder of its family with the configurations"


def _family(label: str, families: Sequence[str]) -> str:
    named = " or ".join(FAMILIES[family].label for family in families)
    return label if not named or named in label else f"{label} ({named})"


def _prediction(prediction_type: str | None, zero_snr: bool) -> str:
    said = (prediction_type or "").replace("v_prediction", "v-prediction")
    return ", ".join(part for part in (said, "zero terminal SNR" if zero_snr else "") if part)


def _unique(values: Any) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _count(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def _exact_size(count: int) -> str:
    return f"{count:,} bytes of tensors ({size_text(count)})"


def _plain(value: Any, root: Path) -> Any:
    match value:
        case Path():
            return value.relative_to(root).as_posix() if value != root and value.is_relative_to(root) else str(value)
        case Component():
            return {field.name: _plain(getattr(value, field.name), root) for field in fields(value)}
        case tuple() | list():
            return [_plain(entry, root) for entry in value]
        case dict():
            return {str(name): _plain(entry, root) for name, entry in value.items()}
    return value
