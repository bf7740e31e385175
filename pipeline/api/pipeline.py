"""The Python API: a model that stays loaded, fitted into memory, and makes pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Unpack

from pipeline.adapters.identify import identify_adapters
from pipeline.adapters.specs import AdapterSpecs, ControlNetSpec, EmbeddingSpec, IpAdapterSpec, LoraSpec
from pipeline.api.arguments import (
    AnalysisStages,
    ManyArguments,
    MemoryArguments,
    PathOf,
    PictureArguments,
    PictureSettings,
    SettingsArguments,
    checked,
    completed,
    path_text,
)
from pipeline.api.auto import AutoPipeline
from pipeline.api.picture import Picture, the_picture
from pipeline.errors import ConfigError, JobFailure
from pipeline.generation.current_model import CurrentModel
from pipeline.generation.generate import generate_bundle
from pipeline.loading.precision import model_dtype
from pipeline.loading.sampling_faults import sampling_faults
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.choose_techniques import (
    ALWAYS_ON,
    MAX_BATCH_PIXELS,
    MAX_BATCH_SIZE,
    MemoryPlan,
    batch_range,
    choose,
    shortage,
)
from pipeline.memory.planning.estimate import Shape, Sizes
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.memory.planning.predicted_time import BUNDLE_IMAGES
from pipeline.memory.planning.rates import rates_of
from pipeline.registry.model_settings import identify
from pipeline.request import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    DeviceChoice,
    DTypeChoice,
    GeneratedImage,
    ImageRequest,
    LoraWeights,
    MemoryLevel,
    MemoryQuality,
    MemorySettings,
    SpeedSettings,
)
from pipeline.request_id import likeness_of
from pipeline.schedulers import name_of_class
from pipeline.selection.wishes import LicenceWish
from pipeline.system.device import DeviceMemory, device_memory, find_device
from pipeline.weights.families import family_of
from pipeline.weights.references import EMBEDDED_DEFAULTS


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
        model: PathOf = "demo",
        *,
        device: DeviceChoice = "auto",
        vae: PathOf | None = None,
        dtype: DTypeChoice = "auto",
        memory: MemoryLevel = "auto",
        budget_gb: float | None = None,
        quality: MemoryQuality = "any",
        techniques: Mapping[str, bool] | None = None,
        tiny_vae: PathOf | None = None,
    ) -> None:
        checked(
            MemoryArguments,
            {
                "device": device,
                "dtype": dtype,
                "memory": memory,
                "quality": quality,
                "budget_gb": budget_gb,
                "techniques": techniques,
            },
        )
        vae = None if vae is None else path_text("vae", vae)
        tiny_vae = None if tiny_vae is None else path_text("tiny_vae", tiny_vae)
        self._settings, self._files = identify(path_text("model", model), vae=vae)
        self._device = find_device(device)
        self._asked = requested_memory(
            memory,
            model_dtype(dtype, self._device, self._files.family, self._files.components),
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
        self._is_making = False

    @staticmethod
    def auto(
        *,
        device: DeviceChoice = "auto",
        dtype: DTypeChoice = "auto",
        memory: MemoryLevel = "auto",
        budget_gb: float | None = None,
        quality: MemoryQuality = "any",
        techniques: Mapping[str, bool] | None = None,
        analysis: AnalysisStages = "auto",
        max_loras: int = 3,
        licence: LicenceWish = "any",
        families: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> AutoPipeline:
        """A pipeline that chooses model, LoRAs, texts and settings for each prompt, of what is on this machine.

        `device` to `techniques` hold for whatever is chosen. `analysis` is how prompts are understood: by `rules`, by
        rules and the sentence encoder (`meaning`), or with what is installed (`auto`). At most `max_loras` are applied,
        `licence="commercial"` takes only what may be used for money, `families` are those of the models that may be
        taken, if there are any, and `exclude` are names of models and LoRAs that may not.

        Raises `ConfigError` with everything that is wrong with the arguments.
        """
        return AutoPipeline(
            Pipeline,
            device=device,
            dtype=dtype,
            memory=memory,
            budget_gb=budget_gb,
            quality=quality,
            techniques=techniques,
            analysis=analysis,
            max_loras=max_loras,
            licence=licence,
            families=families,
            exclude=exclude,
        )

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
        loras: Sequence[LoraSpec | PathOf | tuple[PathOf, float]] = (),
        embeddings: Sequence[EmbeddingSpec | PathOf | tuple[PathOf, str]] = (),
        controlnets: Sequence[ControlNetSpec] = (),
        ip_adapters: Sequence[IpAdapterSpec] = (),
        init_image: PathOf | None = None,
        strength: float = 0.6,
    ) -> Picture:
        """Make one picture; sizes in pixels, those of the model by default.

        `loras` are paths, or paths with weights: `[("style.safetensors", 0.8)]`; `embeddings` paths, or paths with the
        tokens that stand for them. `init_image` is the picture to start from, of which `strength` 1 leaves nothing.

        Raises `ConfigError` with everything that is wrong with the arguments, adapters and memory included,
        `JobFailure`, and `ModelError` for weights that cannot be loaded.
        """
        settings = self._completed(
            negative_prompt=negative_prompt,
            steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            scheduler=scheduler,
            clip_skip=clip_skip,
            loras=loras,
            embeddings=embeddings,
            controlnets=controlnets,
            ip_adapters=ip_adapters,
            init_image=init_image,
            strength=strength,
        )
        given = checked(PictureArguments, {"prompt": prompt, "seed": seed, **settings}, self._files.max_clip_skip)
        return the_picture(self._made(given, [(given.prompt, given.seed)], 1))

    def generate_many(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] = (0,),
        batch_size: int | None = None,
        **settings: Unpack[PictureSettings],
    ) -> Iterator[Picture | JobFailure]:
        """Make every prompt with every seed; yields them prompt by prompt, seed by seed, as soon as each is made.

        A picture that fails is yielded as its `JobFailure`, and the others are made. As in a run, 32 at a time have
        their texts encoded first, and `batch_size` of them are denoised together; None takes what fits and pays.
        `settings` are those of `generate`, and hold for all. Nothing is made before it is asked for, and the pipeline
        makes nothing else until all have been taken or the iterator is closed.

        Raises, at once, `ConfigError` with everything that is wrong with the arguments; while making, `ModelError`.
        """
        given = checked(
            ManyArguments,
            {"prompts": prompts, "seeds": seeds, "batch_size": batch_size, **self._completed(**settings)},
            self._files.max_clip_skip,
        )
        return self._made(given, [(prompt, seed) for prompt in given.prompts for seed in given.seeds], given.batch_size)

    def _completed(self, **settings: Unpack[PictureSettings]) -> dict[str, Any]:
        """Settings by the fields of `SettingsArguments`, with the model's own where nothing was said."""
        steps, guidance_scale = EMBEDDED_DEFAULTS.get(self._settings.source, (DEFAULT_STEPS, DEFAULT_GUIDANCE))
        width, height = self._files.width, self._files.height
        return completed(settings, steps=steps, guidance_scale=guidance_scale, width=width, height=height)

    def _made(
        self, given: SettingsArguments, asked: Sequence[tuple[str, int]], batch_size: int | None
    ) -> Iterator[Picture | JobFailure]:
        """Pictures of prompts with seeds; what is wrong with the settings is raised before this returns."""
        if not asked:
            return iter(())
        first = self._request(given, *asked[0])
        choice = self._choose(first, batch_size)
        return self._pictures([replace(first, prompt=prompt, seed=seed) for prompt, seed in asked], choice)

    def _pictures(self, requests: Sequence[ImageRequest], choice: MemoryPlan) -> Iterator[Picture | JobFailure]:
        if self._is_making:
            raise ConfigError(
                "generate_many: has pictures left to make; take them all, or close() the iterator, before others"
            )
        self._is_making = True
        try:
            for start in range(0, len(requests), BUNDLE_IMAGES):
                bundle = requests[start : start + BUNDLE_IMAGES]
                size = choice.shape.batch
                batches = [bundle[at : at + size] for at in range(0, len(bundle), size)]
                model, current, created = self._model(choice.memory), self._current, datetime.now(UTC)
                outcomes = generate_bundle(model, batches, predicted_peak_bytes=choice.estimate.peak_bytes)
                for outcome in _in_order(outcomes):
                    yield outcome if isinstance(outcome, JobFailure) else Picture(outcome, created)
                    if self._current is not current:
                        raise ConfigError("generate_many: the pipeline was closed before all pictures were taken")
        finally:
            self._is_making = False

    def _request(self, given: SettingsArguments, prompt: str, seed: int) -> ImageRequest:
        own_scheduler = name_of_class(self._files.scheduler_class, self._files.scheduler_config)
        specs = AdapterSpecs(
            loras=given.loras,
            embeddings=given.embeddings,
            controlnets=given.controlnets,
            ip_adapters=given.ip_adapters,
        )
        request = ImageRequest(
            prompt=prompt,
            negative_prompt=given.negative_prompt,
            seed=seed,
            steps=given.steps,
            guidance_scale=given.guidance_scale,
            width=given.width,
            height=given.height,
            scheduler=given.scheduler or own_scheduler,
            clip_skip=given.clip_skip,
            model=self._settings,
            memory=self._asked,
            adapters=identify_adapters(specs, given.init, self._files, steps=given.steps),
        )
        faults = sampling_faults(
            likeness_of(request),
            self._settings,
            self._files,
            family_of(self._files.pipeline_class),
            flow_matching=self._files.flow_matching,
            strength=request.adapters.init.strength if request.adapters.init else 1.0,
            takes_options=False,
        )
        if lines := [f"{name}: {fault}" for name, fault in faults]:
            raise ConfigError(lines)
        return request

    def close(self) -> None:
        """Free the model; it is loaded again when needed."""
        if self._current is not None:
            self._current.release(keep=False)
        self._current = self._room = None
        self._loras.clear()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _choose(self, request: ImageRequest, batch_size: int | None) -> MemoryPlan:
        """How the model is to be held for pictures like this one, and how many are denoised together.

        What is free counts from before it was loaded.
        """
        if self._room is None:
            self._room = device_memory(self._device)
        rates = rates_of(self._device)
        shape = Shape(request.width, request.height, 1, request.guidance_scale > 1)
        self._loras |= {one.sha256: one for one in request.adapters.loras}  # they stay on the model, switched off
        sizes = self._sizes.with_adapters(request.adapters, self._loras.values())
        if batch_size is None:
            pixels = MAX_BATCH_PIXELS[self._asked.level]
            most = max(1, min(MAX_BATCH_SIZE, pixels // (request.width * request.height)))
            batch_size, _ = batch_range(self._asked, sizes, shape, self._room, self._device.kind, most, rates)
        shape = replace(shape, batch=batch_size)
        choice = choose(self._asked, sizes, shape, self._room, self._device.kind, rates)
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


def _in_order(outcomes: Iterable[tuple[int, GeneratedImage | JobFailure]]) -> Iterator[GeneratedImage | JobFailure]:
    """Outcomes by their places; each as soon as all before it are there."""
    waiting: dict[int, GeneratedImage | JobFailure] = {}
    due = 0
    for place, outcome in outcomes:
        waiting[place] = outcome
        while due in waiting:
            yield waiting.pop(due)
            due += 1
