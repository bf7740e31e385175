"""The metadata of images; for a private image, the record in the manifest."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.archive.named_images import image_file
from jobs.manifest.schema import Feedback
from pipeline.errors import ConfigError, ReadError
from pipeline.system.units import size_text

if TYPE_CHECKING:
    from pipeline.metadata.foreign import ImageDescription
    from pipeline.metadata.record import LoraRecord, Record

CSV_COLUMNS = (
    "path", "origin", "prompt", "negative_prompt", "model", "seed", "steps", "guidance_scale", "scheduler", "size",
    "created", "id", *Feedback.__annotations__, "other",
)  # fmt: skip
"""`other` is JSON of what else another program says; all of ours is in the JSON of an image."""

SaidOfAll = Mapping[str, Feedback]
"""What was said of images, by their ids."""

_OTHERS_NAMES = {"cfg_scale": "guidance_scale", "sampler": "scheduler", "Size": "size"}
"""Columns by the names that other programs' settings have."""


def describe_all(named: Sequence[Path], output_dir: Path, faults: list[str]) -> Iterator[tuple[Path, ImageDescription]]:
    """Every image that paths, ids, folders and patterns match, described as by `describe`.

    What cannot be is a line in `faults`, and the others go on.
    """
    for path in named:
        try:
            images = _images_at(image_file(path, output_dir))
        except (ConfigError, ReadError) as error:
            faults += error.faults if isinstance(error, ConfigError) else [str(error)]
            continue
        if not images:
            what = "holds no image" if path.is_dir() else "means no file"
            faults.append(f"{path}: {what}; images are .png, .jpg, .jpeg and .webp files")
        for image in images:
            try:
                yield image, describe(image, output_dir)
            except ReadError as error:
                faults.append(str(error))


def _images_at(path: Path) -> list[Path]:
    """The path itself; of a folder the images below it, of a pattern those of all that it means, by their names."""
    from jobs.manifest.output_files import is_image, iterate_files

    if not os.path.lexists(path) and glob.has_magic(str(path)):
        places = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (it may be absolute)
        return list(dict.fromkeys(image for place in places for image in _images_at(Path(place))))
    return list(filter(is_image, iterate_files(path))) if path.is_dir() else [path]


def describe(image: Path, output_dir: Path) -> ImageDescription:
    """The description of an image made by Darkroom or by another program.

    A private image holds only its id: its record is looked up in the manifest of `output_dir`. Raises ReadError
    for what is no image, or says nothing.
    """
    from pipeline.metadata.reading import NoRecordError, describe_record, parse_record, read_any, read_id

    try:
        return read_any(image)
    except NoRecordError:
        image_id = read_id(image)
        record_json = _record_in_manifest(image_id, output_dir) if image_id else None
        if record_json is None:
            raise
        return describe_record(parse_record(record_json))


def _record_in_manifest(image_id: str, output_dir: Path) -> str | None:
    from jobs.archive.search import search

    # The id comes from a file that anybody may have made, and goes into a condition.
    if not image_id.replace("-", "").isalnum():
        return None
    try:
        rows = [*search(output_dir, where=f"image_id = '{image_id}'", columns=("record_json",), limit=1)]
    except ReadError:
        return None
    return rows[0]["record_json"] if rows else None


def _said(value: Any) -> str:
    """What was said, as text for one cell: nothing for no."""
    if isinstance(value, bool):
        return "true" if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value or "")


def as_json(description: ImageDescription, said: SaidOfAll) -> dict[str, Any]:
    """Darkroom's own record unchanged, and under `feedback` what was said of the image, if anything was.

    Of other programs' images the fields that could be read.
    """
    if description.record is not None:
        record = description.record.model_dump(mode="json", by_alias=True)
        return {**record, "feedback": feedback} if (feedback := said.get(description.record.id)) else record
    return {
        "origin": description.origin,
        "prompt": description.prompt,
        "negative_prompt": description.negative_prompt,
        "fields": description.fields,
    }


def as_row(image: Path, description: ImageDescription, said: SaidOfAll) -> dict[str, str]:
    """A row of `CSV_COLUMNS`."""
    row = {"path": str(image), "origin": description.origin, "prompt": description.prompt}
    row["negative_prompt"] = description.negative_prompt
    others: dict[str, str] = {}
    for name, value in description.fields.items():
        name = _OTHERS_NAMES.get(name, name) if description.record is None else name
        (row if name in CSV_COLUMNS[:-1] and name not in row else others)[name] = value
    if description.record is not None and (feedback := said.get(description.record.id)):
        row |= {name: _said(feedback[name]) for name in Feedback.__annotations__}  # type: ignore[literal-required]
    if others:
        row["other"] = json.dumps(others, ensure_ascii=False)
    return row


def as_lines(description: ImageDescription, said: SaidOfAll) -> list[tuple[str, str]]:
    """Names and values for people, the most important first."""
    head = [("made by", description.origin), ("prompt", description.prompt)]
    if description.negative_prompt:
        head.append(("negative prompt", description.negative_prompt))
    record = description.record
    values: dict[str, Any] = _settings(record) if record else {**description.fields}
    if record is not None and (feedback := said.get(record.id)):
        values |= {
            "rating": f"{feedback['rating']} of 5" if feedback["rating"] else None,
            "picked": "as the best of its group" if feedback["picked"] else None,
            "rejected": "yes" if feedback["rejected"] else None,
            "your tags": _said(feedback["user_tags"]),
            "note": feedback["note"],
        }
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
        "choice": "Darkroom chose the model; `darkroom explain` says why" if record.selection else None,
        "flagged": "by the model's safety checker" if record.flagged else None,
        "memory": f"{record.memory.level}, {record.memory.dtype}",
        "techniques": ", ".join(record.memory.techniques),
        "device": record.runtime.gpu or record.runtime.device,
        "batch": f"image {record.batch.index + 1} of {record.batch.size}",
        "tags": ", ".join(record.job.tags),
        "created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC by Darkroom {record.generator.version}",
        "seconds": f"{record.measured.seconds:.2f}",
        "peak VRAM": size_text(peak) if peak else None,
        "run": record.job.run_id,
        "job": record.job.id,
        "image": record.id,
        "pixels": record.pixels_sha256,
    }


def _lora(lora: LoraRecord) -> str:
    keys = f" ({lora.unmatched} of its keys match nothing in the model)" if lora.unmatched else ""
    return f"{lora.name} x {lora.weight:g}{keys}"


def _tokens(record: Record) -> str | None:
    """Only where something was cut off: everything else is as expected."""
    cut = [f"the last {one.truncated} of {one.tokens} had no effect in {one.encoder}" for one in record.prompt_tokens]
    return ", ".join(text for text, one in zip(cut, record.prompt_tokens, strict=True) if one.truncated) or None
