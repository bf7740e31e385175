"""What an image says about its making; for a private image, what the manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ReadError

if TYPE_CHECKING:
    from pipeline.metadata.reading import ImageDescription
    from pipeline.metadata.record import Lora, Record


def describe(image: Path, output_dir: Path) -> ImageDescription:
    """The description of an image of ours or of another program.

    A private image holds only its id: its record is looked up in the manifest of `output_dir`. Raises ReadError
    for what is no image, or says nothing.
    """
    from pipeline.metadata.reading import ImageDescription, NoRecordError, parse_record, read_any, read_id

    try:
        return read_any(image)
    except NoRecordError:
        image_id = read_id(image)
        record_json = _record_in_manifest(image_id, output_dir) if image_id else None
        if record_json is None:
            raise
        record = parse_record(record_json)
        return ImageDescription("Darkroom", record.prompt, record.negative_prompt, record=record)


def _record_in_manifest(image_id: str, output_dir: Path) -> str | None:
    from jobs.search import search

    # The id comes from a file that anybody may have made, and goes into a condition.
    if not image_id.replace("-", "").isalnum():
        return None
    try:
        rows = search(output_dir, where=f"image_id = '{image_id}'", columns=("record_json",), limit=1)
    except ReadError:
        return None
    return rows[0]["record_json"] if rows else None


def as_json(description: ImageDescription) -> dict[str, Any]:
    """Our own record as it is; of other programs' images what could be understood."""
    if description.record is not None:
        return description.record.model_dump(mode="json", by_alias=True)
    return {
        "origin": description.origin,
        "prompt": description.prompt,
        "negative_prompt": description.negative_prompt,
        "fields": description.fields,
    }


def as_lines(description: ImageDescription) -> list[tuple[str, str]]:
    """Names and values for people, the most asked-for first."""
    head = [("made by", description.origin), ("prompt", description.prompt)]
    if description.negative_prompt:
        head.append(("negative prompt", description.negative_prompt))
    record = description.record
    values: dict[str, Any] = _settings(record) if record else {**description.fields}
    return head + [(name, str(value)) for name, value in values.items() if value not in (None, "", [])]


def _settings(record: Record) -> dict[str, Any]:
    def named(weights: Any) -> str | None:
        return f"{weights.name} (sha256 {weights.sha256[:12]})" if weights else None

    peak = record.measured.peak_vram_bytes
    return {
        "template": record.prompt_template,
        "model": named(record.model),
        "vae": named(record.vae),
        "loras": ", ".join(_lora(lora) for lora in record.loras),
        "embeddings": ", ".join(f"{one.name} as {one.token}" for one in record.embeddings),
        "controlnets": ", ".join(
            f"{one.name} x {one.strength:g} on {one.image.name if one.image else '?'}" for one in record.controlnets
        ),
        "ip-adapters": ", ".join(f"{one.name} x {one.scale:g} on {one.image.name}" for one in record.ip_adapters),
        "started from": f"{record.init.image.name}, strength {record.init.strength:g}" if record.init else None,
        "size": f"{record.width} x {record.height}",
        "steps": record.steps,
        "guidance scale": f"{record.guidance_scale:g}",
        "scheduler": record.scheduler.name,
        "seed": record.seed,
        "clip skip": record.clip_skip,
        "tokens": _tokens(record),
        "flagged": "by the model's safety checker" if record.flagged else None,
        "memory": f"{record.memory.level}, {record.memory.dtype}",
        "techniques": ", ".join(record.memory.techniques),
        "device": record.runtime.gpu or record.runtime.device,
        "batch": f"image {record.batch.index + 1} of {record.batch.size}",
        "tags": ", ".join(record.job.tags),
        "created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC by Darkroom {record.generator.version}",
        "seconds": f"{record.measured.seconds:.2f}",
        "peak VRAM": f"{peak / 2**20:.0f} MiB" if peak else None,
        "run": record.job.run_id,
        "job": record.job.id,
        "image": record.id,
        "pixels": record.pixels_sha256,
    }


def _lora(lora: Lora) -> str:
    keys = f" ({lora.unmatched} of its keys had no place)" if lora.unmatched else ""
    return f"{lora.name} x {lora.weight:g}{keys}"


def _tokens(record: Record) -> str | None:
    """Only where something was cut off: everything else is as expected."""
    cut = [f"the last {one.truncated} of {one.tokens} had no effect in {one.encoder}" for one in record.prompt_tokens]
    return ", ".join(text for text, one in zip(cut, record.prompt_tokens, strict=True) if one.truncated) or None
