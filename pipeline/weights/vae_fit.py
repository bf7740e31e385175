"""Checks whether a VAE fits a model: same kind of decoder, same latents, same scale."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError
from pipeline.weights.families import FAMILIES
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.folder_inspection import read_json
from pipeline.weights.model_files import FileFacts, ModelFiles

_INTERCHANGEABLE = ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL")
"""Decoders of the same latents; all other classes stand alone."""


def check_vae(path: Path, files: ModelFiles) -> FileFacts:
    """Check a VAE, a folder or a single file, against the model for which it is to decode. Raises `ModelError`."""
    facts = inspect_file(path)
    if facts.kind != "vae":
        raise ModelError(f"vae {path.name}: is no VAE, but {facts.label}")
    model = files.label
    family = FAMILIES.get(files.family or "")
    channels = files.latent_channels or (family.latent_channels if family else None)
    if facts.latent_channels and channels and facts.latent_channels != channels:
        raise ModelError(
            f"vae {path.name}: decodes latents of {facts.latent_channels} channels, and {model} has {channels}; "
            "give the VAE of this family"
        )
    own = files.component("vae")
    if own and facts.class_name != own.class_name and not {facts.class_name, own.class_name} <= set(_INTERCHANGEABLE):
        raise ModelError(
            f"vae {path.name}: is an {facts.class_name}, and {model} decodes with {own.class_name}; "
            "give the VAE of this family"
        )
    scale, wanted = _scale(path), _scale((files.config or files.path) / "vae")
    if scale and wanted and scale != wanted:
        raise ModelError(
            f"vae {path.name}: scales latents by {scale}, and {model} by {wanted}: it was made for another family"
        )
    return facts


def _scale(folder: Path) -> float | None:
    """The factor between the latents of VAE and denoiser. A tiny VAE works on the denoiser's latents themselves."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    said = read_json(config, "")
    factor = said.get("scaling_factor")
    return factor if isinstance(factor, float) and said.get("_class_name") != "AutoencoderTiny" else None
