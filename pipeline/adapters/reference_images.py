"""Pictures that are given to a model: checked without decoding them completely, later opened and brought to size."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.adapters.find_weights import family_label, file_now, public_name
from pipeline.errors import JobFailure, ModelError
from pipeline.loading.component_weights import first_line
from pipeline.registry.resolve import resolve
from pipeline.request import ControlNetWeights, InitImage, ReferenceImage
from pipeline.weights.families import FAMILIES
from pipeline.weights.hashes import identified
from pipeline.weights.inspection import ModelFiles

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**26
"""8192 x 8192. A larger picture is scaled down to the request's size anyway and would first fill the memory."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is opened. Pillow knows more, some of which run other programs."""

_KEPT = 32
"""Pictures kept at their requested size; 1024 x 1024 takes 3 MB."""

_CANNY = (100, 200)
"""Thresholds of the Canny edge detector, those of diffusers' ControlNet guide."""


def identify_image(source: str) -> ReferenceImage:
    """Find, check and hash a picture. Raises `ModelError` if it is missing, no picture, cut off or too large."""
    from PIL import Image, UnidentifiedImageError

    path = resolve(source, "image")
    if not path.is_file():
        raise ModelError(f"image {path.name}: is a folder; expected a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, *image.size)
                _check_whole(image)
    except Image.DecompressionBombError:
        raise ModelError(f"image {path.name}: {_too_large('has too many pixels')}") from None
    except UnidentifiedImageError:
        raise ModelError(f"image {path.name}: is no picture; expected one of {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ModelError(f"image {path.name}: is damaged or cut off ({first_line(error)}); fetch it again") from None
    return ReferenceImage(name=public_name(None, source, path), source=str(path), sha256=identified(path, ()))


def identify_init(image: str, strength: float, files: ModelFiles) -> InitImage:
    """Find, check and hash an init image. Raises `ModelError`, also for families without image-to-image."""
    family, label = family_label(files)
    if family is None or family.img2img is None:
        able = ", ".join(one.label for one in FAMILIES.values() if one.img2img)
        raise ModelError(
            f"init image {Path(image).name}: diffusers has no image-to-image for {label}; it has for: {able}"
        )
    return InitImage(image=identify_image(image), strength=strength)


@functools.lru_cache(maxsize=_KEPT)
def fitted(image: ReferenceImage, width: int, height: int) -> Image.Image:
    """The picture upright, in RGB, scaled to cover `width` x `height` pixels and centre-cropped.

    Raises `JobFailure` if the file is gone or is another one by now.
    """
    from PIL import Image, ImageOps

    return ImageOps.fit(opened(image), (width, height), method=Image.Resampling.LANCZOS)


def control_image(controlnet: ControlNetWeights, width: int, height: int) -> Image.Image:
    """The picture of a ControlNet, `fitted`, or its edges, white on black."""
    shown = _edges if controlnet.preprocess == "canny" else fitted
    return shown(controlnet.image, width, height)


def opened(image: ReferenceImage) -> Image.Image:
    """The whole picture upright, in RGB. Raises `JobFailure` if the file is gone or has changed."""
    from PIL import Image, ImageOps

    path = file_now(image.source, image.sha256, "image", image.name)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise JobFailure(f"image {image.name}: cannot be decoded ({first_line(error)})") from None


@functools.lru_cache(maxsize=_KEPT)
def _edges(image: ReferenceImage, width: int, height: int) -> Image.Image:
    import cv2
    import numpy as np
    from PIL import Image

    edges = cv2.Canny(np.asarray(fitted(image, width, height)), *_CANNY)
    return Image.fromarray(edges).convert("RGB")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ModelError(f"image {path.name}: {_too_large(f'is {width} x {height} pixels')}")


def _too_large(what: str) -> str:
    return f"{what}, more than {MAX_PIXELS // 10**6} million; scale it down first"


def _check_whole(image: Image.Image) -> None:
    """Raises what Pillow raises for a cut-off file. PNG has checksums; JPEG decodes fast at an eighth of its size."""
    if image.format == "PNG":
        image.verify()
        return
    image.draft("RGB", (image.width // 8, image.height // 8))
    image.load()
