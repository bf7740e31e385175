"""Resolves, checks and hashes a model, and gives the settings that identify it; loads no weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.registry.resolve import name_of, resolve
from pipeline.request import ModelSettings, PredictionType
from pipeline.weights.families import FAMILIES
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.hashes import content_hash, remember_place
from pipeline.weights.headers.base import WEIGHTS
from pipeline.weights.inspection import ModelFiles, inspect_model
from pipeline.weights.references import EMBEDDED, called
from pipeline.weights.vae_fit import check_vae


def identify(
    source: str,
    *,
    name: str | None = None,
    vae: str | None = None,
    config: str | None = None,
    prediction_type: PredictionType | None = None,
    max_sequence_length: int | None = None,
    safety_checker: bool = False,
) -> tuple[ModelSettings, ModelFiles]:
    """Resolve, check and hash a model and, if given, its separate VAE and the folder that completes a single file.

    The places of all three are remembered by their hashes. Raises `ModelError`.
    """
    path = resolve(source)
    config_folder = resolve(config, "model.config") if config else None
    with called(source, path):
        if config_folder and path.is_dir():
            raise ModelError(f"model {path.name}: is a folder and has all of its configuration; leave model.config out")
        files = inspect_model(path, config_folder, ("vae",) if vae else ())
        family = FAMILIES.get(files.family or "")
        if prediction_type:
            if family and family.flow_matching:
                raise ModelError(
                    f"model {path.name}: {family.label} is a flow-matching model, which has no prediction type; "
                    "leave model.prediction_type out"
                )
            files = replace(files, prediction_type=prediction_type)
        if safety_checker and not ((files.config or path) / "safety_checker" / "config.json").is_file():
            raise ModelError(f"model {path.name}: has no safety checker; leave model.safety_checker at false")
    vae_path, vae_sha256 = resolve(vae, "vae") if vae else None, None
    if vae and vae_path:
        with called(vae, vae_path):
            vae_sha256 = content_hash(vae_path, check_vae(vae_path, files).files)
    settings = ModelSettings(
        name=name or public_name(name_of(source, path)),
        source=source if source in EMBEDDED else str(path),
        sha256=content_hash(path, files.files),
        architecture=files.pipeline_class,
        vae=public_name(name_of(vae, vae_path)) if vae and vae_path else None,
        vae_sha256=vae_sha256,
        vae_source=str(vae_path) if vae_path else None,
        config_source=str(config_folder) if config_folder else None,
        config_sha256=content_hash(config_folder, files.files[1:]) if config_folder else None,
        prediction_type=prediction_type,
        max_sequence_length=max_sequence_length,
        safety_checker=safety_checker,
        single_file=files.layout != "folder",
    )
    for sha256, place in (
        (settings.sha256, path),
        (vae_sha256, vae_path),
        (settings.config_sha256, config_folder),
    ):
        if sha256 and place:
            remember_place(sha256, place)
    return settings, files


def weight_files(settings: ModelSettings) -> list[Path]:
    """The weights files that loading will read, so that they can be read ahead. Raises `ModelError`."""
    config = resolve(settings.config_source) if settings.config_source else None
    files = inspect_model(resolve(settings.source), config, ("vae",) if settings.vae_source else ())
    own = [file for part in files.components if part.name != "vae" or not settings.vae_source for file in part.files]
    vae = inspect_file(resolve(settings.vae_source, "vae")).files if settings.vae_source else ()
    return [file for file in dict.fromkeys([*own, *vae]) if file.suffix in WEIGHTS]


def public_name(source: str) -> str:
    """A name that may be written into images: the last part of a path, with harmless characters only."""
    path = Path(source)
    name = path.stem if path.suffix.lower() in WEIGHTS else path.name
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.") or "model"
