"""Saves a finished picture: encoded, read back, searched for leaks and named, in one call."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import JobFailure, ReadError
from pipeline.metadata.containers import Container, read_container
from pipeline.metadata.encoding import encode_image, record_sha256
from pipeline.metadata.leaks import own_words, scan
from pipeline.metadata.metadata_settings import ImageFormat, MetadataSettings
from pipeline.metadata.naming import NamingSettings, image_path
from pipeline.metadata.reading import decode_pixels, find_record, find_text
from pipeline.metadata.record import Record, pixel_hash
from pipeline.metadata.saved_files import store
from pipeline.request import GeneratedImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class SaveSettings:
    """How the images of one configuration are named, described and encoded."""

    naming: NamingSettings
    metadata: MetadataSettings
    output_format: ImageFormat


class ReadbackFailed(JobFailure):
    """The finished bytes do not contain what was written."""

    kind = "readback"


def save(
    image: GeneratedImage,
    record: Record,
    directory: Path,
    naming: NamingSettings | None = None,
    metadata: MetadataSettings | None = None,
    announce: Callable[[Path, bytes], None] = lambda _path, _data: None,
) -> Path:
    """Encode, read back, search for leaks and write below `directory`. Returns the image's path.

    `announce` is told path and bytes before the file gets its name, and again if that name was taken.

    Raises `JobFailure` (`ReadbackFailed`, `LeakFound`) before anything is written, `DiskFull`, `OSError`.
    """
    metadata = metadata or MetadataSettings()
    encoded = encode_image(image.pixels, record, metadata)
    verify_encoded(encoded.data, record, metadata, image.pixels)
    words = own_words(record)
    scan(encoded.data, own_words=words)
    if encoded.sidecar is not None:
        scan(encoded.sidecar, own_words=words)
    stem = directory / image_path(naming or NamingSettings(), record)
    target = stem.with_name(f"{stem.name}.{record.output.format}")
    return store(encoded.data, target, encoded.sidecar, lambda path: announce(path, encoded.data))


def verify_encoded(data: bytes, record: Record, settings: MetadataSettings, pixels: npt.NDArray[np.uint8]) -> None:
    """Parse and decode `data` and compare: the record for equality, and every pixel where the format is
    lossless.

    A private file must hold its id and no record; a JPEG without room for the record must hold id and hash.
    Raises `ReadbackFailed`.
    """
    try:
        container = read_container(io.BytesIO(data))
        decoded = decode_pixels(io.BytesIO(data))
        found = find_record(container)
        image_id = find_text(container, "id")
    except ReadError as error:
        raise ReadbackFailed(f"the finished image cannot be read back: {error}") from error

    if decoded.shape != pixels.shape:
        raise ReadbackFailed(f"the finished image has shape {decoded.shape}, not {pixels.shape}")
    if settings.is_lossless(record.output.format):
        actual = pixel_hash(record.width, record.height, decoded.tobytes())
        if actual != record.pixels_sha256:
            raise ReadbackFailed("the pixels of the finished image differ from the generated ones")
    if image_id != record.id:
        raise ReadbackFailed(f"the finished image has the id {image_id}, not {record.id}")
    _check_record(found, container, record, settings)


def _check_record(found: Record | None, container: Container, record: Record, settings: MetadataSettings) -> None:
    if settings.profile == "private":
        if found is not None:
            raise ReadbackFailed("the finished private image holds a record")
    elif found is None:
        if find_text(container, "metadataSha256") != record_sha256(record):
            raise ReadbackFailed("the finished image holds neither its record nor the hash of its sidecar")
    elif found.to_json() != record.to_json():
        raise ReadbackFailed("the record in the finished image differs from the one written")
