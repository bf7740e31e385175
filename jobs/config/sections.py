"""The sections of a batch configuration: one strict, frozen model for each group of `conf/`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, create_model, model_validator

from jobs.config.values import SchedulerOptions
from pipeline.adapters.specs import AdapterSpecs
from pipeline.loading.speed_options import ATTENTION_BACKENDS, STEP_CACHES
from pipeline.memory.planning.choose_techniques import MAX_BATCH_PIXELS, MAX_BATCH_SIZE
from pipeline.memory.planning.techniques import SWITCHES
from pipeline.metadata.metadata_settings import ImageFormat, MetadataSettings, Profile, Scheme
from pipeline.metadata.naming import NamingSettings
from pipeline.ranges import (
    EXCERPT_LENGTH,
    STRICT,
    BatchSize,
    ClipSkip,
    CpuThreads,
    EncoderQuality,
    Gigabytes,
    Guidance,
    Range,
    Seed,
    SequenceLength,
    Side,
    Steps,
    Text,
    one_of,
    refused_by,
)
from pipeline.request import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    MAX_SEED,
    Compile,
    DeviceChoice,
    DTypeChoice,
    MemoryLevel,
    MemoryQuality,
    PredictionType,
)
from pipeline.schedulers import SchedulerName
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR
from pipeline.weights.families import FAMILIES

_POSITIVE = Range(1, MAX_SEED, whole=True)


class Settings(BaseModel):
    model_config = STRICT


class Sampling(Settings):
    """How an image is sampled; what is None is taken from the model profile, then from `FALLBACK`."""

    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: SchedulerName | None = None
    clip_skip: ClipSkip | None = None
    scheduler_options: SchedulerOptions | None = None
    step_cache: Annotated[str, one_of(STEP_CACHES)] | None = None

    def over(self, other: Sampling) -> Sampling:
        """This one's values where they are set, the other's elsewhere."""
        # Both are checked already; a scheduler that only some weights bring would not pass a second time.
        return Sampling.model_construct(**{**other.model_dump(), **self.model_dump(exclude_none=True)})


FALLBACK = Sampling(steps=DEFAULT_STEPS, guidance_scale=DEFAULT_GUIDANCE)
"""Used where neither the batch nor the model profile says anything; sizes and scheduler then come from the weights."""


class Variants(Settings):
    """How `{a|b}` and `__wildcard__` in a prompt are expanded; with `literal` they are not, and mean themselves.

    `count` is per prompt; None means all (combinatorial) or 1.
    """

    mode: Literal["random", "combinatorial", "cyclic", "literal"] = "random"
    count: Annotated[int, Range(1, 1_000_000, whole=True).limits] | None = None
    prompt_seed: Seed = 0


def _lines(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("must be a list; start each prompt with '- '")
    return value


class Characters(Settings):
    """People of whom every pair of attributes is shown; `jobs.prompts.characters` checks what is in the mappings.

    `count` rows; None makes as many as that takes. `attributes` are changes to those that come with Darkroom.
    """

    count: Annotated[int, Range(1, 100_000, whole=True).limits] | None = None
    seed: Seed = 0
    template: Text | None = None
    attributes: dict[Text, Any] = {}
    constraints: list[Any] = []


class Prompts(Settings):
    """A prompt set: `lines` (texts, or mappings with overrides), a `file`, or `characters`. `jobs.prompts` reads it.

    `model` names the profile that the set was written for, which is taken where the model is left open.
    """

    name: Text | None = None
    model: Text | None = None
    lines: Annotated[list[Any], BeforeValidator(_lines)] | None = None
    file: Text | None = None
    characters: Characters | None = None
    negative_prompt: Text = ""
    prefix: Text = ""
    suffix: Text = ""
    tags: list[Text] = []
    variants: Variants = Variants()

    @model_validator(mode="after")
    def _one_source(self) -> Prompts:
        sources = [key for key in ("lines", "file", "characters") if getattr(self, key) is not None]
        if not sources:
            raise ValueError(
                "needs lines: (a list of prompts), file: (a .txt, .csv or .jsonl) or characters: (attributes of people)"
            )
        if len(sources) > 1:
            raise ValueError(f"has {' and '.join(sources)}; only one of them can say what the prompts are")
        return self


class AdapterSettings(AdapterSpecs):
    """The adapters of a batch. `tags`: a LoRA that a prompt names by `<lora:NAME:0.8>` is applied, too."""

    tags: bool = True

    @property
    def specs(self) -> AdapterSpecs:
        """Those that are listed."""
        return AdapterSpecs.model_construct(**{name: getattr(self, name) for name in AdapterSpecs.model_fields})


class Model(Settings):
    """A model profile: `source` is one reference for every kind of weights; `sampling` is what suits these weights.

    Not `defaults`: Hydra reads a list of that name in every configuration file. `config` is the folder that has what a
    single file leaves out. `family` and `parameters` (numbers of parameters per component, in billions, where they are
    not the family's usual ones) serve to plan for weights that are not on this machine. `distilled`: guidance was
    trained in, so no other value than the profile's makes sense.
    """

    source: Text
    name: Text | None = None
    family: Annotated[str, one_of(FAMILIES)] | None = None
    parameters: dict[str, Annotated[float, Range(0, 1_000_000, above=True).limits]] = {}
    vae: Text | None = None
    config: Text | None = None
    dtype: DTypeChoice = "auto"
    licence: Text | None = None
    distilled: bool = False
    safety_checker: bool = False
    prediction_type: PredictionType | None = None
    max_sequence_length: SequenceLength | None = None
    sampling: Sampling = Sampling()


_SWITCHES: dict[str, Any] = dict.fromkeys(SWITCHES, (Literal["auto"] | bool, "auto"))
Techniques: type[Settings] = create_model(
    "Techniques",
    __base__=Settings,
    __doc__="Each technique by name: on, off, or `auto`, which leaves it to the estimate.",
    **_SWITCHES,
)


class Memory(Settings):
    """A memory level. `dtype: auto` leaves the choice to the model profile and the device.

    `budget_gb` is what the device may hold; None takes the level's class, or what is free. `host_gb` is the main memory
    that a plan for a GPU counts on; None takes what is free. `quality: exact` forbids
    every technique that changes pixels, also for recovery. `max_batch_size` and `max_batch_pixels` bound what
    `batch_size: auto` takes: many small pictures, few large ones.
    """

    level: MemoryLevel
    budget_gb: Gigabytes | None = None
    host_gb: Gigabytes | None = None
    quality: MemoryQuality = "any"
    dtype: DTypeChoice = "auto"
    tiny_vae: Text | None = None
    max_batch_size: BatchSize = MAX_BATCH_SIZE
    max_batch_pixels: Annotated[int, _POSITIVE.limits] = MAX_BATCH_PIXELS["auto"]
    techniques: Techniques = Techniques()  # type: ignore[valid-type]


_NAMING, _METADATA = NamingSettings(), MetadataSettings()


class Naming(Settings):
    """How files are named; checked in detail by `pipeline.metadata.naming`."""

    scheme: Scheme = _NAMING.scheme
    time_format: Text = _NAMING.time_format
    separator: Text = _NAMING.separator
    excerpt_length: Annotated[int, EXCERPT_LENGTH.limits] = _NAMING.excerpt_length
    components: list[Text] = list[Text](_NAMING.components)
    folder: Text = _NAMING.folder


class Metadata(Settings):
    """What the image file carries. `quality` is for jpeg and webp, `lossless` for webp."""

    profile: Profile = _METADATA.profile
    sidecar: bool = _METADATA.sidecar
    exif_bmp_only: bool = _METADATA.exif_bmp_only
    quality: EncoderQuality = _METADATA.quality
    lossless: bool = _METADATA.lossless


class Engine(Settings):
    """Where bundles are made: `local` is one child process that may be lost and is started again.

    It is also started again, between bundles, after `recycle_images` images, when its memory has grown by
    `recycle_growth_gb`, and when an image takes `recycle_slowdown` times its own median; None never does.
    """

    kind: Literal["local"] = "local"
    device: DeviceChoice = "auto"
    cpu_threads: CpuThreads | None = None
    attention: Annotated[str, one_of(ATTENTION_BACKENDS)] = "native"
    compile: Compile = "auto"
    channels_last: bool = True
    read_ahead: bool = True
    recycle_images: Annotated[int, _POSITIVE.limits] | None = None
    recycle_growth_gb: Gigabytes | None = 4.0
    recycle_slowdown: Annotated[float, Range(1.1, 100).limits] | None = 2.0


def _folder_fault(value: Any) -> str | None:
    return "must name a folder; . is the working folder" if value == "" else None


class Output(Settings):
    """Where images go, and as what."""

    dir: Annotated[Text, refused_by(_folder_fault)] = DEFAULT_OUTPUT_DIR
    format: ImageFormat = "png"
