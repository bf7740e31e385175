"""The nouns that cross from `jobs/` into the pipeline and back: what to make, and what was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DType = Literal["float32", "float16", "bfloat16"]
DTypeChoice = Literal["auto", DType]
DeviceKind = Literal["cpu", "cuda", "mps"]
DeviceChoice = Literal["auto", DeviceKind]
MemoryLevel = Literal["auto", "none", "balanced", "aggressive", "ultra"]
MemoryQuality = Literal["any", "exact"]
Compile = Literal["auto", "on", "off"]
Preprocess = Literal["none", "canny"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]

MAX_SEED = 2**53 - 1
"""Largest seed that survives every JSON reader (IEEE 754 double precision)."""

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 7.0
"""Used where neither the user nor the model says anything; usual for Stable Diffusion models."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which weights: `name` is what people read, the hashes are what counts.

    `source`, `vae_source` and `config_source` are local references (a path, or the name of an embedded model); they are
    never written into an image. `config` is the folder that has what a single file leaves out. `prediction_type` and
    `max_sequence_length` are None where the weights decide. `safety_checker`: run the one that came with the weights.
    `single_file`: the weights are one file, and `sha256` is that of the file.
    """

    name: str
    source: str
    sha256: str
    architecture: str
    vae: str | None = None
    vae_sha256: str | None = None
    vae_source: str | None = None
    config_source: str | None = None
    config_sha256: str | None = None
    prediction_type: PredictionType | None = None
    max_sequence_length: int | None = None
    safety_checker: bool = False
    single_file: bool = False


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How a model is held in memory: `techniques` are names of `pipeline.memory.planning.techniques` in their order.

    In a request, `techniques` are those asked for by name and `off` those forbidden by name; everything else is open
    until the plan, and after it the escalation, has decided. `exact` forbids techniques that change pixels.
    `budget_bytes` is what the device may hold, None where nobody said. `resident_share` is how much of the blocks that
    could stay there by estimate do; less where memory ran out. `tiny_vae_source` is a local path.
    """

    level: str = "none"
    dtype: DType = "float32"
    techniques: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    exact: bool = False
    budget_bytes: int | None = None
    resident_share: float = 1.0
    tiny_vae_source: str | None = None
    tiny_vae_sha256: str | None = None

    def uses(self, technique: str) -> bool:
        """Whether a technique is on."""
        return technique in self.techniques


@dataclass(frozen=True, slots=True)
class SpeedSettings:
    """What a user can choose about speed; none of it needs the model to be loaded again.

    `compile`: `auto` where the plan holds enough images of one size and LoRAs to pay for it, on GPUs only, and never
    with quantised weights: int8 blocks of FLUX.1's size, as torchao's tensors, were not compiled after a minute (H200,
    torch 2.11), and nobody has measured it with layers of plain tensors. `channels_last`: for UNets on GPUs.
    """

    attention: str = "native"
    compile: Compile = "auto"
    channels_last: bool = True


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A picture that is given to the model; `sha256` is of the file's bytes, `source` a local path, never written."""

    name: str
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """A LoRA and the weight it is applied with; 0 leaves the picture as it is without it."""

    name: str
    source: str
    sha256: str
    weight: float = 1.0


def lora_weights(loras: Iterable[LoraWeights]) -> dict[str, float]:
    """Weight by the SHA-256 of the file; the same file twice adds up, and weight 0 is as if it were absent.

    In the order of the hashes, since the order in which they are added decides the last bits.
    """
    weights: dict[str, float] = {}
    for lora in loras:
        weights[lora.sha256] = weights.get(lora.sha256, 0.0) + lora.weight
    return {sha256: weights[sha256] for sha256 in sorted(weights) if weights[sha256]}


@dataclass(frozen=True, slots=True)
class EmbeddingWeights:
    """A textual inversion: `token` stands for it in prompts."""

    name: str
    source: str
    sha256: str
    token: str


