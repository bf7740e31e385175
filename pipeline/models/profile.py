"""From a model reference to the settings that identify it: found, checked and hashed, without loading weights."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.identity import folder_hash, known_folders
from pipeline.models.inspection import ModelFolder, component_weights, inspect_folder
from pipeline.models.references import EMBEDDED, resolve
from pipeline.request import ModelSettings


def identify(source: str, name: str | None = None, vae: str | None = None) -> tuple[ModelSettings, ModelFolder]:
    """Resolve, check and hash a model and, if given, a VAE of its own. Raises `ModelError`."""
    folder = inspect_folder(resolve(source))
    vae_folder = resolve(vae) if vae else None
    settings = ModelSettings(
        name=name or _public_name(source),
        source=source if source in EMBEDDED else str(folder.path),
        sha256=folder_hash(folder.path, folder.files),
        architecture=folder.pipeline_class,
        vae=_public_name(vae) if vae else None,
        vae_sha256=_vae_hash(vae_folder) if vae_folder else None,
        vae_source=str(vae_folder) if vae_folder else None,
    )
    return settings, folder


def find_vae(sha256: str) -> Path | None:
    """The folder of a VAE that was used on this machine before, by its hash."""
    for folder in known_folders("config.json"):
        try:
            if _vae_hash(folder) == sha256:
                return folder
        except (ModelError, OSError):
            continue
    return None


def _vae_hash(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"vae {folder.name}: has no config.json; expected a diffusers VAE folder")
    weights, _ = component_weights(folder, folder.name)
    return folder_hash(folder, [config, *weights])


def _public_name(source: str) -> str:
    """A name that may be written into images: the last part of a path, made of harmless characters."""
    return re.sub(r"[^\w.+-]+", "-", Path(source).name, flags=re.ASCII).strip("-.") or "model"
