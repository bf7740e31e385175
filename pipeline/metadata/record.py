"""The recipe of one image: a versioned, strict, allow-listed document.

What is not named here is not written. Every other form of metadata (infotext, EXIF, XMP, a manifest row) is a
view of this one and is never parsed back where the record itself is at hand. Sizes are pixels, times are UTC.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.metadata.metadata_settings import ImageFormat
from pipeline.ranges import (
    BatchSize,
    ClipSkip,
    Count,
    CpuThreads,
    EncoderQuality,
    Guidance,
    InitStrength,
    Option,
    Seed,
    SequenceLength,
    Share,
    Side,
    Steps,
    Strength,
    Weight,
    text_fault,
)
from pipeline.request import DeviceKind, DType, PredictionType, Preprocess, option_texts

SCHEMA: Literal["darkroom.image/1"] = "darkroom.image/1"

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The form of an image's id, a UUID."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _parse_utc(value: object) -> object:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _in_utc(value: datetime) -> datetime:
    # In these years no time zone leads out of what a datetime can hold.
    if value.tzinfo is None or not 1970 <= value.year < 9999:
        raise ValueError("must be a time with its zone, from 1970 to 9998")
    return value


def _format_utc(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"


UtcTime = Annotated[
    datetime, BeforeValidator(_parse_utc), AfterValidator(_in_utc), PlainSerializer(_format_utc, return_type=str)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True, populate_by_name=True)

    @field_validator("*")
    @classmethod
    def _check_inside(cls, value: Any) -> Any:
        if fault := _fault_inside(value):
            raise ValueError(fault)
        return value


class _Grown(_Part):
    """A part that has got more fields. Where these say nothing they are left out: older records stay, to the byte."""

    _new: ClassVar[tuple[str, ...]]

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        nothing = (None, False)
        return {name: value for name, value in dump(self).items() if name not in self._new or value not in nothing}


def _fault_inside(value: Any) -> str | None:
    """What is wrong with the first text or number that cannot be, in a value and all that it holds."""
    if isinstance(value, str):
        return text_fault(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_fault_inside, inside)), None)


class Generator(_Part):
    """The program that made the image."""

    name: Literal["darkroom"] = "darkroom"
    version: str


class Noise(_Part):
    """The initial noise: drawn per image, on the CPU, in float32. `sha256` hashes its little-endian bytes."""

    device: Literal["cpu"] = "cpu"
    dtype: Literal["float32"] = "float32"
    shape: Annotated[list[Count], Field(max_length=8)]
    sha256: Sha256


class BatchRecord(_Part):
    """The bundle it was denoised in; needed for a bit-exact remake, since batch size changes rounding."""

    size: BatchSize
    index: Count

    @model_validator(mode="after")
    def _check_place(self) -> BatchRecord:
        if self.index >= self.size:
            raise ValueError(f"index {self.index} lies outside a batch of {self.size}; it begins with 0")
        return self


class Scheduler(_Part):
    """The sampler by its usual name, with the diffusers class and its complete configuration.

    `options` are those that were asked for; `config` has all values.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    options: dict[str, Option] = {}

    @property
    def option_texts(self) -> list[str]:
        """The options as a manifest row has them."""
        return option_texts(self.options)


class Weights(_Part):
    """One set of weights: a name without folders, and the hash of its content."""

    name: str
    sha256: Sha256
    architecture: str | None = None


class ModelRecord(Weights, _Grown):
    """The weights of the picture, and what was said about them from outside.

    `single_file`: the weights were one file, and `sha256` is that of the file. `config_sha256` is of the folder that
    had what a single file leaves out.
    """

    single_file: bool = False
    config_sha256: Sha256 | None = None
    prediction_type: PredictionType | None = None
    max_sequence_length: SequenceLength | None = None
    safety_checker: bool = False

    _new = ("single_file",)


class LoraRecord(_Part):
    """A LoRA and the weight it was applied with; how many of its keys found a place in the model."""

    name: str
    sha256: Sha256
    weight: Weight
    matched: Count | None = None
    unmatched: Count | None = None


class EmbeddingRecord(_Part):
    """A textual inversion and the word that stands for it."""

    name: str
    sha256: Sha256
    token: str


class PictureRecord(_Part):
    """A reference picture: its file's name and the hash of the file."""

    name: str
    sha256: Sha256


class ControlNetRecord(Weights):
    """A ControlNet; `start` and `end` are shares of the steps. `image` is None only in records older than it."""

    image: PictureRecord | None = None
    preprocess: Preprocess = "none"
    strength: Strength = 1.0
    start: Share = 0.0
    end: Share = 1.0


class IpAdapterRecord(Weights):
    """An IP-Adapter, its picture, and the image encoder that it was used with."""

    image: PictureRecord
    scale: Strength
    encoder_sha256: Sha256 | None = None


class InitRecord(_Part):
    """The picture that denoising started from."""

    image: PictureRecord
    strength: InitStrength


class Tokens(_Part):
    """The prompt in one text encoder; the last `truncated` tokens had no effect."""

    encoder: str
    tokens: Count
    truncated: Count


