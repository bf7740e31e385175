"""Verifies a finished file by reading it back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pipeline.errors import JobFailure, ReadError
from pipeline.metadata.containers import Container, read_container
from pipeline.metadata.encoding import record_sha256
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.reading import decode_pixels, find_record, find_text
from pipeline.metadata.record import Record, pixel_hash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class ReadbackFailed(JobFailure):
    """The finished bytes do not contain what was written."""

    kind = "readback"


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
