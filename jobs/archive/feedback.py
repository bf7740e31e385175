"""The groups that picks are the best of, and the removal of what was rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.archive.named_images import NamedImage
from jobs.archive.search import search
from jobs.manifest.layout import Layout
from jobs.manifest.output_files import file_sha256
from jobs.manifest.query import stream
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import MAX_COMPARED, PICK, REMOVED, YES, RatingEvent
from jobs.manifest.ratings_view import read_said
from jobs.manifest.schema import DONE, list_columns
from pipeline.errors import ConfigError
from pipeline.metadata.containers import MAX_PART_BYTES
from pipeline.storage.durable import writing
from pipeline.storage.platform import sync_folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation, Expression

Group = Literal["prompt", "cell"]

_CELL = (
    "prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "scheduler", "scheduler_options",
    "step_cache", "clip_skip", "model_sha256", "vae_sha256", "lora_sha256s", "lora_weights", "embeddings",
    "controlnets", "controlnet_strengths", "controlnet_images", "controlnet_preprocess", "controlnet_starts",
    "controlnet_ends", "ip_adapters", "ip_adapter_scales", "ip_adapter_images", "init_image", "strength",
)  # fmt: skip
"""What images of one cell of a grid have in common; their seeds differ."""


def group_of(image: NamedImage, group: Group, output_dir: Path) -> list[str]:
    """The ids of the other images of an image's group, the newest ones: of its prompt, or also of its settings.

    Rejected images are in it, removed ones are not.
    """
    columns = _CELL if group == "cell" else ("prompt",)

    def select(connection: DuckDBPyConnection) -> DuckDBPyRelation:
        from duckdb import ColumnExpression, ConstantExpression

        def equals(name: str, value: str) -> Expression:
            return ColumnExpression(name) == ConstantExpression(value)

        def known(table: str, name: str) -> str:
            return f"coalesce({table}.{name}, [])" if name in list_columns() else f"{table}.{name}"

        images = connection.view("images").filter(equals("status", DONE))
        own = images.filter(equals("image_id", image.image_id)).select(*map(ColumnExpression, columns)).limit(1)
        own.create_view("own")
        alike = " AND ".join(f"{known('images', name)} IS NOT DISTINCT FROM {known('own', name)}" for name in columns)
        others = images.filter(~equals("image_id", image.image_id)).filter(~ColumnExpression("removed"))
        others.create_view("others")
        return connection.sql(
            f"SELECT images.image_id FROM others AS images JOIN own ON {alike} "
            f"ORDER BY images.created_at DESC, images.image_id LIMIT {MAX_COMPARED}"
        )

    return [image_id for rows in stream(output_dir, select) for (image_id,) in rows]


def pick(image: NamedImage, group: Group, output_dir: Path, source: str = "command") -> RatingEvent:
    """The event that picks an image as the best of its group."""
    return RatingEvent(image.image_id, PICK, YES, group_of(image, group, output_dir), source)


def picked_words(event: RatingEvent, group: Group) -> str:
    """What a pick means, for people."""
    count = len(event.compared)
    if not count:
        return f"picked, the only one of its {group}"
    return f"picked, better than {count} {'others' if count > 1 else 'other'} of its {group}"


def last_pick(image: NamedImage, output_dir: Path) -> str:
    """The uuid of the event that picked an image. Raises `ConfigError` where none did."""
    picks = [event for image_id, kind, value, _, event in read_said(output_dir) if (kind, value) == (PICK, YES)
             if image_id == image.image_id]  # fmt: skip
    if not picks:
        raise ConfigError([f"{image.path}: was not picked"])
    return picks[-1]


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """A rejected image whose file is still there, with the sidecar that is its own, if it has one."""

    image: NamedImage
    file: Path
    sidecar: Path | None
    size_bytes: int


def rejected_images(output_dir: Path, others: list[str]) -> Iterator[RejectedImage]:
    """The rejected images to remove. A file that is not the one that was saved is a line in `others`, and stays."""
    columns = ("image_id", "job_id", "path", "file_sha256")
    for row in search(output_dir, where="rejected", columns=columns, sort="path"):
        file = Layout(output_dir).image(row["path"])
        if file is None or not file.is_file():
            continue
        if file_sha256(file) != row["file_sha256"]:
            others.append(f"{file}: not the file that was saved; delete it yourself")
            continue
        sidecar = _sidecar(file, row["image_id"])
        size = file.stat().st_size + (sidecar.stat().st_size if sidecar else 0)
        yield RejectedImage(NamedImage(row["image_id"], row["job_id"], row["path"]), file, sidecar, size)


def remove(rejected: Sequence[RejectedImage], output_dir: Path) -> None:
    """Delete images and their sidecars. That each is removed is on the disk before its files go.

    So whenever this is interrupted, nobody takes what is gone for missing or makes it again, and doing it again
    finishes it: the sidecar goes first, since an image that is there is found again. Raises `RunStopped`.
    """
    with RatingWriter(output_dir) as writer:
        writer.append(RatingEvent(one.image.image_id, REMOVED, one.image.job_id) for one in rejected)
    with writing(output_dir):
        for one in rejected:
            if one.sidecar is not None:
                one.sidecar.unlink(missing_ok=True)
            one.file.unlink(missing_ok=True)
        for folder in {one.file.parent for one in rejected}:
            sync_folder(folder)


def _sidecar(image: Path, image_id: str) -> Path | None:
    """The `<stem>.json` beside an image that is its record: not any file of that name."""
    sidecar = image.with_suffix(".json")
    try:
        with sidecar.open("rb") as file:
            content = json.loads(file.read(MAX_PART_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return sidecar if isinstance(content, dict) and content.get("id") == image_id else None
