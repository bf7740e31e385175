"""Chooses techniques and batch size for each kind of picture of a configuration while planning."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from jobs.config.batch_config import BatchConfig
from jobs.planning.groups import Fit, Trial
from jobs.planning.known_models import KnownModel
from pipeline.loading.precision import model_dtype
from pipeline.loading.speed_options import DEPENDS_ON_NEIGHBOURS, FULL_BREAK_EVEN
from pipeline.memory.planning import memory_request
from pipeline.memory.planning.choose_techniques import MemoryPlan, batch_range, choose
from pipeline.memory.planning.estimate import Shape
from pipeline.memory.planning.history import kinds
from pipeline.memory.planning.rates import Rates, published, rates_of
from pipeline.memory.planning.sizes import Sizes
from pipeline.memory.planning.timings import (
    TRIAL_BATCHES,
    TimingKind,
    Timings,
    comparable,
    kind_of,
    passes,
    preferred,
    untried,
)
from pipeline.request import Adapters, Likeness, MemorySettings, SpeedSettings
from pipeline.system.device import Device, DeviceMemory
from pipeline.system.units import GIB

TRIED_SHARE = 4
"""At most one of so many pictures of a group is made in a size that is being measured, and maybe slower."""


def requested_memory(
    config: BatchConfig, device: Device, model: KnownModel | None = None, family: str | None = None
) -> MemorySettings:
    """A configuration's memory settings, checked against the model if it is known; raises as `memory_request`.

    `family`: that of the model, where no more of it is known.
    """
    memory = config.memory
    wanted = memory.dtype if memory.dtype != "auto" else config.model.dtype
    return memory_request.requested_memory(
        memory.level,
        model_dtype(
            wanted,
            device,
            model.sizes.family if model else family,
            model.files.components if model and model.files else (),
        ),
        memory.techniques.model_dump(),  # type: ignore[attr-defined]
        device.kind,
        exact=memory.quality == "exact",
        budget_gb=memory.budget_gb,
        tiny_vae=memory.tiny_vae,
        files=model.files if model else None,
    )


def speed_settings(config: BatchConfig) -> SpeedSettings:
    """The speed settings of a configuration."""
    engine = config.engine
    return SpeedSettings(attention=engine.attention, compile=engine.compile, channels_last=engine.channels_last)


@dataclass(slots=True)
class Fitting:
    """Chooses techniques and batch size for each kind of picture of one configuration; each kind once.

    `timings` are this machine's measurements; None where it is not this machine that is planned for.
    """

    config: BatchConfig
    model: KnownModel
    asked: MemorySettings
    device: Device
    memory: DeviceMemory
    timings: Timings | None = field(default_factory=Timings)
    _known: dict[Hashable, Fit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        host_gb = self.config.memory.host_gb
        if host_gb is not None:
            self.memory = replace(self.memory, host_free_bytes=min(self.memory.host_free_bytes, int(host_gb * GIB)))

    def __call__(self, likeness: Likeness, adapters: Adapters) -> Fit:
        """The fit for one kind of picture."""
        shape = Shape(likeness.width, likeness.height, 1, likeness.guidance_scale > 1)
        sizes = self.model.sizes.with_adapters(adapters, self.model.loras.values())
        key = (shape, sizes, likeness.step_cache, passes(likeness, adapters), kinds(adapters))
        if key not in self._known:
            self._known[key] = self._fitted(likeness, adapters, shape, sizes)
        return self._known[key]

    def _fitted(self, likeness: Likeness, adapters: Adapters, shape: Shape, sizes: Sizes) -> Fit:
        alone = likeness.step_cache in DEPENDS_ON_NEIGHBOURS
        if alone or self.config.batch_size != "auto":
            return _fit(self._choose(sizes, shape, 1 if alone else int(self.config.batch_size)))
        memory = self.config.memory
        most = max(1, min(memory.max_batch_size, memory.max_batch_pixels // (shape.width * shape.height)))
        usual, largest = batch_range(self.asked, sizes, shape, self.memory, self.device.kind, most, self._rates)
        choice = self._choose(sizes, shape, usual)
        if self.asked.exact or self.timings is None:  # other batches, other last bits
            return _fit(choice)
        largest = min(largest, max(usual, self.config.bundle_images))  # how long one waits for the first picture
        kind, measured = self._measured(self.timings, choice.memory, likeness, adapters)
        seconds = comparable(measured, usual, largest)
        batch = preferred(seconds, usual)
        other = untried(seconds, usual, batch, largest)
        trial = self._trial(kind, _fit(self._choose(sizes, shape, other))) if other else None
        return replace(_fit(self._choose(sizes, shape, batch)), trial=trial, seconds=tuple(seconds.items()))

    def _choose(self, sizes: Sizes, shape: Shape, batch: int) -> MemoryPlan:
        return choose(self.asked, sizes, replace(shape, batch=batch), self.memory, self.device.kind, self._rates)

    @property
    def _rates(self) -> Rates:
        return published(self.device) if self.timings is None else rates_of(self.device)

    def _measured(
        self, timings: Timings, held: MemorySettings, likeness: Likeness, adapters: Adapters
    ) -> tuple[TimingKind, dict[int, float]]:
        """The kind of picture, and its seconds per picture by batch size.

        Whether `compile: auto` compiles is only known where the model is; what was measured so counts first.
        """
        found: list[tuple[TimingKind, dict[int, float]]] = []
        for compiled in (True, False) if self._may_compile else (False,):
            speed, name = speed_settings(self.config), self.device.name or self.device.kind
            kind = kind_of(self.model.settings, held, likeness, adapters, speed, name, compiled=compiled)
            found.append((kind, timings.seconds(kind, passes(likeness, adapters))))
        return next((one for one in found if one[1]), found[-1])

    def _trial(self, kind: TimingKind, fit: Fit) -> Trial:
        images = TRIAL_BATCHES * fit.batch_size
        needed = TRIED_SHARE * images
        if self._may_compile:  # which is done once more for another size
            needed = max(needed, 2 * FULL_BREAK_EVEN)
        return Trial(kind.key(), fit, images, needed)

    @property
    def _may_compile(self) -> bool:
        wanted = self.config.engine.compile
        return wanted == "on" or (wanted == "auto" and self.device.kind == "cuda")


def _fit(choice: MemoryPlan) -> Fit:
    return Fit(
        held=choice.memory,
        batch_size=choice.shape.batch,
        predicted_peak_bytes=choice.estimate.peak_bytes,
        budget_bytes=choice.budget_bytes,
        fits=choice.fits,
        least_bytes=choice.least_bytes,
        stage_bytes=tuple(choice.estimate.stage_bytes.items()),
    )
