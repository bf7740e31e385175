"""The border between YAML and Python: one frozen, strict batch configuration, with every fault reported at once."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jobs.faults import fault_lines
from pipeline.errors import ConfigError
from pipeline.request import DEFAULT_GUIDANCE, DEFAULT_STEPS, MAX_SEED
from pipeline.schedulers import scheduler_name

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_GRID = 10_000_000
"""Largest number of combinations one grid may ask for; more is a slip, not a wish."""

_RANGE = re.compile(r"^\s*range\(\s*(.+?)\s*\)\s*$")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _side(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value % 8:
        below = max(MIN_SIDE, value // 8 * 8)
        raise ValueError(f"must be a multiple of 8 pixels, for instance {below} or {below + 8}")
    return value


def _whole(value: object) -> object:
    if isinstance(value, bool | float | str):
        raise ValueError("must be a whole number")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


def _scheduler(value: object) -> object:
    return scheduler_name(value) if isinstance(value, str) else value


def _text(value: object) -> object:
    """YAML reads `no`, `1` and `1:30` as something else; say so instead of guessing."""
    if value is not None and not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    return value


def _folder(value: object) -> object:
    if value == "":
        raise ValueError("must name a folder; . is the working folder")
    return value


Side = Annotated[int, BeforeValidator(_side), BeforeValidator(_whole), Field(ge=MIN_SIDE, le=MAX_SIDE)]
Steps = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, BeforeValidator(_number), Field(ge=0, le=MAX_GUIDANCE)]
ClipSkip = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=12)]
SchedulerName = Annotated[str, BeforeValidator(_scheduler)]
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MAX_SEED)]
Text = Annotated[str, BeforeValidator(_text)]


class Sampling(_Settings):
    """How an image is sampled; what is None is taken from the model profile, then from `FALLBACK`."""

    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: SchedulerName | None = None
    clip_skip: ClipSkip | None = None

    def over(self, other: Sampling) -> Sampling:
        """This one's values where they are set, the other's elsewhere."""
        # Both are checked already; a scheduler that only some weights bring would not pass a second time.
        return Sampling.model_construct(**{**other.model_dump(), **self.model_dump(exclude_none=True)})


FALLBACK = Sampling(steps=DEFAULT_STEPS, guidance_scale=DEFAULT_GUIDANCE)
"""Used where neither the batch nor the model profile says anything; sizes and scheduler then come from the weights."""


class Variants(_Settings):
    """How `{a|b}` and `__wildcard__` in a prompt are expanded; with `literal` they are not, and mean themselves.

    `count` is per prompt; None means all (combinatorial) or 1.
    """

    mode: Literal["random", "combinatorial", "cyclic", "literal"] = "random"
    count: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1_000_000)] | None = None
    prompt_seed: Seed = 0


def _lines(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("must be a list; start each prompt with '- '")
    return value


class Prompts(_Settings):
    """A prompt set: `lines` (texts, or mappings with overrides) or `file`, never both. Read by `jobs.prompts`."""

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


class Model(_Settings):
    """A model profile: `source` is one reference for every kind of weights; `sampling` is what suits these weights.

    Not `defaults`: Hydra reads a list of that name in every configuration file.
    """

    source: Text
    name: Text | None = None
    vae: Text | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    sampling: Sampling = Sampling()


class Memory(_Settings):
    """A memory level. `dtype: auto` leaves the choice to the model profile and the device.

    `max_batch_size` and `max_batch_pixels` bound what `batch_size: auto` takes: many small pictures, few large ones.
    """

    level: Literal["none", "balanced", "aggressive", "ultra", "auto"]
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    vae_slicing: bool = False
    vae_tiling: bool = False
    max_batch_size: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=256)] = 8
    max_batch_pixels: Annotated[int, BeforeValidator(_whole), Field(ge=1)] = 8 * 512 * 512


class Naming(_Settings):
    """How files are named; checked in detail by `pipeline.metadata.naming`."""

    scheme: Literal["standard", "descriptive", "guid", "custom"] = "standard"
    time_format: Text = "%Y%m%d_%H%M%S"
    separator: Text = "_"
    excerpt_length: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=120)] = 40
    components: list[Text] = ["time", "id8"]
    folder: Text = "{name}"


class Metadata(_Settings):
    """What the image file carries. `quality` is for jpeg and webp, `lossless` for webp."""

    profile: Literal["full", "minimal", "private"] = "full"
    sidecar: bool = False
    exif_bmp_only: bool = False
    quality: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=100)] = 95
    lossless: bool = False


class Engine(_Settings):
    """Where bundles are made: `local` is one child process that may be lost and is started again."""

    kind: Literal["local"] = "local"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    cpu_threads: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1024)] | None = None


class Output(_Settings):
    """Where images go, and as what."""

    dir: Annotated[Text, BeforeValidator(_folder)] = "outputs"
    format: Literal["png", "jpeg", "webp"] = "png"


def parse_range(text: str) -> Sequence[int | float] | None:
    """`range(start, stop[, step])` as Python reads it: the stop is excluded. None if the text is no range.

    Whole numbers come as a Python `range`; others are rounded to 9 digits, so that the third of 0.1 is 0.3.
    """
    match = _RANGE.match(text)
    if not match:
        return None
    try:
        numbers = [float(part) if re.search(r"[.eE]", part) else int(part) for part in match[1].split(",")]
    except ValueError:
        raise ValueError(f"{text!r}: a range takes numbers, as in range(5, 30, 5)") from None
    if len(numbers) not in (2, 3):
        raise ValueError(f"{text!r}: a range takes start, stop and an optional step")
    if not all(abs(number) <= MAX_SEED for number in numbers):
        raise ValueError(f"{text!r}: a number is out of range; they go up to 2^53-1 = {MAX_SEED}")
    start, stop = numbers[0], numbers[1]
    step = numbers[2] if len(numbers) == 3 else 1
    if step == 0 or (stop - start) / step <= 0:
        raise ValueError(f"{text!r}: is empty; from start to stop in steps of {step} there is no value")
    count = _range_length(start, stop, step)
    if count > MAX_GRID:
        raise ValueError(f"{text!r}: holds {count:,} values, more than {MAX_GRID:,}")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return range(start, stop, step)
    return [round(start + step * index, 9) for index in range(count)]


def _range_length(start: float, stop: float, step: float) -> int:
    """Number of values below the stop; rounded first, since (1.0 - 0.0) / 0.1 must be 10 and not 11."""
    exact = round((stop - start) / step, 9)
    return int(exact) + (exact % 1 > 0)


def _seeds(value: object) -> object:
    if isinstance(value, Mapping):
        unknown = set(value) - {"start", "count"}
        if unknown or "count" not in value:
            raise ValueError("as a mapping needs start and count, as in {start: 0, count: 4}")
        start, count = value.get("start", 0), value["count"]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in (start, count)):
            raise ValueError("start and count must be whole numbers")
        if not 1 <= count <= MAX_GRID:
            raise ValueError(f"count must be from 1 to {MAX_GRID:,}")
        if start < 0 or start + count - 1 > MAX_SEED:
            raise ValueError(f"seeds run from 0 to 2^53-1 = {MAX_SEED}")
        return range(start, start + count)
    if isinstance(value, str):
        value = parse_range(value)
        if value is None:
            raise ValueError("must be a number, a list, {start, count} or range(start, stop)")
    numbers = value if isinstance(value, range) else list(value) if isinstance(value, Sequence) else [value]
    if not numbers:
        raise ValueError("must name at least one seed")
    for number in (numbers[0], numbers[-1]) if isinstance(numbers, range) else numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{number!r} is not a whole number")
        if not 0 <= number <= MAX_SEED:
            raise ValueError(f"{number} is out of range; seeds run from 0 to 2^53-1 = {MAX_SEED}")
    return numbers


Seeds = Annotated[Any, BeforeValidator(_seeds)]
"""`7`, `[1, 2]`, `{start: 0, count: 4}` or `range(0, 4)`; held as a `range` or a list of ints."""


def _dry_run(value: object) -> object:
    if value not in (True, False, "json"):
        raise ValueError("must be true, false or json")
    return value


def _batch_size(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 256:
        raise ValueError("must be auto or a whole number from 1 to 256")
    return value


class BatchConfig(_Settings):
    """One composed configuration. With `-m` there are several; they become one plan."""

    prompts: Prompts
    model: Model
    memory: Memory
    sampling: Sampling = Sampling()
    naming: Naming = Naming()
    metadata: Metadata = Metadata()
    engine: Engine = Engine()
    output: Output = Output()
    name: Text | None = None
    seeds: Seeds = Field(default=[0])
    grid: dict[Text, Any] | None = None
    batch_size: Annotated[Literal["auto"] | int, BeforeValidator(_batch_size)] = "auto"
    dry_run: Annotated[Literal["json"] | bool, BeforeValidator(_dry_run)] = False
    resume: bool = True
    retry_failed: bool = False
    on_error: Literal["continue", "stop"] = "continue"
    verbose: bool = False
    quiet: bool = False

    @property
    def title(self) -> str:
        """The batch's name: `name`, else the prompt set's."""
        return self.name or self.prompts.name or "batch"


RUN_KEYS = ("engine", "output", "dry_run", "resume", "retry_failed", "on_error", "verbose", "quiet")
"""Keys that hold for a run as a whole, so a sweep may not vary them."""


def parse_configs(configs: Sequence[Mapping[str, Any]]) -> list[BatchConfig]:
    """Validate every composed configuration; raises `ConfigError` with all faults of all of them."""
    parsed, faults = parse_sound_parts(configs)
    if faults:
        raise ConfigError(faults)
    return parsed


def parse_sound_parts(configs: Sequence[Mapping[str, Any]]) -> tuple[list[BatchConfig], list[str]]:
    """The configurations as far as they are sound, and all faults, so that prompts and models can be checked too."""
    parsed: list[BatchConfig] = []
    faults: dict[str, None] = {}  # an ordered set: a sweep repeats what its configurations share
    for config in configs:
        try:
            parsed.append(BatchConfig.model_validate(config))
        except ValidationError as error:
            faults.update(dict.fromkeys(fault_lines(error, BatchConfig)))
            with contextlib.suppress(ValidationError):
                parsed.append(BatchConfig.model_validate(_without(config, error)))
    for key in RUN_KEYS:
        if len({repr(getattr(config, key)) for config in parsed}) > 1:
            faults[f"{key}: differs within the sweep; it holds for a whole run, so give it one value"] = None
    return parsed, list(faults)


def _without(config: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """A copy in which the values at fault are left to their defaults."""
    sound: dict[str, Any] = copy.deepcopy(dict(config))
    for fault in error.errors(include_url=False, include_input=False):
        place: Any = sound
        for part in fault["loc"]:
            inner = place.get(part) if isinstance(place, dict) else None
            if not isinstance(inner, dict) or part == fault["loc"][-1]:
                if isinstance(place, dict):
                    place.pop(part, None)
                break
            place = inner
    return sound
