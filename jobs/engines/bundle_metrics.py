"""Measurements of bundles by workers, one line each in the run's `metrics.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.generation.phase_seconds import PhaseSeconds
    from pipeline.request import GeneratedImage, ImageRequest


@dataclass(frozen=True, slots=True)
class BundleMetrics:
    """One bundle. `batch_sizes` are those in which its pictures were denoised; seconds are wall-clock.

    Peaks are bytes, None where nothing was made or the device counts none.
    """

    model: str
    width: int
    height: int
    batch_sizes: tuple[int, ...]
    images: int
    failures: int
    load_seconds: float
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float
    peak_vram_bytes: int | None
    peak_rss_bytes: int | None

    @property
    def images_per_second(self) -> float | None:
        """Without the loading of a model; None if nothing was made."""
        seconds = self.encode_seconds + self.denoise_seconds + self.decode_seconds
        return self.images / seconds if self.images and seconds else None


@dataclass(slots=True)
class BundleMeter:
    """Counts while a bundle is made; `before` are the worker's seconds by phase until then."""

    request: ImageRequest
    before: PhaseSeconds
    load_seconds: float = 0.0
    failures: int = 0
    _images: int = 0
    _batch_sizes: list[int] = field(default_factory=list)
    _peak_vram_bytes: int | None = None
    _peak_rss_bytes: int | None = None

    def made(self, image: GeneratedImage) -> None:
        """Count one picture."""
        self._images += 1
        if image.batch_index == 0:
            self._batch_sizes.append(image.batch_size)
        self._peak_vram_bytes = larger(self._peak_vram_bytes, image.peak_vram_bytes)
        self._peak_rss_bytes = larger(self._peak_rss_bytes, image.peak_rss_bytes)

    def metrics(self, phases: PhaseSeconds) -> BundleMetrics:
        """The bundle's measurements, given the worker's seconds by phase now."""
        return BundleMetrics(
            model=self.request.model.name,
            width=self.request.width,
            height=self.request.height,
            batch_sizes=tuple(self._batch_sizes),
            images=self._images,
            failures=self.failures,
            load_seconds=self.load_seconds,
            encode_seconds=phases.encode - self.before.encode,
            denoise_seconds=phases.denoise - self.before.denoise,
            decode_seconds=phases.decode - self.before.decode,
            peak_vram_bytes=self._peak_vram_bytes,
            peak_rss_bytes=self._peak_rss_bytes,
        )


def larger(one: int | None, other: int | None) -> int | None:
    """The larger of two numbers that may be unknown."""
    return other if one is None else one if other is None else max(one, other)
