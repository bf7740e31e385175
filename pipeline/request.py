"""The nouns that cross from `jobs/` into the pipeline and back: what to make, and what was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DType = Literal["float32", "float16", "bfloat16"]

MAX_SEED = 2**53 - 1
"""Largest seed that survives every JSON reader (IEEE 754 double precision)."""

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 7.0
"""Used where neither the user nor the model says anything; usual for Stable Diffusion models."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which weights: `name` is what people read, the hashes are what counts.

    `source` and `vae_source` are local references (a path, or the name of an embedded model); they are never written
    into an image.
    """

    name: str
    source: str
    sha256: str
    architecture: str
    vae: str | None = None
    vae_sha256: str | None = None
    vae_source: str | None = None


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How the model is held in memory. `dtype` and `vae_tiling` change pixels, the rest does not."""

    level: str = "none"
    dtype: DType = "float32"
    vae_slicing: bool = False
    vae_tiling: bool = False


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """All that decides one picture: sizes in pixels, `scheduler` by its sampler name, no value left open."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    clip_skip: int | None
    model: ModelSettings
    memory: MemorySettings


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One finished picture and what is only known once it exists.

    `pixels`: uint8, (height, width, 3), RGB. `noise_sha256` hashes the float32 noise it started from.
    `seconds` is this image's share of its bundle's encode, denoise and decode time.
    """

    request: ImageRequest
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    pipeline_class: str
    scheduler_class: str
    scheduler_config: dict[str, Any] = field(repr=False)
    noise_shape: tuple[int, ...]
    noise_sha256: str
    batch_size: int
    batch_index: int
    seconds: float
    runtime: dict[str, Any] = field(repr=False)
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
