"""How the pictures of a configuration are fitted into memory, kind by kind, while planning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.config import BatchConfig
from jobs.models import KnownModel
from jobs.plan import Fit
from pipeline.errors import ConfigError
from pipeline.memory.choice import choose_batch
from pipeline.memory.estimate import Shape
from pipeline.memory.techniques import conflicts, ordered
from pipeline.memory.working_memory import GIB
from pipeline.models.identity import folder_hash, remember_place
from pipeline.models.inspection import inspect_file
from pipeline.models.references import resolve
from pipeline.models.vae_fit import check_vae
from pipeline.request import Adapters, MemorySettings
from pipeline.request_id import Likeness
from pipeline.speed import DEPENDS_ON_NEIGHBOURS
from pipeline.system.device import Device, DeviceMemory


def asked_memory(config: BatchConfig, device: Device, model: KnownModel | None = None) -> MemorySettings:
    """What the configuration asks for by name, checked against the model where it is known.

    Raises `ConfigError` with one line per forbidden combination, `ModelError` for a tiny VAE that does not fit.
    """
    memory = config.memory
    wanted = (dtype for dtype in (memory.dtype, config.model.dtype) if dtype != "auto")
    dtype = next(wanted, device.dtype)
    techniques: dict[str, str | bool] = memory.techniques.model_dump()  # type: ignore[attr-defined]
    on = [name for name, value in techniques.items() if value is True]
    exact = memory.quality == "exact"
    faults = [
        f"memory.techniques: {line}"
        for line in conflicts(on, device.kind, exact=exact, tiny_vae=memory.tiny_vae is not None)
    ]
    if faults:
        raise ConfigError(faults)
    asked = MemorySettings(
        level=memory.level,
        dtype=dtype,
        techniques=ordered(on),
        off=ordered(name for name, value in techniques.items() if value is False),
        exact=exact,
        budget_bytes=None if memory.budget_gb is None else int(memory.budget_gb * GIB),
    )
    if memory.tiny_vae is None:
        return asked
    folder = resolve(memory.tiny_vae, "tiny VAE")
    facts = inspect_file(folder)
    if facts.class_name != "AutoencoderTiny" or not folder.is_dir():
        raise ConfigError(f"memory.tiny_vae: {folder.name} is {facts.label}; expected the folder of an AutoencoderTiny")
    if model is not None and model.files is not None:
        check_vae(folder, model.files)
    sha256 = folder_hash(folder, [folder / "config.json", *facts.files])
    remember_place(sha256, folder)
    return replace(asked, tiny_vae_source=str(folder), tiny_vae_sha256=sha256)


@dataclass(slots=True)
class Fitting:
    """Chooses techniques and batch size for each kind of picture of one configuration; each kind once."""

    config: BatchConfig
    model: KnownModel
    asked: MemorySettings
    device: Device
    memory: DeviceMemory
    _known: dict[tuple[int, int, int, bool, tuple[str, ...]], Fit] = field(default_factory=dict)

    def __call__(self, likeness: Likeness, adapters: Adapters) -> Fit:
        """The fit for one kind of picture."""
        beside = tuple(one.source for one in adapters.controlnets) + tuple(
            one.encoder_source for one in adapters.ip_adapters if one.encoder_source
        )
        most = self._most(likeness)
        guided = likeness.guidance_scale > 1
        key = (likeness.width, likeness.height, most, guided, beside)
        if key not in self._known:
            shape = Shape(likeness.width, likeness.height, 1, guided)
            fixed = self.config.batch_size != "auto" or likeness.step_cache in DEPENDS_ON_NEIGHBOURS
            sizes = self.model.sizes
            for source in beside:
                sizes = sizes.beside(source, inspect_file(Path(source)).parameters)
            choice = choose_batch(self.asked, sizes, shape, self.memory, self.device.kind, most, fixed=fixed)
            self._known[key] = Fit(
                held=choice.memory,
                batch_size=choice.shape.batch,
                predicted_peak_bytes=choice.estimate.peak_bytes,
                budget_bytes=choice.budget_bytes,
                fits=choice.fits,
                least_bytes=choice.least_bytes,
                stage_bytes=tuple(choice.estimate.stage_bytes.items()),
            )
        return self._known[key]

    def _most(self, likeness: Likeness) -> int:
        """The largest batch that the configuration allows."""
        if likeness.step_cache in DEPENDS_ON_NEIGHBOURS:
            return 1
        if self.config.batch_size != "auto":
            return self.config.batch_size
        memory = self.config.memory
        return max(1, min(memory.max_batch_size, memory.max_batch_pixels // (likeness.width * likeness.height)))
