"""Pictures that are given to a model: checked without decoding them completely, later opened."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.adapters.find_weights import file_now, hash_of, public_name
from pipeline.errors import JobFailure, ModelError
from pipeline.loading.component_weights import first_line
from pipeline.registry.resolve import resolve
from pipeline.request import ReferenceImage

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**26
"""8192 x 8192. A larger picture is scaled down to the request's size anyway and would first fill the memory."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is opened. Pillow knows more, some of which run other programs."""

_KEPT = 32
"""Pictures kept at their requested size; 1024 x 1024 takes 3 MB."""


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
    return ReferenceImage(name=public_name(None, source, path), source=str(path), sha256=hash_of(path, ()))


@functools.lru_cache(maxsize=_KEPT)
def fitted(image: ReferenceImage, width: int, height: int) -> Image.Image:
    """The picture upright, in RGB, scaled to cover `width` x `height` pixels and centre-cropped.

    Raises `JobFailure` if the file is gone or is another one by now.
    """
    from PIL import Image, ImageOps

    return ImageOps.fit(opened(image), (width, height), method=Image.Resampling.LANCZOS)


def opened(image: ReferenceImage) -> Image.Image:
    """The whole picture upright, in RGB. Raises `JobFailure` if the file is gone or has changed."""
    from PIL import Image, ImageOps

    path = file_now(image.source, image.sha256, "image", image.name)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise JobFailure(f"image {image.name}: cannot be decoded ({first_line(error)})") from None


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
