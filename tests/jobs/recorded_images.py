"""Real image files with real records, and rows as a worker writes them, without a model."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any, Literal

import numpy as np
from manifest_rows import START, attempt_of, job_id

from jobs.manifest.journal import Journal
from jobs.manifest.rows import done_row
from jobs.manifest.schema import Row
from pipeline.metadata.encoding import encode_image
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import Record, pixel_hash

SIZE = 16


def record_of(n: int, pixels: np.ndarray[Any, Any], settings: MetadataSettings, image_format: str = "png") -> Record:
    values: dict[str, Any] = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))),
        "created": START.replace(minute=n % 60, microsecond=123_000),
        "generator": {"version": "0.1.0"},
        "pipeline": "StableDiffusionPipeline",
        "prompt": f"a red house, number {n}, 日没",
        "negative_prompt": "blurry" if n % 2 else "",
        "prompt_template": "a {red|blue} house" if n % 3 else None,
        "width": SIZE,
        "height": SIZE,
        "steps": 8 + n,
        "guidance_scale": 3.5,
        "clip_skip": 1 if n % 2 else None,
        "seed": n,
        "noise": {"shape": [1, 4, 2, 2], "sha256": "1" * 64},
        "batch": {"size": 8, "index": n % 8},
        "scheduler": {"name": "DPM++ 2M", "class_name": "DPMSolverMultistepScheduler", "config": {"beta_end": 0.012}},
        "model": {"name": "demo", "sha256": "a" * 64, "architecture": "sd"},
        "vae": {"name": "vae", "sha256": "b" * 64} if n % 2 else None,
        "loras": [{"name": "style", "sha256": "c" * 64, "weight": 0.8}] if n % 3 else [],
        "memory": {"level": "none", "dtype": "float32", "vae_slicing": False, "vae_tiling": False},
        "runtime": {
            "device": "cpu",
            "attention_backend": "sdpa",
            "cpu_threads": 2,
            "deterministic": True,
            "versions": {"torch": "2.10.0"},
        },
        "job": {"id": job_id(n), "run_id": "run1", "name": "study", "tags": ["tests", "sea"], "attempt": 1 + n % 2},
        "measured": {"seconds": 0.25, "peak_rss_bytes": 10**9},
        "output": {"format": image_format, "quality": settings.quality_for(image_format)},  # type: ignore[arg-type]
        "pixels_sha256": pixel_hash(SIZE, SIZE, pixels.tobytes()),
        "derived_from": str(uuid.uuid5(uuid.NAMESPACE_OID, "0")) if n % 4 == 1 else None,
    }
    return Record(**values)


def save_image(
    journal: Journal,
    output_dir: Path,
    n: int,
    *,
    profile: Literal["full", "minimal", "private"] = "full",
    image_format: str = "png",
    folder: str = "study",
) -> Row:
    """Make image `n` from start to commit; returns its row."""
    settings = MetadataSettings(profile=profile)
    pixels = np.random.default_rng(n).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    record = record_of(n, pixels, settings, image_format)
    content = encode_image(pixels, record, settings).data
    row = done_row(record, f"{folder}/{n:04d}.{image_format}", hashlib.sha256(content).hexdigest())
    journal.start([attempt_of(n)])
    journal.intend(row)
    path = output_dir / str(row["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    journal.commit(record.id)
    return row