@dataclass(frozen=True, slots=True)
class ControlNetWeights:
    """A ControlNet with its picture. `start` and `end` are shares of the steps, 0 to 1."""

    name: str
    source: str
    sha256: str
    image: ReferenceImage
    preprocess: Preprocess = "none"
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class IpAdapterWeights:
    """An IP-Adapter with its picture; `encoder_source` is the folder of the image encoder it was trained with."""

    name: str
    source: str
    sha256: str
    image: ReferenceImage
    scale: float = 1.0
    encoder_source: str | None = None
    encoder_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class InitImage:
    """The picture that denoising starts from; `strength` 1 leaves nothing of it."""

    image: ReferenceImage
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Adapters:
    """Everything that is put on or beside a model for some pictures, and taken off for others."""

    loras: tuple[LoraWeights, ...] = ()
    embeddings: tuple[EmbeddingWeights, ...] = ()
    controlnets: tuple[ControlNetWeights, ...] = ()
    ip_adapters: tuple[IpAdapterWeights, ...] = ()
    init: InitImage | None = None

    def __bool__(self) -> bool:
        return self != NO_ADAPTERS

    @property
    def task(self) -> Literal["txt2img", "img2img"]:
        """What the pictures are made from."""
        return "txt2img" if self.init is None else "img2img"

    def names(self) -> tuple[str, ...]:
        """Every name and token of theirs that the record of an image carries."""
        return (
            *(one.name for one in self.loras),
            *(text for one in self.embeddings for text in (one.name, one.token)),
            *(text for one in self.controlnets for text in (one.name, one.image.name)),
            *(text for one in self.ip_adapters for text in (one.name, one.image.name)),
            *([self.init.image.name] if self.init else []),
        )


NO_ADAPTERS = Adapters()


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """All that decides one picture: sizes in pixels, `scheduler` by its sampler name, no value left open."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    clip_skip: int | None
    model: ModelSettings
    memory: MemorySettings
    scheduler_options: tuple[tuple[str, Any], ...] = ()
    step_cache: str | None = None
    adapters: Adapters = NO_ADAPTERS

    @property
    def option_texts(self) -> list[str]:
        """The scheduler's options as a manifest row has them."""
        return option_texts(dict(self.scheduler_options))


def option_texts(options: Mapping[str, Any]) -> list[str]:
    """A scheduler's options as texts, `name=value` with the value as JSON, in the order of their names."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(options.items())]


class Likeness(NamedTuple):
    """The sampling of a job. Jobs that agree in all of it, and in the weights, can be made in one bundle."""

    steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    clip_skip: int | None
    scheduler_options: tuple[tuple[str, Any], ...] = ()
    step_cache: str | None = None


@dataclass(frozen=True, slots=True)
class LoraMatch:
    """How many of a LoRA's keys found a place in the model, and how many did not; `sha256` is the file's."""

    sha256: str
    matched: int
    unmatched: int


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """What became of a prompt in a text encoder; `truncated` tokens at its end had no effect."""

    encoder: str
    tokens: int
    truncated: int


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One finished picture and what is only known once it exists.

    `pixels`: uint8, (height, width, 3), RGB. `noise_sha256` hashes the float32 noise it started from.
    `seconds` is this image's share of its bundle's encode, denoise and decode time. `memory` is how the model was
    really held, `flagged` what the model's safety checker said, None where none ran. `stage_peaks` are bytes per stage:
    `{"denoise": {"allocated": ..., "reserved": ..., "rss": ...}}`.
    """

    request: ImageRequest
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    pipeline_class: str
    scheduler_class: str
    scheduler_config: dict[str, Any] = field(repr=False)
    noise_shape: tuple[int, ...]
    noise_sha256: str
    batch_size: int
    batch_index: int
    seconds: float
    runtime: dict[str, Any] = field(repr=False)
    memory: MemorySettings
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
    predicted_peak_bytes: int | None = None
    stage_peaks: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)
    prompt_tokens: tuple[PromptTokens, ...] = ()
    lora_matches: tuple[LoraMatch, ...] = ()
    flagged: bool | None = None