class MemoryRecord(_Part):
    """How the model was held in memory: `techniques` is what was really in use, recovery included, in order.

    `asked` are those that were asked for by name, `budget_bytes` what the device was allowed to hold.
    """

    level: str
    dtype: DType
    vae_slicing: bool
    vae_tiling: bool
    quantization: str | None = None
    techniques: list[str] = []
    asked: list[str] = []
    off: list[str] = []
    exact: bool = False
    budget_bytes: Count | None = None
    tiny_vae_sha256: Sha256 | None = None


class Runtime(_Grown):
    """The environment, as far as pixels can depend on it. `versions` maps package to version.

    `compile`: `no`, or which part of the denoiser was compiled. On NVIDIA GPUs, `attention_kernels` are those among
    which torch's own attention chose by shape and type, `cublas_workspace` is cuBLAS' setting, on which its choice
    depends. Both are None elsewhere, and in older records.
    """

    device: DeviceKind
    gpu: str | None = None
    attention_backend: str
    cpu_threads: CpuThreads
    deterministic: bool
    versions: dict[str, str]
    compile: str = "no"
    channels_last: bool = False
    attention_kernels: str | None = None
    cublas_workspace: str | None = None

    _new = ("attention_kernels", "cublas_workspace")


class JobRecord(_Part):
    """Where in a batch the image comes from. `id` is the hash of all that decides the picture."""

    id: Sha256
    run_id: str | None = None
    name: str | None = None
    prompt_set: str | None = None
    prompt_index: Count | None = None
    tags: list[str] = []
    attempt: Annotated[int, Field(ge=1, lt=2**31)] = 1


class Measured(_Part):
    """What making it cost. `seconds` is the image's share of its bundle, `stages` the peaks of its bundle, in bytes;
    `refused` among them counts how often the device had no memory for a kernel's workspace."""

    seconds: Annotated[float, Field(ge=0)]
    peak_vram_bytes: Count | None = None
    peak_rss_bytes: Count | None = None
    predicted_peak_bytes: Count | None = None
    stages: dict[str, dict[str, Count]] = {}


class OutputRecord(_Part):
    """The file format; `quality` is the encoder's, for lossy formats."""

    format: ImageFormat
    quality: EncoderQuality | None = None


class SelectionRecord(_Part):
    """What was chosen for the prompt, and why. `key` is the hash of the prompt and of the settings of the choice.

    `statistics` is the hash of the ratings' statistics that had a say. `analysis` and `choice` are those of
    `pipeline.prompting.analysis` and `pipeline.selection.choice` as plain values; an image whose prompt is private has
    no analysis, and of the choice no reasons.
    """

    key: Sha256
    statistics: Sha256 | None = None
    analysis: dict[str, Any] | None = None
    choice: dict[str, Any]

    @property
    def text(self) -> str:
        """As canonical JSON, which a manifest row has."""
        return canonical_json(self.model_dump())


class Record(_Grown):
    """The complete recipe of one image. `pixels_sha256` is `pixel_hash` of the array before encoding.

    `derived_from` is the id of the image whose settings it was made with.
    """

    schema_: Annotated[Literal["darkroom.image/1"], Field(alias="schema")] = SCHEMA
    id: Annotated[str, Field(pattern=f"^{ID.pattern}$")]
    created: UtcTime
    generator: Generator
    task: Literal["txt2img", "img2img"] = "txt2img"
    pipeline: str
    prompt: str
    negative_prompt: str
    prompt_template: str | None = None
    width: Side
    height: Side
    steps: Steps
    guidance_scale: Guidance
    clip_skip: ClipSkip | None = None
    seed: Seed
    noise: Noise
    batch: BatchRecord
    scheduler: Scheduler
    step_cache: str | None = None
    prompt_tokens: list[Tokens] = []
    flagged: bool | None = None
    model: ModelRecord
    vae: Weights | None = None
    loras: list[LoraRecord] = []
    embeddings: list[EmbeddingRecord] = []
    controlnets: list[ControlNetRecord] = []
    ip_adapters: list[IpAdapterRecord] = []
    init: InitRecord | None = None
    memory: MemoryRecord
    runtime: Runtime
    job: JobRecord
    measured: Measured
    output: OutputRecord
    pixels_sha256: Sha256
    selection: SelectionRecord | None = None
    derived_from: Annotated[str, Field(pattern=f"^{ID.pattern}$")] | None = None

    _new = ("selection", "derived_from")

    def to_json(self) -> str:
        """Canonical form: keys sorted, UTF-8, no NaN, no blanks. Equal records give equal text."""
        return canonical_json(self.model_dump(by_alias=True))

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Parse and validate; raises `pydantic.ValidationError` on anything that is not a record."""
        return cls.model_validate_json(text)


def canonical_json(values: Any) -> str:
    """Keys sorted, UTF-8, no NaN, no blanks: equal values give equal text."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def pixel_hash(width: int, height: int, rgb_bytes: bytes) -> str:
    """SHA-256 of `RGB <width>x<height>\\n` followed by the raw 8-bit RGB rows, top to bottom."""
    digest = hashlib.sha256(f"RGB {width}x{height}\n".encode())
    digest.update(rgb_bytes)
    return digest.hexdigest()
