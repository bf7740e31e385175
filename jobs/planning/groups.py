"""Groups of alike jobs, and their memory fit."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from pipeline.request import Adapters, Likeness, MemorySettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Fit:
    """The memory fit of a group, by estimate; `least_bytes` is the smallest sufficient budget.

    `seconds` per picture are those of the batch sizes that were measured, (size, seconds); None where the size does not
    depend on it.
    """

    held: MemorySettings
    batch_size: int
    predicted_peak_bytes: int | None = None
    budget_bytes: int | None = None
    fits: bool = True
    least_bytes: int = 0
    stage_bytes: tuple[tuple[str, int], ...] = ()
    trial: Trial | None = None
    seconds: tuple[tuple[int, float], ...] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """Another batch size in which some pictures are made to measure it: once per `kind` and plan.

    `images` are those that it takes, `needed` how many there must be in their group, so that it costs little.
    """

    kind: str
    fit: Fit
    images: int
    needed: int


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that may share a batch: same weights, memory settings, adapters and sampling, other prompts and seeds."""

    model: ModelSettings
    memory: MemorySettings
    likeness: Likeness
    adapters: Adapters
    fit: Fit
    bundle_images: int

    @property
    def load_key(self) -> tuple[ModelSettings, str]:
        """The key that says whether a worker must load a model: the weights and their precision."""
        return self.model, self.memory.dtype

    @property
    def shape_key(self) -> Hashable:
        """The shapes that a compiled model is compiled for."""
        return self.load_key, self.likeness.width, self.likeness.height, self.adapters.loras

    @property
    def bundle_key(self) -> Hashable:
        """The settings that all batches of a bundle share."""
        adapters, size = self.adapters, (self.likeness.width, self.likeness.height)
        beside = (*(one.sha256 for one in adapters.controlnets), *(one.sha256 for one in adapters.ip_adapters))
        return self.load_key, self.fit, size, adapters.loras, adapters.embeddings, beside
