"""The manifest's columns, and how a row is made from a record.

One explicit, versioned Arrow schema; changes are additive and nullable. A `done` row is a pure function of the image's
record, its relative path and its file hash, so `reindex` rebuilds the same rows from the images alone.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict, cast, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from jobs.manifest.layout import is_inside
from pipeline.version import VERSION

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.job import Job
    from pipeline.metadata.record import Record

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


class Row(TypedDict):
    """One manifest row; `created_at` is an aware UTC datetime, `path` is relative to the output folder, with `/`."""

    schema_version: Int32
    image_id: str | None
    job_id: JobId
    run_id: str | None
    name: str | None
    status: Status
    attempt: Int32
    error_kind: str | None
    error_message: str | None
    created_at: datetime
    path: ImagePath | None
    format: str | None
    file_sha256: str | None
    pixels_sha256: str | None
    width: Int32
    height: Int32
    prompt: str
    negative_prompt: str
    prompt_template: str | None
    prompt_set: str | None
    prompt_index: Int64 | None
    tags: list[str]
    seed: Int64
    steps: Int32
    guidance_scale: float
    scheduler: str
    clip_skip: Int32 | None
    architecture: str | None
    model: str
    model_sha256: str
    vae: str | None
    vae_sha256: str | None
    loras: list[str]
    lora_sha256s: list[str]
    lora_weights: list[float]
    controlnets: list[str]
    ip_adapters: list[str]
    init_image: str | None
    task: str | None
    flagged: bool | None
    memory: str
    dtype: str
    quantization: str | None
    techniques: list[str]
    predicted_peak_bytes: Int64 | None
    device: str | None
    batch_size: Int32 | None
    batch_index: Int32 | None
    seconds: float | None
    peak_vram_bytes: Int64 | None
    peak_rss_bytes: Int64 | None
    selection: str | None
    app_version: str
    record_json: str | None


def arrow_schema() -> pa.Schema:
    """The manifest's Arrow schema, in column order; `schema_version` is in the key-value metadata as well."""
    import pyarrow as pa

    text, integer, real, texts = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string())
    special = {
        "schema_version": pa.int32(),
        "attempt": pa.int32(),
        "created_at": pa.timestamp("us", tz="UTC"),
        "width": pa.int32(),
        "height": pa.int32(),
        "steps": pa.int32(),
        "clip_skip": pa.int32(),
        "batch_size": pa.int32(),
        "batch_index": pa.int32(),
        "prompt_index": integer,
        "seed": integer,
        "peak_vram_bytes": integer,
        "peak_rss_bytes": integer,
        "guidance_scale": real,
        "seconds": real,
        "tags": texts,
        "loras": texts,
        "lora_sha256s": texts,
        "lora_weights": pa.list_(real),
        "controlnets": texts,
        "ip_adapters": texts,
        "flagged": pa.bool_(),
        "techniques": texts,
        "predicted_peak_bytes": integer,
    }
    fields = [pa.field(name, special.get(name, text)) for name in Row.__annotations__]
    return pa.schema(fields, metadata={"darkroom.schema_version": str(SCHEMA_VERSION)})


