"""One finished picture of the Python API."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.api.arguments import checked, path_text
from pipeline.api.explanation import Explanation
from pipeline.errors import ConfigError, JobFailure
from pipeline.metadata.building import build_record
from pipeline.metadata.metadata_settings import ImageFormat, MetadataSettings, Profile, Scheme
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.record import JobRecord, Record
from pipeline.metadata.saving import save
from pipeline.request import GeneratedImage
from pipeline.request_id import request_id
from pipeline.selection.choice import Choice

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image; `image.pixels` is uint8, (height, width, 3), RGB.

    `explanation` says what was chosen for it, and why; None where its model was named.
    """

    image: GeneratedImage
    created: datetime
    explanation: Explanation | None = None

    @property
    def choice(self) -> Choice | None:
        """What was chosen for it; None where its model was named."""
        return self.explanation.choice if self.explanation else None

    def to_pil(self) -> PIL.Image.Image:
        """The picture as a Pillow image, without metadata."""
        import PIL.Image

        return PIL.Image.fromarray(self.image.pixels)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: a PNG file without metadata."""
        file = io.BytesIO()
        self.to_pil().save(file, "png")
        return file.getvalue()

    def save(
        self,
        directory: str | Path,
        *,
        naming: Scheme = "standard",
        metadata: Profile = "full",
        sidecar: bool = False,
        format: ImageFormat = "png",
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> Path:
        """Write the picture with its recipe below `directory`; returns the path. Never overwrites.

        `sidecar` writes the recipe into a JSON file beside it, too. Raises `ConfigError` for wrong arguments,
        `JobFailure` if the file would leak something private, `DiskFull`.
        """
        settings = MetadataSettings(profile=metadata, sidecar=sidecar)
        record = self.record(format=format, quality=settings.quality_for(format), name=name, tags=tags)
        folder = Path(path_text("directory", directory))
        try:
            return save(self.image, record, folder, NamingSettings(scheme=naming, folder=""), settings)
        except OSError as error:
            raise ConfigError(f"directory: {folder}: cannot be written ({error.strerror or error})") from error

    def record(
        self,
        *,
        format: ImageFormat = "png",
        quality: int | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> Record:
        """The recipe, with a new random id. Raises `ConfigError` for a name or tags that are none."""
        if isinstance(tags, str) or not isinstance(tags, Sequence):
            example = repr(tags) if isinstance(tags, str) else "'sea'"
            raise ConfigError(f"tags: must be several texts, as in [{example}] (got {tags!r})")
        explanation, prompt = self.explanation, self.image.request.prompt
        origin = checked(JobRecord, {"id": request_id(self.image.request), "name": name, "tags": list(tags)})
        return build_record(
            self.image,
            image_id=str(uuid.uuid4()),
            created=self.created,
            output_format=format,
            quality=quality,
            origin=origin,
            prompt_template=explanation.prompt if explanation and explanation.prompt != prompt else None,
            selection=explanation.record if explanation else None,
        )


def the_picture(outcomes: Iterable[Picture | JobFailure]) -> Picture:
    """The picture of a single request. Raises its `JobFailure`."""
    (outcome,) = outcomes
    if isinstance(outcome, JobFailure):
        raise outcome
    return outcome
