"""How much of the record goes into the image file, and how the pixels are compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import ConfigError
from pipeline.ranges import QUALITY

Profile = Literal["full", "minimal", "private"]
ImageFormat = Literal["png", "jpeg", "webp"]
Scheme = Literal["standard", "descriptive", "guid", "custom"]
"""Of files' names; `naming` says what each is."""

PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True, slots=True)
class MetadataSettings:
    """The contents of an image file.

    `full`: the record and every view of it. `minimal`: the record, and views without the prompt. `private`:
    a random id and the AI mark, nothing else; the record then exists only where the caller keeps it.

    `sidecar` writes the record beside the image too. `exif_bmp_only` replaces characters beyond U+FFFF in
    the EXIF view, for readers built on Exiv2 (digiKam, GIMP), which reject the whole block otherwise.
    `quality` (1 to 100) is for JPEG and lossy WebP; `lossless` is for WebP.

    Raises `ConfigError` with all faults found.
    """

    profile: Profile = "full"
    sidecar: bool = False
    exif_bmp_only: bool = False
    quality: int = 95
    lossless: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.profile not in PROFILES:
            faults.append(f"metadata.profile: {self.profile!r} is unknown, expected full, minimal or private")
        if fault := QUALITY.fault(self.quality):
            faults.append(f"metadata.quality: {fault} (got {self.quality!r})")
        if self.profile == "private" and self.sidecar:
            faults.append("metadata.sidecar: true contradicts metadata.profile=private, expected false")
        if faults:
            raise ConfigError(faults)

    def quality_for(self, image_format: ImageFormat) -> int | None:
        """The encoder's quality, as the record must name it; None where the format loses nothing."""
        return None if self.is_lossless(image_format) else self.quality

    def is_lossless(self, image_format: ImageFormat) -> bool:
        """Whether the pixels come back unchanged."""
        return image_format == "png" or (image_format == "webp" and self.lossless)
