"""The files of images, opened by what the manifest says of them, which strangers may have written; and small copies."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.archive.made_files import write_made
from jobs.manifest.layout import Layout
from pipeline.errors import ReadError
from pipeline.metadata.containers import read_container

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_BYTES = 256 * 2**20

THUMBNAIL_PX = 256
"""The longer side of a thumbnail: about 10 kB as WebP."""

SMALL_PX = 128
"""Images up to this side are kept as they are, and enlarged without smoothing."""

_QUALITY = 75
_METHOD = 2
"""Of the WebP encoder: 4 makes files 3 % smaller in a seventh more time."""


def read_picture(output_dir: Path, path: str) -> tuple[bytes, str]:
    """The content of an image of the output folder, and its media type.

    Raises `ReadError` for what is outside of the folder, also through links, is gone, or is no image.
    """
    place = Layout(output_dir).image(path)
    if place is None:
        raise ReadError("the manifest names a file outside of the output folder")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(place.resolve(), flags), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ReadError("it is no file")
            if facts.st_size > MAX_FILE_BYTES:
                raise ReadError("it is too large for a picture")
            media_type = f"image/{read_container(file).format}"
            file.seek(0)
            return file.read(MAX_FILE_BYTES), media_type
    except OSError as error:
        raise ReadError("its file is gone" if isinstance(error, FileNotFoundError) else "it cannot be read") from None


def reduced(content: bytes, box: tuple[int, int]) -> Image:
    """The image of a file in RGB, without its metadata, made smaller if it does not fit into a box of that width and
    height. Raises `ReadError` for one that cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as found:
            found.draft("RGB", (2 * box[0], 2 * box[1]))
            shown = found.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ReadError("it cannot be decoded") from error
    shown.info = {}
    if shown.width > box[0] or shown.height > box[1]:
        shown.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return shown


def as_webp(shown: Image) -> bytes:
    """A small image as the file of a thumbnail."""
    content = io.BytesIO()
    shown.save(content, "WEBP", lossless=max(shown.size) <= SMALL_PX, quality=_QUALITY, method=_METHOD)
    return content.getvalue()


def picture(output_dir: Path, path: str, box: tuple[int, int]) -> Image | None:
    """An image of the manifest as `reduced` gives it; None for one that `read_picture` or `reduced` refuses."""
    try:
        return reduced(read_picture(output_dir, path)[0], box)
    except ReadError:
        return None


def thumbnail(output_dir: Path, path: str, side: int = THUMBNAIL_PX) -> bytes | None:
    """An image of the manifest as a thumbnail; None as for `picture`."""
    shown = picture(output_dir, path, (side, side))
    return None if shown is None else as_webp(shown)


def is_there(output_dir: Path, path: str) -> bool:
    """Whether the path of a row is that of a file, inside the output folder."""
    place = Layout(output_dir).image(path)
    return place is not None and place.is_file()


def hides_prompt(output_dir: Path, path: str) -> bool:
    """Whether the image's own file keeps its prompt to itself, so that no page may.

    So does one that is gone or cannot be read: nobody knows then what it kept.
    """
    from pipeline.metadata.reading import read_profile

    try:
        return not is_there(output_dir, path) or read_profile(output_dir / path) != "full"
    except (ReadError, OSError):
        return True


def save_pages(pages: Sequence[Image], path: Path) -> list[Path]:
    """Write pages as PNG, marked as made by a model; the second becomes `name-2.png`. Raises `ConfigError`."""
    from PIL.PngImagePlugin import PngInfo

    from pipeline.metadata.xmp import build_xmp

    paths = [path.with_name(f"{path.stem}-{n}{path.suffix}") if n > 1 else path for n in range(1, len(pages) + 1)]
    mark = PngInfo()
    mark.add_itxt("XML:com.adobe.xmp", build_xmp([]).decode())
    for page, place in zip(pages, paths, strict=True):
        content = io.BytesIO()
        page.save(content, "PNG", pnginfo=mark)
        write_made(place, content.getvalue())
    return paths
