"""Reads the metadata of an image file: our record, or that of another program."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.errors import ReadError
from pipeline.faults import faults_of
from pipeline.metadata.containers import MAX_PART_BYTES, Container, read_container
from pipeline.metadata.foreign import ImageDescription, describe_foreign
from pipeline.metadata.metadata_settings import Profile
from pipeline.metadata.record import ID, SCHEMA, Record
from pipeline.metadata.saved_files import open_regular
from pipeline.metadata.xmp import read_property

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


_QUOTED = 80
"""Characters of what a stranger wrote that a message repeats."""


class NoRecordError(ReadError):
    """The image is valid but has no record of ours."""


def read_record(path: str | Path) -> Record:
    """The record of an image that we wrote: from its PNG chunk, else its XMP property, else `<stem>.json`
    beside it.

    Raises `NoRecordError` for a private or a foreign image, `ReadError` for anything damaged, in one line
    with the path.
    """
    path = Path(path)
    container = _open(path)
    with _named(path):
        record = find_record(container) or _sidecar_record(path, container)
    if record is not None:
        return record
    image_id = _find_id(container)
    if image_id is None:
        raise NoRecordError(f"{path}: no Darkroom record in it, nor what another program says about its making")
    if find_text(container, "metadataSha256") is not None:
        sidecar = path.with_suffix(".json").name
        raise NoRecordError(f"{path}: its record did not fit into the file, and its sidecar {sidecar} is missing")
    raise NoRecordError(f"{path}: a private image, it holds only its id {image_id}; its record is in the manifest")


def read_id(path: Path) -> str | None:
    """The id of an image that we wrote, private ones included; None for others. Raises `ReadError`."""
    container = _open(path)
    with _named(path):
        return _find_id(container)


def read_profile(path: Path) -> Profile:
    """How much an image of ours tells: the profile that it was written with. Raises `ReadError`."""
    container = _open(path)
    if find_record(container) is None and find_text(container, "metadataSha256") is None:
        return "private"
    return "full" if "AIPromptInformation" in str(container.xmp) else "minimal"


def sidecar_fault(path: Path) -> str | None:
    """What is wrong with the sidecar that an image needs, where its record did not fit into it; None for all others.

    Raises `ReadError` for what is no image.
    """
    if b"metadataSha256" not in (_open(path).xmp or b""):
        return None
    try:
        read_record(path)
    except ReadError as error:
        return str(error)
    return None


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """The decoded picture: uint8, (height, width, 3), RGB. Raises `ReadError`."""
    _open(path)  # finds bombs and truncated files before Pillow allocates anything
    with _named(path):
        return decode_pixels(path)


def decode_pixels(source: Path | io.BytesIO) -> npt.NDArray[np.uint8]:
    """Decode with Pillow into uint8, (height, width, 3), RGB. Raises `ReadError`."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(source) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise half a dozen types on damaged files
        raise ReadError(f"its pixels cannot be decoded ({error})") from error


def find_record(container: Container) -> Record | None:
    """The record inside a file; None where there is none. Raises `ReadError` on a damaged or unknown one."""
    text = find_text(container, "metadata")
    return None if text is None else parse_record(text)


def find_text(container: Container, name: str) -> str | None:
    """One of our own fields, from the PNG text chunk or the XMP property. Raises `ReadError` on a damaged one."""
    text = container.text(f"darkroom:{name}")
    if text is None and container.xmp is not None:
        text = read_property(container.xmp, name)
    return text


def parse_record(text: str | bytes) -> Record:
    """A record from JSON that anyone may have edited. Raises `ReadError` in one line."""
    try:
        return Record.from_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])[:_QUOTED]
        if place == "schema":
            written = first["input"][:_QUOTED] if isinstance(first["input"], str) else "no version"
            raise ReadError(f"its record is of schema {written!r}, this version reads {SCHEMA!r}") from error
        reason = next(faults_of(error)).expected
        if place:
            reason = f"{place if place.isprintable() else ascii(place)}: {reason}"
        raise ReadError(f"its record is not valid ({reason})") from error


def _find_id(container: Container) -> str | None:
    """The image's id, if what stands there is one."""
    text = find_text(container, "id")
    return text if text and ID.fullmatch(text) else None


def _open(path: Path) -> Container:
    try:
        with _named(path), open_regular(path) as stream:
            return read_container(stream)
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror or error})") from error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors about a file with its path before them."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error


def _sidecar_record(path: Path, container: Container) -> Record | None:
    """The record in `<stem>.json`, if that file is one and belongs to this image."""
    sidecar = path.with_suffix(".json")
    try:
        with open_regular(sidecar) as stream:
            text = stream.read(MAX_PART_BYTES + 1).strip()
    except OSError:
        return None
    if len(text) > MAX_PART_BYTES or SCHEMA.partition("/")[0].encode() not in text:
        return None
    record = parse_record(text)
    image_id = _find_id(container)
    expected = find_text(container, "metadataSha256")
    if image_id not in (None, record.id):
        raise ReadError(f"{sidecar.name} belongs to another image ({record.id}, not {image_id})")
    if expected not in (None, hashlib.sha256(text).hexdigest()):
        raise ReadError(f"{sidecar.name} was changed after the image was written")
    if (record.width, record.height) != (container.width, container.height):
        raise ReadError(f"{sidecar.name} belongs to another image (its size differs)")
    return record


def read_any(path: Path) -> ImageDescription:
    """Describe an image of ours or of another program's that `foreign` knows.

    Raises `ReadError` where the file is no image or says nothing.
    """
    try:
        record = read_record(path)
    except NoRecordError as missing:
        # The A1111 view in one of ours is shortened where the record itself did not fit: not to be taken for the whole.
        foreign = None if read_id(path) else describe_foreign(path, _open(path))
        if foreign is None:
            raise missing
        return foreign
    return describe_record(record)


def describe_record(record: Record) -> ImageDescription:
    """The contents of a record of ours, in the form in which other programs' images are described."""
    fields = {
        "seed": record.seed,
        "steps": record.steps,
        "guidance_scale": record.guidance_scale,
        "scheduler": record.scheduler.name,
        "size": f"{record.width}x{record.height}",
        "model": record.model.name,
        "created": record.created.isoformat(),
        "id": record.id,
    }
    texts = {name: str(value) for name, value in fields.items()}
    return ImageDescription("Darkroom", record.prompt, record.negative_prompt, texts, record)
