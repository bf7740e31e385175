"""Decides when to replace a worker by a new process: its memory has grown, it is old, or it has become slow.

The end of a process is the only way to give memory back that is sure to work: allocators fragment, libraries leak.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median

from pipeline.system.units import size_text

SETTLED_BUNDLES = 3
"""Bundles of one kind after which their speed and memory are known; the first ones warm up."""

RECENT_BUNDLES = 5
"""So many in a row must be slow, since a machine is sometimes busy with something else."""


@dataclass(frozen=True, slots=True)
class RecyclingLimits:
    """None: never for this reason. `growth_bytes` is resident host memory; `slowdown` a multiple of the median time."""

    images: int | None = None
    growth_bytes: int | None = None
    slowdown: float | None = None


@dataclass(slots=True)
class Recycling:
    """Decides for one worker."""

    limits: RecyclingLimits
    _images: int = 0
    _settled_rss_bytes: dict[Hashable, int] = field(default_factory=dict)
    _bundles: dict[Hashable, int] = field(default_factory=dict)
    _seconds: dict[Hashable, list[float]] = field(default_factory=dict)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_BUNDLES))

    def reason(
        self, model: Hashable, kind: Hashable, images: int, seconds_per_image: float, rss_bytes: int
    ) -> str | None:
        """Call after each bundle: the reason to end the worker now, or None.

        Memory is compared with what the same model took when it had settled, speed with the median of the same `kind`
        of picture (model, size, steps, batch), so that a larger model or a longer job is no reason.
        """
        self._images += images
        self._bundles[model] = self._bundles.get(model, 0) + 1
        if self._bundles[model] == SETTLED_BUNDLES:
            self._settled_rss_bytes[model] = rss_bytes
        known = self._seconds.setdefault(kind, [])
        self._recent.append(seconds_per_image / median(known) if len(known) >= SETTLED_BUNDLES else 1.0)
        known.append(seconds_per_image)
        del known[:-1000]
        limits = self.limits
        if limits.images is not None and self._images >= limits.images:
            return f"{self._images:,} images made"
        settled = self._settled_rss_bytes.get(model)
        if limits.growth_bytes is not None and settled is not None and rss_bytes - settled > limits.growth_bytes:
            return f"memory grown by {size_text(rss_bytes - settled)}"
        slow = len(self._recent) == RECENT_BUNDLES and min(self._recent)
        if limits.slowdown is not None and slow and slow > limits.slowdown:
            return f"{slow:.1f} times slower than before"
        return None
