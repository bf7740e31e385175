"""Builds the record of a finished picture. The only place where a record is built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import JobFailure
from pipeline.faults import faults_of
from pipeline.metadata.metadata_settings import ImageFormat
from pipeline.metadata.record import (
    BatchRecord,
    ControlNetRecord,
    EmbeddingRecord,
    Generator,
    InitRecord,
    IpAdapterRecord,
    JobRecord,
    LoraRecord,
    Measured,
    MemoryRecord,
    ModelRecord,
    Noise,
    OutputRecord,
    PictureRecord,
    Record,
    Runtime,
    Scheduler,
    SelectionRecord,
    Tokens,
    Weights,
    pixel_hash,
)
from pipeline.request import Adapters, GeneratedImage, LoraMatch, MemorySettings
from pipeline.version import VERSION

_Form = TypeVar("_Form", bound=BaseModel)


class RecordInvalid(JobFailure):
    """The picture's data do not form a valid record, so it could never be explained or reproduced."""

    kind = "record"


def build_record(
    image: GeneratedImage,
    *,
    image_id: str,
    created: datetime,
    output_format: ImageFormat,
    quality: int | None,
    origin: JobRecord,
    prompt_template: str | None = None,
    selection: SelectionRecord | None = None,
    derived_from: str | None = None,
) -> Record:
    """The complete recipe of `image`.

    `image_id` is a lower-case UUID. `created` must know its time zone; it is kept in UTC, cut to
    milliseconds. `quality` is `MetadataSettings.quality_for(output_format)`.

    Raises `RecordInvalid` when a value has no place in a record (a lone surrogate, an unknown runtime field).
    """
    if created.tzinfo is None:
        raise ValueError("created needs a time zone: use datetime.now(UTC)")
    request = image.request
    height, width = image.pixels.shape[:2]
    try:
        return Record(
            id=image_id,
            created=created.astimezone(UTC).replace(microsecond=created.microsecond // 1000 * 1000),
            generator=Generator(version=VERSION),
            pipeline=image.pipeline_class,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            prompt_template=prompt_template,
            width=width,
            height=height,
            steps=request.steps,
            guidance_scale=request.guidance_scale,
            clip_skip=request.clip_skip,
            seed=request.seed,
            noise=Noise(shape=list(image.noise_shape), sha256=image.noise_sha256),
            batch=BatchRecord(size=image.batch_size, index=image.batch_index),
            scheduler=Scheduler(
                name=request.scheduler,
                class_name=image.scheduler_class,
                config=_strict_mapping(image.scheduler_config, "scheduler.config"),
                options=dict(request.scheduler_options),
            ),
            step_cache=request.step_cache,
            prompt_tokens=[_part(Tokens, one) for one in image.prompt_tokens],
            flagged=image.flagged,
            model=_part(ModelRecord, request.model),
            vae=_vae(request.model.vae, request.model.vae_sha256),
            memory=_memory(request.memory, image.memory),
            runtime=Runtime.model_validate(image.runtime),
            job=origin,
            measured=_part(Measured, image, stages=image.stage_peaks),
            output=OutputRecord(format=output_format, quality=quality),
            pixels_sha256=pixel_hash(width, height, image.pixels.tobytes()),
            selection=selection,
            derived_from=derived_from,
            **_adapters(request.adapters, image.lora_matches),
        )
    except ValidationError as error:
        first = next(faults_of(error))
        place = ".".join(str(step) for step in first.location)
        raise RecordInvalid(f"the record cannot hold {place}: {first.expected}") from error


def _part(form: type[_Form], source: Any, **others: Any) -> _Form:
    """A part of the record: the fields that are not among `others` have the same names in `source`."""
    values = {name: getattr(source, name) for name in form.model_fields if name not in others}
    if "name" in values:
        values["name"] = _without_folders(values["name"])
    return form(**values, **others)


def _adapters(adapters: Adapters, matches: Iterable[LoraMatch]) -> dict[str, Any]:
    """The record's fields `task`, `loras`, `embeddings`, `controlnets`, `ip_adapters` and `init`.

    `matches` says for each LoRA, by its hash, how many of its keys found a place.
    """
    found = {one.sha256: {"matched": one.matched, "unmatched": one.unmatched} for one in matches}
    unknown = {"matched": None, "unmatched": None}

    def with_picture(form: type[_Form], one: Any, **others: Any) -> _Form:
        return _part(form, one, image=_part(PictureRecord, one.image), **others)

    return {
        "task": adapters.task,
        "loras": [_part(LoraRecord, one, **found.get(one.sha256, unknown)) for one in adapters.loras],
        "embeddings": [_part(EmbeddingRecord, one) for one in adapters.embeddings],
        "controlnets": [with_picture(ControlNetRecord, one, architecture=None) for one in adapters.controlnets],
        "ip_adapters": [with_picture(IpAdapterRecord, one, architecture=None) for one in adapters.ip_adapters],
        "init": with_picture(InitRecord, adapters.init) if adapters.init else None,
    }


def _without_folders(name: str) -> str:
    """The last part of a path, in either notation: folders tell where a person keeps things."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _memory(asked: MemorySettings, held: MemorySettings) -> MemoryRecord:
    quantized = [
        name for name in held.techniques if name.startswith(("denoiser_", "encoder_")) or name == "fp8_storage"
    ]
    return MemoryRecord(
        level=asked.level,
        dtype=held.dtype,
        vae_slicing=held.uses("vae_slicing"),
        vae_tiling=held.uses("vae_tiling"),
        quantization=", ".join(quantized) or None,
        techniques=list(held.techniques),
        asked=list(asked.techniques),
        off=list(asked.off),
        exact=asked.exact,
        budget_bytes=held.budget_bytes,
        tiny_vae_sha256=held.tiny_vae_sha256 if held.uses("tiny_vae") else None,
    )


def _vae(name: str | None, sha256: str | None) -> Weights | None:
    return Weights(name=_without_folders(name), sha256=sha256) if name and sha256 else None


def _strict_mapping(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Copy without the private keys: `_name_or_path` is an absolute path, the others describe the library."""
    return {
        str(key): _strict_json(value, f"{place}.{key}") for key, value in values.items() if not str(key).startswith("_")
    }


def _strict_json(value: Any, place: str) -> Any:
    """JSON without NaN: `DPMSolverMultistepScheduler` has `lambda_min_clipped: -inf`, which only Python
    reads back.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return _strict_mapping(value, place)
    if isinstance(value, list | tuple):
        return [_strict_json(item, place) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, such as trained betas
        return _strict_json(value.tolist(), place)
    raise RecordInvalid(f"the record cannot hold {place}: {type(value).__name__} is not a plain value")
