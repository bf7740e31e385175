"""The manifest's columns.

One explicit, versioned Arrow schema; changes are additive and nullable. `jobs.manifest.rows` makes rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict, cast, get_args, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from jobs.manifest.layout import is_inside

if TYPE_CHECKING:
    import pyarrow as pa


SCHEMA_VERSION = 1

DONE: Final = "done"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
QUARANTINED: Final = "quarantined"
"""`status`: `interrupted` is an attempt lost with its process, tried again; the other three are final."""


def _checked_path(path: str) -> str:
    if not is_inside(path):
        raise ValueError("expected a path inside the output folder")
    return path


Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Status = Literal["done", "failed", "interrupted", "quarantined"]
ImagePath = Annotated[str, AfterValidator(_checked_path)]


@dataclass(frozen=True, slots=True)
class Column:
    """The meaning of a column, and the source of its value: attributes of the image's record, or of a job without one.

    An attribute of None is None, one of a list is the list of those of its entries. Without a source, whoever makes the
    row says the value, or it is None.
    """

    meaning: str
    record: str | None = None
    job: str | None = None


class Row(TypedDict):
    """One manifest row, and the table of columns: `created_at` is an aware UTC datetime, `path` has `/`."""

    schema_version: Annotated[Int32, Column("version of the row's schema; currently 1")]
    image_id: Annotated[str | None, Column("the image's UUID; null for failures", "id")]
    job_id: Annotated[JobId, Column("hash of everything that determines the picture", "job.id", "id")]
    run_id: Annotated[str | None, Column("the run that made it; the folder in `runs/`", "job.run_id")]
    name: Annotated[str | None, Column("the batch's or the line's name", "job.name", "name")]
    status: Annotated[Status, Column("`done`, `failed`, `interrupted`, `quarantined`")]
    attempt: Annotated[Int32, Column("number of the attempt, counted from 1 over all runs", "job.attempt")]
    error_kind: Annotated[str | None, Column("kind of failure; null for images")]
    error_message: Annotated[str | None, Column("one line; null for images")]
    created_at: Annotated[datetime, Column("when the image was saved, or the attempt recorded", "created")]
    path: Annotated[ImagePath | None, Column("relative to `output.dir`, with `/`; null for failures")]
    format: Annotated[str | None, Column("`png`, `jpeg`, `webp`", "output.format")]
    file_sha256: Annotated[str | None, Column("of the file's bytes")]
    pixels_sha256: Annotated[str | None, Column("of the picture before encoding", "pixels_sha256")]
    width: Annotated[Int32, Column("pixels", "width", "request.width")]
    height: Annotated[Int32, Column("pixels", "height", "request.height")]
    prompt: Annotated[str, Column("the prompt that the model got", "prompt", "request.prompt")]
    negative_prompt: Annotated[str, Column("empty for none", "negative_prompt", "request.negative_prompt")]
    prompt_template: Annotated[
        str | None,
        Column(
            "the prompt before variants were filled in; null if there were none", "prompt_template", "prompt_template"
        ),
    ]
    prompt_set: Annotated[str | None, Column("the prompt set's name", "job.prompt_set", "prompt_set")]
    prompt_index: Annotated[
        Int64 | None,
        Column("the prompt's place in its set, counted from 0", "job.prompt_index", "prompt_index"),
    ]
    tags: Annotated[list[str], Column("the tags of the set and of the line", "job.tags", "tags")]
    seed: Annotated[Int64, Column("0 to 2^53-1", "seed", "request.seed")]
    steps: Annotated[Int32, Column("denoising steps", "steps", "request.steps")]
    guidance_scale: Annotated[
        float,
        Column("how strongly the prompt guides the picture", "guidance_scale", "request.guidance_scale"),
    ]
    scheduler: Annotated[str, Column("the sampler's usual name", "scheduler.name", "request.scheduler")]
    clip_skip: Annotated[
        Int32 | None, Column("text encoder layers skipped; null for none", "clip_skip", "request.clip_skip")
    ]
    architecture: Annotated[
        str | None,
        Column("class of the diffusers pipeline", "model.architecture", "request.model.architecture"),
    ]
    model: Annotated[str, Column("the model's name", "model.name", "request.model.name")]
    model_sha256: Annotated[str, Column("of the model's content", "model.sha256", "request.model.sha256")]
    vae: Annotated[
        str | None,
        Column("name of a separate VAE; null for the model's own", "vae.name", "request.model.vae"),
    ]
    vae_sha256: Annotated[str | None, Column("of that VAE's content", "vae.sha256", "request.model.vae_sha256")]
    loras: Annotated[list[str], Column("names of the LoRAs", "loras.name", "request.adapters.loras.name")]
    lora_sha256s: Annotated[
        list[str],
        Column("of their files, in the same order", "loras.sha256", "request.adapters.loras.sha256"),
    ]
    lora_weights: Annotated[list[float], Column("in the same order", "loras.weight", "request.adapters.loras.weight")]
    controlnets: Annotated[
        list[str],
        Column("names of the ControlNets", "controlnets.name", "request.adapters.controlnets.name"),
    ]
    ip_adapters: Annotated[
        list[str],
        Column("names of the IP-Adapters", "ip_adapters.name", "request.adapters.ip_adapters.name"),
    ]
    init_image: Annotated[
        str | None,
        Column("name of the init image; null for none", "init.image.name", "request.adapters.init.image.name"),
    ]
    task: Annotated[str | None, Column("`txt2img`, `img2img`", "task", "request.adapters.task")]
    flagged: Annotated[
        bool | None,
        Column("whether the model's safety checker flagged the image; null if none ran", "flagged"),
    ]
    memory: Annotated[str, Column("the memory level", "memory.level", "request.memory.level")]
    dtype: Annotated[str, Column("`float32`, `float16`, `bfloat16`", "memory.dtype", "request.memory.dtype")]
    quantization: Annotated[
        str | None,
        Column("how weights were quantised; null for not at all", "memory.quantization"),
    ]
    techniques: Annotated[
        list[str],
        Column(
            "memory techniques that were used; for failures the requested ones",
            "memory.techniques",
            "request.memory.techniques",
        ),
    ]
    predicted_peak_bytes: Annotated[
        Int64 | None,
        Column("the plan's estimate of peak memory; on a CPU that of main memory", "measured.predicted_peak_bytes"),
    ]
    device: Annotated[str | None, Column("`cpu`, `cuda`, `mps`; null for failures", "runtime.device")]
    batch_size: Annotated[Int32 | None, Column("images in its batch; null for failures", "batch.size")]
    batch_index: Annotated[Int32 | None, Column("its place in the batch, counted from 0", "batch.index")]
    seconds: Annotated[
        float | None,
        Column("its share of the time for encoding, denoising and decoding its batch", "measured.seconds"),
    ]
    peak_vram_bytes: Annotated[
        Int64 | None,
        Column("the batch's peak of GPU memory; null without a CUDA GPU", "measured.peak_vram_bytes"),
    ]
    peak_rss_bytes: Annotated[
        Int64 | None,
        Column("the worker's peak of main memory so far", "measured.peak_rss_bytes"),
    ]
    selection: Annotated[str | None, Column("unused in this version: always null")]
    app_version: Annotated[str, Column("Darkroom's version", "generator.version")]
    record_json: Annotated[str | None, Column("the whole record; null for failures")]


@functools.cache
def columns() -> dict[str, Column]:
    """The columns by name, in order."""
    return {name: next(one for one in hint.__metadata__ if isinstance(one, Column)) for name, hint in _hints().items()}


def meanings() -> dict[str, str]:
    """The meaning of each column, in column order."""
    return {name: column.meaning for name, column in columns().items()}


def arrow_schema() -> pa.Schema:
    """The manifest's Arrow schema, in column order; `schema_version` is in the key-value metadata as well."""
    import pyarrow as pa

    types = [
        (Int32, pa.int32()),
        (Int64, pa.int64()),
        (float, pa.float64()),
        (bool, pa.bool_()),
        (datetime, pa.timestamp("us", tz="UTC")),
        (list[str], pa.list_(pa.string())),
        (list[float], pa.list_(pa.float64())),
    ]

    def field(name: str, hint: Any) -> pa.Field:
        of = _without_none(hint)
        return pa.field(name, next((type_ for one, type_ in types if of == one), pa.string()))

    fields = [field(name, hint) for name, hint in _hints().items()]
    return pa.schema(fields, metadata={"darkroom.schema_version": str(SCHEMA_VERSION)})


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as JSON values: `created_at` as RFC 3339 text, everything else as it is."""
    return {**row, "created_at": row["created_at"].isoformat()}


def row_from_json(values: dict[str, Any]) -> Row:
    """The inverse of `row_to_json`; columns that a newer version added are dropped, missing ones are None.

    Raises ValueError for what is no row: a damaged line, or one that somebody else has written.
    """
    try:
        given = {**values, "created_at": datetime.fromisoformat(values["created_at"])}
        if given["created_at"].tzinfo is None:
            raise ValueError("created_at: expected a time zone")
        for name, adapter in _adapters().items():
            if name in given or name in _NEEDED:
                adapter.validate_python(given[name], strict=True)
    except (KeyError, TypeError, ValidationError) as error:
        raise ValueError(f"no row: {error}") from error
    return cast(Row, {name: given.get(name) for name in Row.__annotations__})


_NEEDED = ("job_id", "status", "attempt")


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Row, include_extras=True)


@functools.cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in _hints().items()}


def _without_none(hint: Any) -> Any:
    """The type of a column, as `Int32` of `Annotated[Int32 | None, Column(...)]`."""
    *limits, _column = hint.__metadata__
    if limits:
        return Annotated[(hint.__origin__, *limits)]
    named = [one for one in get_args(hint.__origin__) if one is not NoneType]
    return named[0] if NoneType in get_args(hint.__origin__) else hint.__origin__
