"""Encodes pixels and a record to the bytes of a finished file: PNG, JPEG or WebP with all metadata."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import JobFailure
from pipeline.metadata.exif import EXIF_PREFIX, build_exif
from pipeline.metadata.infotext import readable, to_infotext
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.png import chunk as png_chunk
from pipeline.metadata.png import insert_chunks, international_text_chunk, text_chunk
from pipeline.metadata.record import Record
from pipeline.metadata.xmp import build_xmp, xml_safe_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

JPEG_BLOCK_BYTES = 65_000
"""Room for EXIF and again for XMP in a JPEG: a segment's length has 16 bits, and the prefixes need a few of
them.
"""

_PROMPT_LIMITS = (None, 8_000, 4_000, 2_000, 500, 0)
"""Characters of each prompt that are tried, in order, until the views fit into a JPEG."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A finished file. `sidecar` is the record as UTF-8 JSON if it must be stored beside the image."""

    data: bytes
    sidecar: bytes | None


@dataclass(frozen=True, slots=True)
class _Blocks:
    exif: bytes
    xmp: bytes

    @property
    def fit_jpeg(self) -> bool:
        return max(len(self.exif) + len(EXIF_PREFIX), len(self.xmp)) <= JPEG_BLOCK_BYTES


def encode_image(pixels: npt.NDArray[np.uint8], record: Record, settings: MetadataSettings) -> EncodedImage:
    """Encode `pixels` (uint8, (height, width, 3), RGB) in `record.output.format`.

    A JPEG that cannot hold the record carries its id and SHA-256 instead, and the record goes to the sidecar.

    Raises `JobFailure` when a JPEG cannot even hold the settings, `ValueError` when pixels or settings are
    not those of the record.
    """
    image_format = record.output.format
    if pixels.shape != (record.height, record.width, 3) or pixels.dtype.name != "uint8":
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, the record says {record.width}x{record.height}")
    if record.output.quality != settings.quality_for(image_format):
        raise ValueError("record.output.quality is not MetadataSettings.quality_for(format)")

    needs_sidecar = settings.sidecar
    if image_format == "png":
        # zlib's level 1 is several times faster than 6, and the file a few per cent larger.
        data = insert_chunks(_compress(pixels, "png", compress_level=1), _chunks(record, settings))
    else:
        if settings.profile == "private":
            blocks = _Blocks(b"", build_xmp([("darkroom:id", record.id)]))
        else:
            blocks = _blocks(record, settings, whole_record=True)
            if image_format == "jpeg" and not blocks.fit_jpeg:
                needs_sidecar = True
                blocks = _blocks_that_fit(record, settings)
        data = _compress_lossy(pixels, record, settings, blocks)
    return EncodedImage(data, record.to_json().encode() + b"\n" if needs_sidecar else None)


def record_sha256(record: Record) -> str:
    """What a JPEG without room for the record says about its sidecar: SHA-256 of the canonical JSON."""
    return hashlib.sha256(record.to_json().encode()).hexdigest()


def _chunks(record: Record, settings: MetadataSettings) -> list[bytes]:
    """PNG's metadata in reading order."""
    if settings.profile == "private":
        return [
            text_chunk("darkroom:id", record.id),
            international_text_chunk("XML:com.adobe.xmp", build_xmp([]).decode()),
        ]
    include_prompt, views = settings.profile == "full", _views(record, settings)
    xmp = build_xmp(views.properties, views.description)
    return [
        international_text_chunk("parameters", views.infotext),
        international_text_chunk("darkroom:metadata", record.to_json()),
        *(text_chunk(f"darkroom:{name}", value) for name, value in _fields(record, include_prompt).items()),
        text_chunk("Software", f"{record.generator.name} {record.generator.version}"),
        text_chunk("Creation Time", _seconds(record)),
        international_text_chunk("Description", views.description),
        international_text_chunk("XML:com.adobe.xmp", xmp.decode()),
        png_chunk(b"eXIf", build_exif(record, views.infotext, views.description, bmp_only=settings.exif_bmp_only)),
    ]


