"""The Python API: a model that stays loaded, held in memory as it must be, and makes pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from pipeline.adapters.specs import AdapterSpecs, ControlNet, Embedding, Init, IpAdapter, Lora, identify_adapters
from pipeline.checks import asked_each, check_memory, check_request
from pipeline.errors import ConfigError, JobFailure
from pipeline.generation.current_model import CurrentModel
from pipeline.generation.generate import generate_bundle
from pipeline.loading.precision import model_dtype
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.choice import ALWAYS_ON, Choice, choose, shortage
from pipeline.memory.planning.estimate import Shape, Sizes
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.memory.planning.rates import rates_of
from pipeline.picture import Picture
from pipeline.registry.model_settings import identify
from pipeline.request import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    DType,
    ImageRequest,
    LoraWeights,
    MemorySettings,
    SpeedSettings,
)
from pipeline.schedulers import name_of_class, scheduler_name
from pipeline.system.device import DeviceMemory, device_memory, find_device
from pipeline.weights.references import EMBEDDED_DEFAULTS

PathOf = str | Path


class Pipeline:
    """A model ready to make pictures. Loads on first use; `close`, or leaving the `with` block, frees it.

    `model` is the name of an embedded model, or the path of a diffusers folder or a file of weights. `device` is
    `auto`, `cpu`, `cuda` or `mps`; `dtype` `auto` takes what suits it and the model.

    `memory` is a level: `auto` takes what the device has free, `none`, `balanced`, `aggressive` and `ultra` are for
    cards of 24, 12, 8 and 4 GB. Techniques are chosen for each size of picture as a run would choose them, within
    `budget_gb` (units of 2^30 bytes) if that is given; `techniques` switches some on (True) or off (False) by name, and
    `quality="exact"` allows none that changes pixels. `tiny_vae` is the folder of an AutoencoderTiny.

    Raises `ConfigError` with everything that is wrong with the arguments, `ModelError` for weights that are missing or
    damaged.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        device: str = "auto",
        vae: str | None = None,
        dtype: Literal["auto"] | DType = "auto",
        memory: Literal["auto", "none", "balanced", "aggressive", "ultra"] = "auto",
        budget_gb: float | None = None,
        quality: Literal["any", "exact"] = "any",
        techniques: Mapping[str, bool] | None = None,
        tiny_vae: str | None = None,
    ) -> None:
        check_memory(dtype=dtype, memory=memory, budget_gb=budget_gb, quality=quality, techniques=techniques)
        self._settings, self._files = identify(model, vae=vae)
        self._device = find_device(device)
        self._asked = requested_memory(
            memory,
            model_dtype(dtype, self._device, self._files.family),
            {**dict.fromkeys(ALWAYS_ON.get(memory, ()), True), **(techniques or {})},
            self._device.kind,
            exact=quality == "exact",
            budget_gb=budget_gb,
            tiny_vae=tiny_vae,
            files=self._files,
        )
        self._sizes = Sizes.from_files(self._files)
        self._loras: dict[str, LoraWeights] = {}
        self._room: DeviceMemory | None = None
        self._current: CurrentModel | None = None

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
        loras: Sequence[Lora | PathOf | tuple[PathOf, float]] = (),
        embeddings: Sequence[Embedding | PathOf | tuple[PathOf, str]] = (),
        controlnets: Sequence[ControlNet] = (),
        ip_adapters: Sequence[IpAdapter] = (),
        init_image: PathOf | None = None,
        strength: float = 0.6,
    ) -> Picture:
        """Make one picture; sizes in pixels, those of the model by default.

        `loras` are paths, or paths with weights: `[("style.safetensors", 0.8)]`; `embeddings` paths, or paths with the
        tokens that stand for them. `init_image` is the picture to start from, of which `strength` 1 leaves nothing.

        Raises `ConfigError` with everything that is wrong with the arguments, adapters and memory included,
        `JobFailure`, and `ModelError` for weights that cannot be loaded.
        """
        default_steps, default_guidance = EMBEDDED_DEFAULTS.get(
            self._settings.source, (DEFAULT_STEPS, DEFAULT_GUIDANCE)
        )
        steps = default_steps if steps is None else steps
        guidance_scale = default_guidance if guidance_scale is None else guidance_scale
        width = self._files.width if width is None else width
        height = self._files.height if height is None else height
        asked = AdapterSpecs(
            loras=asked_each("loras", Lora, loras),
            embeddings=asked_each("embeddings", Embedding, embeddings),
            controlnets=asked_each("controlnets", ControlNet, controlnets),
            ip_adapters=asked_each("ip_adapters", IpAdapter, ip_adapters),
            init=None if init_image is None else Init(init_image, strength),
        )
        check_request(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            clip_skip=clip_skip,
            adapters=asked,
            max_clip_skip=self._files.max_clip_skip,
        )
        own_scheduler = name_of_class(self._files.scheduler_class, self._files.scheduler_config)
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
            memory=self._asked,
            adapters=identify_adapters(asked, self._files, steps=steps),
        )
        choice = self._choose(request)
        model = self._model(choice.memory)
        created = datetime.now(UTC)
        outcomes = generate_bundle(model, [[request]], predicted_peak_bytes=choice.estimate.peak_bytes)
        ((_, outcome),) = outcomes
        if isinstance(outcome, JobFailure):
            raise outcome
        return Picture(outcome, created)

    def close(self) -> None:
        """Free the model; it is loaded again when needed."""
        if self._current is not None:
            self._current.release(keep=False)
        self._current = self._room = None
        self._loras.clear()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _choose(self, request: ImageRequest) -> Choice:
        """How the model is to be held for a picture. What is free counts from before it was loaded."""
        if self._room is None:
            self._room = device_memory(self._device)
        shape = Shape(request.width, request.height, 1, request.guidance_scale > 1)
        self._loras |= {one.sha256: one for one in request.adapters.loras}  # they stay on the model, switched off
        sizes = self._sizes.with_adapters(request.adapters, self._loras.values())
        choice = choose(self._asked, sizes, shape, self._room, self._device.kind, rates_of(self._device))
        if self._asked.budget_bytes is not None and not choice.fits:
            raise ConfigError(
                shortage(self._settings.name, request.width, request.height, choice.budget_bytes, choice.least_bytes)
            )
        return choice

    def _model(self, planned: MemorySettings) -> LoadedModel:
        from pipeline.memory.device.pool import Pool

        if self._current is None:
            # There is no other model for which anything should wait in the pool.
            self._current = CurrentModel(self._device.kind, Pool(host_bytes=0), SpeedSettings())
        return self._current.get(self._settings, self._asked, planned)


def _named(scheduler: str) -> str:
    try:
        return scheduler_name(scheduler)
    except ValueError as error:
        raise ConfigError(f"scheduler: {error} (got {scheduler!r})") from None
