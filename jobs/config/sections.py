"""The sections of a batch configuration: one strict, frozen model for each group of `conf/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from jobs import DEFAULT_OUTPUT_DIR
from jobs.config.values import (
    ClipSkip,
    Gigabytes,
    Guidance,
    InitStrength,
    SchedulerName,
    SchedulerOptions,
    Seed,
    Share,
    Side,
    Steps,
    Strength,
    Text,
    Weight,
    folder_name,
    whole,
)
from pipeline.loading.speed import ATTENTION_BACKENDS, STEP_CACHES
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.ranges import BATCH_SIZE, CPU_THREADS, EXCERPT_LENGTH, QUALITY, SEQUENCE_LENGTH
from pipeline.request import DEFAULT_GUIDANCE, DEFAULT_STEPS, PredictionType
from pipeline.weights.families import FAMILIES


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _one_of(value: object, choices: Sequence[str]) -> object:
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    return value


def _step_cache(value: object) -> object:
    return _one_of(value, tuple(STEP_CACHES))


def _attention(value: object) -> object:
    return _one_of(value, tuple(ATTENTION_BACKENDS))


def _family(value: object) -> object:
    return _one_of(value, tuple(FAMILIES))


class Sampling(Settings):
    """How an image is sampled; what is None is taken from the model profile, then from `FALLBACK`."""

    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: SchedulerName | None = None
    clip_skip: ClipSkip | None = None
    scheduler_options: SchedulerOptions | None = None
    step_cache: Annotated[str, BeforeValidator(_step_cache)] | None = None

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
    count: Annotated[int, BeforeValidator(whole), Field(ge=1, le=1_000_000)] | None = None
    prompt_seed: Seed = 0


def _lines(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("must be a list; start each prompt with '- '")
    return value


class Prompts(Settings):
    """A prompt set: `lines` (texts, or mappings with overrides) or `file`, never both. Read by `jobs.prompts.sets`."""

    name: Text | None = None
    lines: Annotated[list[Any], BeforeValidator(_lines)] | None = None
    file: Text | None = None
    negative_prompt: Text = ""
    prefix: Text = ""
    suffix: Text = ""
    tags: list[Text] = []
    variants: Variants = Variants()

    @model_validator(mode="after")
    def _one_source(self) -> Prompts:
        if (self.lines is None) == (self.file is None):
            raise ValueError("needs either lines: (a list of prompts) or file: (a .txt, .csv or .jsonl)")
        return self


class Model(Settings):
    """A model profile: `source` is one reference for every kind of weights; `sampling` is what suits these weights.

    Not `defaults`: Hydra reads a list of that name in every configuration file. `config` is the folder that has what a
    single file leaves out. `family` and `parameters` (numbers of parameters per component, in billions, where they are
    not the family's usual ones) serve to plan for weights that are not on this machine. `distilled`: guidance was
    trained in, so no other value than the profile's makes sense.
    """

    source: Text
    name: Text | None = None
    family: Annotated[str, BeforeValidator(_family)] | None = None
    parameters: dict[str, Annotated[float, Field(gt=0)]] = {}
    vae: Text | None = None
    config: Text | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    licence: Text | None = None
    distilled: bool = False
    safety_checker: bool = False
    prediction_type: PredictionType | None = None
    max_sequence_length: Annotated[int, BeforeValidator(whole), SEQUENCE_LENGTH.limits] | None = None
    sampling: Sampling = Sampling()


_SWITCHES: dict[str, Any] = {name: (Literal["auto"] | bool, "auto") for name in TECHNIQUES if name != "half_precision"}
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

    level: Literal["none", "balanced", "aggressive", "ultra", "auto"]
    budget_gb: Gigabytes | None = None
    host_gb: Gigabytes | None = None
    quality: Literal["any", "exact"] = "any"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    tiny_vae: Text | None = None
    max_batch_size: Annotated[int, BeforeValidator(whole), BATCH_SIZE.limits] = 8
    max_batch_pixels: Annotated[int, BeforeValidator(whole), Field(ge=1)] = 8 * 512 * 512
    techniques: Techniques = Techniques()  # type: ignore[valid-type]


class Lora(Settings):
    """One LoRA. With weight 0 it is not applied at all."""

    source: Text
    weight: Weight = 1.0
    name: Text | None = None


class Embedding(Settings):
    """A textual inversion; `token` stands for it in prompts, None takes the file's name."""

    source: Text
    token: Text | None = None
    name: Text | None = None


class ControlNet(Settings):
    """A ControlNet and its picture; it acts from `start` to `end`, as shares of the steps."""

    source: Text
    image: Text
    preprocess: Literal["none", "canny"] = "none"
    strength: Strength = 1.0
    start: Share = 0.0
    end: Share = 1.0
    name: Text | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ControlNet:
        if self.start >= self.end:
            raise ValueError(f"start must lie before end (got {self.start:g} and {self.end:g})")
        return self


class IpAdapter(Settings):
    """An IP-Adapter and its picture; `encoder` is the folder of the image encoder that it was trained with."""

    source: Text
    image: Text
    scale: Strength = 1.0
    encoder: Text | None = None
    name: Text | None = None


class AdapterSets(Settings):
    """What is put on or beside the model."""

    loras: list[Lora] = []
    embeddings: list[Embedding] = []
    controlnets: list[ControlNet] = []
    ip_adapters: list[IpAdapter] = []


class Init(Settings):
    """The picture to start from; `strength` 1 leaves nothing of it."""

    image: Text | None = None
    strength: InitStrength = 0.6


class Naming(Settings):
    """How files are named; checked in detail by `pipeline.metadata.naming`."""

    scheme: Literal["standard", "descriptive", "guid", "custom"] = "standard"
    time_format: Text = "%Y%m%d_%H%M%S"
    separator: Text = "_"
    excerpt_length: Annotated[int, BeforeValidator(whole), EXCERPT_LENGTH.limits] = 40
    components: list[Text] = ["time", "id8"]
    folder: Text = "{name}"


class Metadata(Settings):
    """What the image file carries. `quality` is for jpeg and webp, `lossless` for webp."""

    profile: Literal["full", "minimal", "private"] = "full"
    sidecar: bool = False
    exif_bmp_only: bool = False
    quality: Annotated[int, BeforeValidator(whole), QUALITY.limits] = 95
    lossless: bool = False


class Engine(Settings):
    """Where bundles are made: `local` is one child process that may be lost and is started again.

    It is also started again, between bundles, after `recycle_images` images, when its memory has grown by
    `recycle_growth_gb`, and when an image takes `recycle_slowdown` times its own median; None never does.
    """

    kind: Literal["local"] = "local"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    cpu_threads: Annotated[int, BeforeValidator(whole), CPU_THREADS.limits] | None = None
    attention: Annotated[str, BeforeValidator(_attention)] = "native"
    compile: Literal["auto", "on", "off"] = "auto"
    channels_last: bool = True
    read_ahead: bool = True
    recycle_images: Annotated[int, BeforeValidator(whole), Field(ge=1)] | None = None
    recycle_growth_gb: Gigabytes | None = 4.0
    recycle_slowdown: Annotated[float, Field(ge=1.1, le=100)] | None = 2.0


class Output(Settings):
    """Where images go, and as what."""

    dir: Annotated[Text, BeforeValidator(folder_name)] = DEFAULT_OUTPUT_DIR
    format: Literal["png", "jpeg", "webp"] = "png"