def _blocks_that_fit(record: Record, settings: MetadataSettings) -> _Blocks:
    for limit in _PROMPT_LIMITS:
        blocks = _blocks(record, settings, whole_record=False, prompt_limit=limit)
        if blocks.fit_jpeg:
            return blocks
    raise JobFailure(
        f"a JPEG cannot hold the settings of this image ({len(blocks.exif):,} bytes of EXIF, at most"
        f" {JPEG_BLOCK_BYTES:,}); use output.format=png"
    )


def _blocks(
    record: Record, settings: MetadataSettings, *, whole_record: bool, prompt_limit: int | None = None
) -> _Blocks:
    """EXIF and XMP of a JPEG or WebP; without the whole record, what finds it again in the sidecar."""
    views = _views(record, settings, prompt_limit)
    # The prompts stand in the record and, shortened, in the standard properties: a third copy would only
    # cost room.
    fields = _fields(record, include_prompt=settings.profile == "full" and whole_record)
    properties = [*views.properties, *((f"darkroom:{name}", value) for name, value in fields.items())]
    if whole_record:
        properties.append(("darkroom:metadata", xml_safe_json(record.to_json())))
    else:
        properties.append(("darkroom:metadataSha256", record_sha256(record)))
    jpeg = record.output.format == "jpeg"
    return _Blocks(
        build_exif(record, views.infotext, views.description, bmp_only=settings.exif_bmp_only, jpeg=jpeg),
        build_xmp(properties, views.description),
    )


class _Views(NamedTuple):
    """What every format has besides the record: A1111's text, picture programs' caption, IPTC 2025.1 and basic XMP."""

    infotext: str
    description: str
    properties: list[tuple[str, str]]


def _views(record: Record, settings: MetadataSettings, prompt_limit: int | None = None) -> _Views:
    include_prompt, generator = settings.profile == "full", record.generator
    infotext = to_infotext(record, include_prompt=include_prompt, prompt_limit=prompt_limit)
    properties = [
        ("Iptc4xmpExt:AISystemUsed", f"{generator.name} ({record.model.name})"),
        ("Iptc4xmpExt:AISystemVersionUsed", generator.version),
    ]
    prompt = ""
    if include_prompt:
        prompt = readable(record.prompt, prompt_limit)
        negative_prompt = readable(record.negative_prompt, prompt_limit)
        information = f"{prompt}\nNegative prompt: {negative_prompt}" if negative_prompt else prompt
        properties.append(("Iptc4xmpExt:AIPromptInformation", information))
    properties += [
        ("xmp:CreatorTool", f"{generator.name} {generator.version}"),
        ("xmp:CreateDate", _seconds(record)),
    ]
    description = prompt.strip() or f"Image generated by {generator.name} with {record.model.name}"
    return _Views(infotext, description, properties)


def _fields(record: Record, include_prompt: bool) -> dict[str, str]:
    """The values that people look up one by one, under our prefix: bare names belong to other programs."""
    fields: dict[str, object] = {
        "id": record.id,
        "job": record.job.id,
        "seed": record.seed,
        "steps": record.steps,
        "guidance_scale": record.guidance_scale,
        "scheduler": record.scheduler.name,
        "clip_skip": record.clip_skip,
        "width": record.width,
        "height": record.height,
        "model": record.model.name,
        "model_sha256": record.model.sha256,
        "pixels_sha256": record.pixels_sha256,
    }
    if include_prompt:
        fields |= {"prompt": readable(record.prompt), "negative_prompt": readable(record.negative_prompt)}
    return {name: str(value) for name, value in fields.items() if value is not None}


def _seconds(record: Record) -> str:
    return record.created.strftime("%Y-%m-%dT%H:%M:%SZ")


def _compress_lossy(
    pixels: npt.NDArray[np.uint8], record: Record, settings: MetadataSettings, blocks: _Blocks
) -> bytes:
    if record.output.format == "webp":
        quality = {"quality": settings.quality, "lossless": settings.lossless}
        return _compress(pixels, "webp", **quality, exif=blocks.exif, xmp=blocks.xmp)
    # 4:4:4: halving the colour resolution blurs the edges of saturated areas.
    exif = EXIF_PREFIX + blocks.exif if blocks.exif else b""
    return _compress(pixels, "jpeg", quality=settings.quality, subsampling="4:4:4", exif=exif, xmp=blocks.xmp)


def _compress(pixels: npt.NDArray[np.uint8], image_format: str, **options: object) -> bytes:
    """A fresh image, so nothing that an earlier file carried can come along."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()
