"""The manifest's columns.

One explicit, versioned Arrow schema; changes are additive and nullable: lists that may be None are of rows older than
their columns. `jobs.manifest.rows` makes rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict, cast, get_args, get_origin, get_type_hints

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


def _requested(meaning: str, source: str) -> Column:
    """A column whose value a job's request has where the image's record has it."""
    return Column(meaning, source, f"request.{source}")


def _adapter(meaning: str, source: str) -> Column:
    """The same of what a request has among its adapters."""
    return Column(meaning, source, f"request.adapters.{source}")


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
    width: Annotated[Int32, _requested("pixels", "width")]
    height: Annotated[Int32, _requested("pixels", "height")]
    prompt: Annotated[str, _requested("the prompt that the model got", "prompt")]
    negative_prompt: Annotated[str, _requested("empty for none", "negative_prompt")]
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
    seed: Annotated[Int64, _requested("0 to 2^53-1", "seed")]
    steps: Annotated[Int32, _requested("denoising steps", "steps")]
    guidance_scale: Annotated[float, _requested("how strongly the prompt guides the picture", "guidance_scale")]
    scheduler: Annotated[str, Column("the sampler's usual name", "scheduler.name", "request.scheduler")]
    scheduler_options: Annotated[
        list[str] | None,
        Column("what was asked of it, as `name=value`", "scheduler.option_texts", "request.option_texts"),
    ]
    step_cache: Annotated[str | None, _requested("the step cache; null for none", "step_cache")]
    clip_skip: Annotated[Int32 | None, _requested("text encoder layers skipped; null for none", "clip_skip")]
    architecture: Annotated[str | None, _requested("class of the diffusers pipeline", "model.architecture")]
    model: Annotated[str, _requested("the model's name", "model.name")]
    model_sha256: Annotated[str, _requested("of the model's content", "model.sha256")]
    vae: Annotated[
        str | None,
        Column("name of a separate VAE; null for the model's own", "vae.name", "request.model.vae"),
    ]
    vae_sha256: Annotated[str | None, Column("of that VAE's content", "vae.sha256", "request.model.vae_sha256")]
    loras: Annotated[list[str], _adapter("names of the LoRAs", "loras.name")]
    lora_sha256s: Annotated[list[str], _adapter("of their files, in the same order", "loras.sha256")]
    lora_weights: Annotated[list[float], _adapter("in the same order", "loras.weight")]
    embeddings: Annotated[list[str] | None, _adapter("names of the textual inversions", "embeddings.name")]
    controlnets: Annotated[list[str], _adapter("names of the ControlNets", "controlnets.name")]
    controlnet_strengths: Annotated[list[float] | None, _adapter("in the same order", "controlnets.strength")]
    controlnet_images: Annotated[list[str | None] | None, _adapter("names of their pictures", "controlnets.image.name")]
    controlnet_preprocess: Annotated[
        list[str] | None, _adapter("how their pictures were prepared: `none`, `canny`", "controlnets.preprocess")
    ]
    controlnet_starts: Annotated[
        list[float] | None, _adapter("share of the steps from which they act", "controlnets.start")
    ]
    controlnet_ends: Annotated[list[float] | None, _adapter("share of the steps to which they act", "controlnets.end")]
    ip_adapters: Annotated[list[str], _adapter("names of the IP-Adapters", "ip_adapters.name")]
    ip_adapter_scales: Annotated[list[float] | None, _adapter("in the same order", "ip_adapters.scale")]
    ip_adapter_images: Annotated[list[str] | None, _adapter("names of their pictures", "ip_adapters.image.name")]
    init_image: Annotated[str | None, _adapter("name of the init image; null for none", "init.image.name")]
    strength: Annotated[float | None, _adapter("how far from the init image; null for none", "init.strength")]
    task: Annotated[str | None, _adapter("`txt2img`, `img2img`", "task")]
    flagged: Annotated[
        bool | None,
        Column("whether the model's safety checker flagged the image; null if none ran", "flagged"),
    ]
    memory: Annotated[str, _requested("the memory level", "memory.level")]
    dtype: Annotated[str, _requested("`float32`, `float16`, `bfloat16`", "memory.dtype")]
    quantization: Annotated[
        str | None,
        Column("how weights were quantised; null for not at all", "memory.quantization"),
    ]
    techniques: Annotated[
        list[str], _requested("memory techniques that were used; for failures the requested ones", "memory.techniques")
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
    selection: Annotated[
        str | None,
        Column("what was chosen and why, as JSON; null where nothing was", "selection.text", "selection"),
    ]
    derived_from: Annotated[
        str | None,
        Column("the image whose settings it was made with; null for others", "derived_from", "derived_from"),
    ]
    app_version: Annotated[str, Column("Darkroom's version", "generator.version")]
    record_json: Annotated[str | None, Column("the whole record; null for failures")]


class Feedback(TypedDict):
    """What people said of an image, and the table of these columns: readers join them to its row, no part has them."""

    rating: Annotated[Int32 | None, Column("your stars, 1 to 5; null for none")]
    picked: Annotated[bool, Column("whether you picked it as the best of its group")]
    rejected: Annotated[bool, Column("whether you rejected it")]
    removed: Annotated[bool, Column("whether its file was deleted as rejected")]
    user_tags: Annotated[list[str], Column("your own tags, in alphabetical order")]
    note: Annotated[str | None, Column("your note; null for none")]


@functools.cache
def columns(of: type = Row) -> dict[str, Column]:
    """The columns of a table by name, in order."""
    hints = _hints(of).items()
    return {name: next(one for one in hint.__metadata__ if isinstance(one, Column)) for name, hint in hints}


@functools.cache
def list_columns() -> frozenset[str]:
    """The columns of rows that hold lists; in a part that is older than one of them, it is null."""
    return frozenset(name for name, hint in _hints(Row).items() if get_origin(_without_none(hint)) is list)


def meanings() -> dict[str, str]:
    """The meaning of each column that can be searched, in column order."""
    return {name: column.meaning for of in (Row, Feedback) for name, column in columns(of).items()}


def searched_schema() -> pa.Schema:
    """The Arrow schema of what can be searched: the rows' columns, then those of `Feedback`."""
    import pyarrow as pa

    return pa.schema([*arrow_schema(), *arrow_schema(Feedback)])


def arrow_schema(of: type = Row) -> pa.Schema:
    """A table's Arrow schema, in column order; `schema_version` is in the key-value metadata as well."""
    import pyarrow as pa

    types = [
        (Int32, pa.int32()),
        (Int64, pa.int64()),
        (float, pa.float64()),
        (bool, pa.bool_()),
        (datetime, pa.timestamp("us", tz="UTC")),
        (list[str], pa.list_(pa.string())),
        (list[str | None], pa.list_(pa.string())),
        (list[float], pa.list_(pa.float64())),
    ]

    def field(name: str, hint: Any) -> pa.Field:
        of = _without_none(hint)
        unlimited = getattr(of, "__origin__", of) if hasattr(of, "__metadata__") else of
        return pa.field(name, next((type_ for one, type_ in types if one in (of, unlimited)), pa.string()))

    fields = [field(name, hint) for name, hint in _hints(of).items()]
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
def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


@functools.cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in _hints(Row).items()}


def _without_none(hint: Any) -> Any:
    """The type of a column, as `Int32` of `Annotated[Int32 | None, Column(...)]`."""
    *limits, _column = hint.__metadata__
    if limits:
        return Annotated[(hint.__origin__, *limits)]
    named = [one for one in get_args(hint.__origin__) if one is not NoneType]
    return named[0] if NoneType in get_args(hint.__origin__) else hint.__origin__
