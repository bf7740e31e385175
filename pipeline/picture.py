"""The Python API: a model that stays loaded, and the pictures that it makes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.checks import check_request
from pipeline.errors import ConfigError, JobFailure
from pipeline.generate import generate_batch
from pipeline.metadata.building import build_record
from pipeline.metadata.naming import NamingSettings, Scheme
from pipeline.metadata.record import Origin, Record
from pipeline.metadata.saving import save
from pipeline.metadata.settings import ImageFormat, MetadataSettings, Profile
from pipeline.models.loading import LoadedModel, load
from pipeline.models.profile import identify
from pipeline.models.references import EMBEDDED_DEFAULTS
from pipeline.request import DEFAULT_GUIDANCE, DEFAULT_STEPS, GeneratedImage, ImageRequest, MemorySettings
from pipeline.request_id import request_id
from pipeline.schedulers import name_of_class, scheduler_name
from pipeline.system.device import find_device

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image; `image.pixels` is uint8, (height, width, 3), RGB."""

    image: GeneratedImage
    created: datetime

    def to_pil(self) -> PIL.Image.Image:
        """The picture as a Pillow image, without metadata."""
        import PIL.Image

        return PIL.Image.fromarray(self.image.pixels)

    def save(
        self,
        directory: str | Path,
        *,
        naming: Scheme = "standard",
        metadata: Profile = "full",
        format: ImageFormat = "png",
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> Path:
        """Write the picture with its recipe below `directory`; returns the path. Never overwrites.

        Raises `JobFailure` if the file would leak something private, `DiskFull`.
        """
        settings = MetadataSettings(profile=metadata)
        record = self.record(format=format, quality=settings.quality_for(format), name=name, tags=tags)
        return save(self.image, record, Path(directory), NamingSettings(scheme=naming, folder=""), settings)

    def record(
        self,
        *,
        format: ImageFormat = "png",
        quality: int | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> Record:
        """The recipe, with a new random id."""
        if isinstance(tags, str):
            raise ConfigError(f"tags: must be several texts, as in [{tags!r}] (got {tags!r})")
        origin = Origin(id=request_id(self.image.request), name=name, tags=list(tags))
        return build_record(
            self.image,
            image_id=str(uuid.uuid4()),
            created=self.created,
            output_format=format,
            quality=quality,
            origin=origin,
        )


class Pipeline:
    """A model ready to make pictures. Loads on first use; `close`, or leaving the `with` block, frees it.

    `model` is the name of an embedded model or the path of a diffusers folder. `device` is `auto`, `cpu`, `cuda` or
    `mps`. Raises `ModelError` for weights that are missing or damaged.
    """

    def __init__(self, model: str = "demo", *, device: str = "auto", vae: str | None = None) -> None:
        self._settings, self._folder = identify(model, vae=vae)
        self._device = find_device(device)
        self._memory = MemorySettings(dtype=self._device.dtype)
        self._loaded: LoadedModel | None = None

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | None = None,
        clip_skip: int | None = None,
    ) -> Picture:
        """Make one picture; sizes in pixels, those of the model by default.

        Raises `ConfigError` with everything that is wrong with the arguments, `JobFailure`.
        """
        default_steps, default_guidance = EMBEDDED_DEFAULTS.get(
            self._settings.source, (DEFAULT_STEPS, DEFAULT_GUIDANCE)
        )
        steps = default_steps if steps is None else steps
        guidance_scale = default_guidance if guidance_scale is None else guidance_scale
        width = self._folder.width if width is None else width
        height = self._folder.height if height is None else height
        check_request(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            clip_skip=clip_skip,
            text_layers=self._folder.text_layers,
        )
        own_scheduler = name_of_class(self._folder.scheduler_class, self._folder.scheduler_config)
        request = ImageRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            guidance_scale=float(guidance_scale),
            width=width,
            height=height,
            scheduler=own_scheduler if scheduler is None else _named(scheduler),
            clip_skip=clip_skip,
            model=self._settings,
            memory=self._memory,
        )
        if self._loaded is None:
            self._loaded = load(self._settings, self._memory, self._device.kind)
        created = datetime.now(UTC)
        (outcome,) = generate_batch(self._loaded, [request])
        if isinstance(outcome, JobFailure):
            raise outcome
        return Picture(outcome, created)

    def close(self) -> None:
        """Free the model; it is loaded again when needed."""
        self._loaded = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _named(scheduler: str) -> str:
    try:
        return scheduler_name(scheduler)
    except ValueError as error:
        raise ConfigError(f"scheduler: {error} (got {scheduler!r})") from None
