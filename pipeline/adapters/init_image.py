"""Finds, checks and hashes an init image, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from pipeline.adapters.find_weights import family_label
from pipeline.adapters.reference_images import identify_image
from pipeline.errors import ModelError
from pipeline.request import InitImage
from pipeline.weights.families import FAMILIES
from pipeline.weights.inspection import ModelFiles


def identify_init(image: str, *, strength: float, files: ModelFiles) -> InitImage:
    """Find, check and hash an init image. Raises `ModelError`, also for families without image-to-image."""
    family, label = family_label(files)
    if family is None or family.img2img is None:
        able = ", ".join(one.label for one in FAMILIES.values() if one.img2img)
        raise ModelError(
            f"init image {Path(image).name}: diffusers has no image-to-image for {label}; it has for: {able}"
        )
    return InitImage(image=identify_image(image), strength=strength)
