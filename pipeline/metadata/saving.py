"""Saves a finished picture: all steps up to its final name, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.metadata.encoding import encode_image
from pipeline.metadata.leaks import own_words, scan
from pipeline.metadata.metadata_settings import ImageFormat, MetadataSettings
from pipeline.metadata.naming import NamingSettings, image_path
from pipeline.metadata.record import Record
from pipeline.metadata.saved_files import store
from pipeline.metadata.verifying import verify_encoded
from pipeline.request import GeneratedImage


@dataclass(frozen=True, slots=True)
class SaveSettings:
    """How the images of one configuration are named, described and encoded."""

    naming: NamingSettings
    metadata: MetadataSettings
    output_format: ImageFormat


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
