"""The Python API: a model that stays loaded, held in memory as it must be, and makes pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, ValidationInfo, field_validator

from pipeline.adapters.identify import identify_adapters
from pipeline.adapters.specs import AdapterSpecs, ControlNetSpec, EmbeddingSpec, InitSpec, IpAdapterSpec, LoraSpec
from pipeline.errors import ConfigError, JobFailure
from pipeline.faults import FieldFault, faults_of
from pipeline.generation.current_model import CurrentModel
from pipeline.generation.generate import generate_bundle
from pipeline.loading.precision import model_dtype
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.choose_techniques import ALWAYS_ON, MemoryPlan, choose, shortage
from pipeline.memory.planning.estimate import Shape, Sizes
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.memory.planning.rates import rates_of
from pipeline.memory.planning.techniques import SWITCHES
from pipeline.picture import Picture
from pipeline.ranges import (
    CLIP_SKIP,
    STRICT,
    ClipSkip,
    Gigabytes,
    Guidance,
    Seed,
    Side,
    Steps,
    Text,
    one_of,
    refused_by,
)
from pipeline.registry.model_settings import identify
from pipeline.request import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    DeviceChoice,
    DTypeChoice,
    ImageRequest,
    LoraWeights,
    MemoryLevel,
    MemoryQuality,
    MemorySettings,
    SpeedSettings,
)
from pipeline.schedulers import SchedulerName, name_of_class
from pipeline.system.device import DeviceMemory, device_memory, find_device
from pipeline.weights.references import EMBEDDED_DEFAULTS

PathOf = str | Path


def _switch_fault(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _techniques_fault(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be names with True or False, as in {'vae_tiling': True}"


def _list_fault(value: Any) -> str | None:
    return "must be a list, also of one" if isinstance(value, str) or not isinstance(value, Sequence) else None


def _as_spec(kind: type) -> BeforeValidator:
    """For pydantic: a path, or a tuple that begins with one, stands for a spec."""
    name = kind.__name__.removesuffix("Spec")

    def spec(value: Any) -> Any:
        try:
            return value if isinstance(value, kind) else kind(*(value if isinstance(value, tuple) else (value,)))
        except TypeError:
            article = "an" if name[0] in "EI" else "a"
            raise ValueError(f"must be {article} {name}, or a tuple with its values in order") from None

    return BeforeValidator(spec)


class MemoryArguments(BaseModel):
    """How a model is to be held, as Python says it."""

    model_config = STRICT

    device: DeviceChoice
    dtype: DTypeChoice
    memory: MemoryLevel
    quality: MemoryQuality
    budget_gb: Gigabytes | None
    techniques: (
        Annotated[
            dict[Annotated[str, one_of(SWITCHES)], Annotated[bool, refused_by(_switch_fault)]],
            refused_by(_techniques_fault),
        ]
        | None
    )


class PictureArguments(BaseModel):
    """What a picture is to be, as Python says it, with the model's own values where it says nothing.

    Validated with the number of the model's text encoder layers that can be left out, or None, as the context.
    """

    model_config = STRICT

    prompt: Text
    negative_prompt: Text
    seed: Seed
    steps: Steps
    width: Side
    height: Side
    guidance_scale: Guidance
    clip_skip: ClipSkip | None
    scheduler: SchedulerName | None
    loras: Annotated[list[Annotated[LoraSpec, _as_spec(LoraSpec)]], refused_by(_list_fault)]
    embeddings: Annotated[list[Annotated[EmbeddingSpec, _as_spec(EmbeddingSpec)]], refused_by(_list_fault)]
    controlnets: Annotated[list[Annotated[ControlNetSpec, _as_spec(ControlNetSpec)]], refused_by(_list_fault)]
    ip_adapters: Annotated[list[Annotated[IpAdapterSpec, _as_spec(IpAdapterSpec)]], refused_by(_list_fault)]
    init: InitSpec

    @field_validator("clip_skip", mode="before")
    @classmethod
    def _within_model(cls, value: Any, info: ValidationInfo) -> Any:
        most: int | None = info.context
        if value is not None and most is not None:
            fault = replace(CLIP_SKIP, most=min(most, CLIP_SKIP.most)).fault(value)
            if fault:
                raise ValueError(fault)
        return value


Arguments = TypeVar("Arguments", bound=BaseModel)


def _checked(model: type[Arguments], values: Mapping[str, Any], context: Any = None) -> Arguments:
    """Raises `ConfigError` with one line per fault: what, what was expected, what was given."""
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise ConfigError([f"{_place(fault)}: {fault.expected}{fault.got}" for fault in faults_of(error)]) from None


def _place(fault: FieldFault) -> str:
    """The argument at fault, by the name that it has in Python: `loras[0]: weight`, `techniques['staged']`."""
    first, *rest = fault.location
    match first, rest:
        case "init", [name]:
            return "init_image" if name == "image" else str(name)
        case "techniques", [name]:
            return f"techniques[{name!r}]"
        case _, [int(place), *names]:
            return ": ".join([f"{first}[{place}]", *(str(name) for name in names if name != "source")])
    return str(first)


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
        device: DeviceChoice = "auto",
        vae: str | None = None,
        dtype: DTypeChoice = "auto",
        memory: MemoryLevel = "auto",
        budget_gb: float | None = None,
        quality: MemoryQuality = "any",
        techniques: Mapping[str, bool] | None = None,
        tiny_vae: str | None = None,
    ) -> None:
        _checked(
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
        self._settings, self._files = identify(model, vae=vae)
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
        default_steps, default_guidance = EMBEDDED_DEFAULTS.get(
            self._settings.source, (DEFAULT_STEPS, DEFAULT_GUIDANCE)
        )
        given = _checked(
            PictureArguments,
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "seed": seed,
                "steps": default_steps if steps is None else steps,
                "width": self._files.width if width is None else width,
                "height": self._files.height if height is None else height,
                "guidance_scale": default_guidance if guidance_scale is None else guidance_scale,
                "clip_skip": clip_skip,
                "scheduler": scheduler,
                "loras": loras,
                "embeddings": embeddings,
                "controlnets": controlnets,
                "ip_adapters": ip_adapters,
                "init": {} if init_image is None else {"image": init_image, "strength": strength},
            },
            self._files.max_clip_skip,
        )
        own_scheduler = name_of_class(self._files.scheduler_class, self._files.scheduler_config)
        specs = AdapterSpecs(
            loras=given.loras,
            embeddings=given.embeddings,
            controlnets=given.controlnets,
            ip_adapters=given.ip_adapters,
        )
        request = ImageRequest(
            prompt=given.prompt,
            negative_prompt=given.negative_prompt,
            seed=given.seed,
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

    def _choose(self, request: ImageRequest) -> MemoryPlan:
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
