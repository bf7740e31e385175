"""The input of a ControlNet: its picture at the size of the request, unchanged or reduced to edges."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from pipeline.adapters.reference_images import fitted
from pipeline.request import ControlNetWeights, ReferenceImage

if TYPE_CHECKING:
    from PIL import Image

_CANNY = (100, 200)
"""Thresholds of the Canny edge detector, those of diffusers' ControlNet guide."""


def control_image(controlnet: ControlNetWeights, width: int, height: int) -> Image.Image:
    """The control picture, RGB, `width` x `height` pixels. Raises `JobFailure` if the picture is gone."""
    if controlnet.preprocess == "canny":
        return _edges(controlnet.image, width, height)
    return fitted(controlnet.image, width, height)


@functools.lru_cache(maxsize=32)
def _edges(image: ReferenceImage, width: int, height: int) -> Image.Image:
    """White edges on black."""
    import cv2
    import numpy as np
    from PIL import Image

    edges = cv2.Canny(np.asarray(fitted(image, width, height)), *_CANNY)
    return Image.fromarray(edges).convert("RGB")
