"""What the Python API is given, validated by the same ranges and specs as configurations and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, ValidationInfo, field_validator

from pipeline.adapters.specs import ControlNetSpec, EmbeddingSpec, InitSpec, IpAdapterSpec, LoraSpec
from pipeline.errors import ConfigError
from pipeline.faults import FieldFault, faults_of
from pipeline.memory.planning.techniques import SWITCHES
from pipeline.ranges import (
    CLIP_SKIP,
    STRICT,
    BatchSize,
    ChosenLoras,
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
from pipeline.request import (
    DeviceChoice,
    DTypeChoice,
    MemoryLevel,
    MemoryQuality,
)
from pipeline.schedulers import SchedulerName
from pipeline.selection.wishes import LicenceWish
from pipeline.weights.families import FAMILIES

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


def path_text(name: str, value: PathOf) -> str:
    """An argument that is a path, or the name of a model, as text. Raises `ConfigError` for anything else."""
    if not isinstance(value, PathOf):
        raise ConfigError(f"{name}: must be a path or a name (got {value!r})")
    return str(value)


class MemoryArguments(BaseModel):
    """The memory arguments of the Python API."""

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


AnalysisStages = Literal["auto", "rules", "meaning"]
"""How prompts are understood: by rules, and then by the sentence encoder, with `auto` if it is installed."""


class AutoArguments(MemoryArguments):
    """The arguments of `Pipeline.auto`."""

    analysis: AnalysisStages
    max_loras: ChosenLoras
    licence: LicenceWish
    families: Annotated[list[Annotated[str, one_of(FAMILIES)]], refused_by(_list_fault)]
    exclude: Annotated[list[Text], refused_by(_list_fault)]


class PictureSettings(TypedDict, total=False):
    """What `Pipeline.generate_many` takes for all of its pictures, as `Pipeline.generate` does for one."""

    negative_prompt: str
    steps: int | None
    guidance_scale: float | None
    width: int | None
    height: int | None
    scheduler: str | None
    clip_skip: int | None
    loras: Sequence[LoraSpec | PathOf | tuple[PathOf, float]]
    embeddings: Sequence[EmbeddingSpec | PathOf | tuple[PathOf, str]]
    controlnets: Sequence[ControlNetSpec]
    ip_adapters: Sequence[IpAdapterSpec]
    init_image: PathOf | None
    strength: float


class SettingsArguments(BaseModel):
    """The settings of pictures in the Python API, with the model's own values as defaults.

    Validated with the number of the model's text encoder layers that can be left out, or None, as the context.
    """

    model_config = STRICT

    negative_prompt: Text
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


class PictureArguments(SettingsArguments):
    """One picture."""

    prompt: Text
    seed: Seed


class ManyArguments(SettingsArguments):
    """Every prompt with every seed."""

    prompts: Annotated[list[Text], refused_by(_list_fault)]
    seeds: Annotated[list[Seed], refused_by(_list_fault)]
    batch_size: BatchSize | None


def completed(
    settings: PictureSettings, *, steps: int, guidance_scale: float, width: int, height: int
) -> dict[str, Any]:
    """Settings by the fields of `SettingsArguments`, with these of a model where nothing was said."""
    own = {
        "negative_prompt": "",
        "steps": steps,
        "guidance_scale": guidance_scale,
        "width": width,
        "height": height,
        "clip_skip": None,
        "scheduler": None,
        **dict.fromkeys(("loras", "embeddings", "controlnets", "ip_adapters"), ()),
    }
    from_model = ("steps", "guidance_scale", "width", "height")  # where None stands for the model's own
    values: dict[str, Any] = {
        name: value for name, value in settings.items() if value is not None or name not in from_model
    }
    image, strength = values.pop("init_image", None), values.pop("strength", InitSpec().strength)
    return {**own, **values, "init": {"image": image, "strength": strength}}


Arguments = TypeVar("Arguments", bound=BaseModel)


def checked(model: type[Arguments], values: Mapping[str, Any], context: Any = None) -> Arguments:
    """Raises `ConfigError` with one line per fault, in the order of `values`: what, expected what, got what."""
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        order = list(values)
        faults = sorted(faults_of(error), key=lambda fault: order.index(str(fault.location[0])))
        raise ConfigError([f"{_place(fault)}: {fault.expected}{fault.got}" for fault in faults]) from None


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