def done_row(record: Record, path: str, file_sha256: str) -> Row:
    """The row of a finished image. `path` is relative to the output folder, with forward slashes."""
    return Row(
        schema_version=SCHEMA_VERSION,
        image_id=record.id,
        job_id=record.job.id,
        run_id=record.job.run_id,
        name=record.job.name,
        status=DONE,
        attempt=record.job.attempt,
        error_kind=None,
        error_message=None,
        created_at=record.created,
        path=path,
        format=record.output.format,
        file_sha256=file_sha256,
        pixels_sha256=record.pixels_sha256,
        width=record.width,
        height=record.height,
        prompt=record.prompt,
        negative_prompt=record.negative_prompt,
        prompt_template=record.prompt_template,
        prompt_set=record.job.prompt_set,
        prompt_index=record.job.prompt_index,
        tags=list(record.job.tags),
        seed=record.seed,
        steps=record.steps,
        guidance_scale=record.guidance_scale,
        scheduler=record.scheduler.name,
        clip_skip=record.clip_skip,
        architecture=record.model.architecture,
        model=record.model.name,
        model_sha256=record.model.sha256,
        vae=record.vae.name if record.vae else None,
        vae_sha256=record.vae.sha256 if record.vae else None,
        loras=[lora.name for lora in record.loras],
        lora_sha256s=[lora.sha256 for lora in record.loras],
        lora_weights=[lora.weight for lora in record.loras],
        controlnets=[controlnet.name for controlnet in record.controlnets],
        ip_adapters=[ip_adapter.name for ip_adapter in record.ip_adapters],
        init_image=record.init.image.name if record.init else None,
        task=record.task,
        flagged=record.flagged,
        memory=record.memory.level,
        dtype=record.memory.dtype,
        quantization=record.memory.quantization,
        techniques=list(record.memory.techniques),
        predicted_peak_bytes=record.measured.predicted_peak_bytes,
        device=record.runtime.device,
        batch_size=record.batch.size,
        batch_index=record.batch.index,
        seconds=record.measured.seconds,
        peak_vram_bytes=record.measured.peak_vram_bytes,
        peak_rss_bytes=record.measured.peak_rss_bytes,
        selection=None,
        app_version=record.generator.version,
        record_json=record.to_json(),
    )


def attempt_row(job: Job, run_id: str, attempt: int, status: Status, created_at: datetime) -> Row:
    """The row of a job without an image: a failure, or what to record should the process die on it."""
    request = job.request
    return Row(
        schema_version=SCHEMA_VERSION,
        image_id=None,
        job_id=job.id,
        run_id=run_id,
        name=job.name,
        status=status,
        attempt=attempt,
        error_kind=None,
        error_message=None,
        created_at=created_at,
        path=None,
        format=None,
        file_sha256=None,
        pixels_sha256=None,
        width=request.width,
        height=request.height,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        prompt_template=job.prompt_template,
        prompt_set=job.prompt_set,
        prompt_index=job.prompt_index,
        tags=list(job.tags),
        seed=request.seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        scheduler=request.scheduler,
        clip_skip=request.clip_skip,
        architecture=request.model.architecture,
        model=request.model.name,
        model_sha256=request.model.sha256,
        vae=request.model.vae,
        vae_sha256=request.model.vae_sha256,
        loras=[lora.name for lora in request.adapters.loras],
        lora_sha256s=[lora.sha256 for lora in request.adapters.loras],
        lora_weights=[lora.weight for lora in request.adapters.loras],
        controlnets=[controlnet.name for controlnet in request.adapters.controlnets],
        ip_adapters=[ip_adapter.name for ip_adapter in request.adapters.ip_adapters],
        init_image=request.adapters.init.image.name if request.adapters.init else None,
        task="txt2img" if request.adapters.init is None else "img2img",
        flagged=None,
        memory=request.memory.level,
        dtype=request.memory.dtype,
        quantization=None,
        techniques=list(request.memory.techniques),
        predicted_peak_bytes=None,
        device=None,
        batch_size=None,
        batch_index=None,
        seconds=None,
        peak_vram_bytes=None,
        peak_rss_bytes=None,
        selection=None,
        app_version=VERSION,
        record_json=None,
    )


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
        for name, column in _columns().items():
            if name in given or name in _NEEDED:
                column.validate_python(given[name], strict=True)
    except (KeyError, TypeError, ValidationError) as error:
        raise ValueError(f"no row: {error}") from error
    return cast(Row, {name: given.get(name) for name in Row.__annotations__})


_NEEDED = ("job_id", "status", "attempt")


@functools.cache
def _columns() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(Row, include_extras=True).items()}
