"""The model that is loaded now, and its memory plan."""

from __future__ import annotations

from pipeline.generation.recovery.guarded import could_apply, load_with_fallbacks
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.loading.unchanged import was_written_over
from pipeline.memory.device.apply import release_model
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.request import MemorySettings, ModelSettings, SpeedSettings


class CurrentModel:
    """Loads and changes the current model. `model` is None before the first one and after `release`; `loads` counts.

    If memory runs out for it, it gets more techniques than planned, and keeps them until the plan changes.
    """

    def __init__(
        self,
        device: str,
        pool: Pool,
        speed: SpeedSettings,
        cpu_threads: int | None = None,
        known_failures: KnownFailures | None = None,
    ) -> None:
        self.model: LoadedModel | None = None
        self.loads = 0
        self._device, self._pool, self._speed = device, pool, speed
        self._cpu_threads, self._known_failures = cpu_threads, known_failures
        self._planned: MemorySettings | None = None

    def get(self, settings: ModelSettings, asked: MemorySettings, planned: MemorySettings) -> LoadedModel:
        """The model of `settings` with the planned techniques, or with fallbacks as far as `asked` allows.

        Raises `ModelError`, and `OutOfMemory` where nothing is left to give up.
        """
        model = self.model
        same = model and (model.settings, model.memory.dtype) == (settings, planned.dtype)
        written_over = model is not None and was_written_over(model.read)
        # It has the planned techniques, or also those that were needed when memory ran out. If there is no room to
        # change them, it is loaded again.
        if model and same and not written_over and (planned == self._planned or could_apply(model, planned)):
            self._planned = planned
            return model
        del model
        self.release(keep=not written_over)  # before the next one comes, so that both never stand on the device
        self._planned = planned
        self.model = load_with_fallbacks(
            settings, asked, planned, self._device, self._cpu_threads, self._pool, self._speed, self._known_failures
        )
        self.loads += 1
        return self.model

    def forget_plan(self) -> None:
        """Apply the next plan to the model anew, whatever techniques it has now."""
        self._planned = None

    def release(self, *, keep: bool = True) -> None:
        """Give the model's components back to the pool; without `keep` none stays there for the next model."""
        model, self.model = self.model, None
        if model is not None:
            release_model(model, keep=keep)

    def remove_files(self) -> None:
        """Remove weights that are offloaded to disk, before the process ends; its end frees the memory."""
        if self.model is not None and self.model.memory.uses("disk_offload"):
            self.release(keep=False)
