"""Output folders with small real pictures that differ."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import PIL.Image
from manifest_rows import done_of, write_part

from jobs.manifest.schema import Row

THINGS = ("lighthouse", "boat", "castle", "garden", "bridge")
MODELS = ("demo", "sdxl", "dreamshaper")
MEDIA = ("watercolour", "photograph")

SELECTION = {
    "analysis": {"medium": ["watercolour"], "lighting": ["neon", "no such light"]},
    "choice": {
        "model": {
            "chosen": "dreamshaper",
            "score": 2.1,
            "runner_up": {"name": "sdxl", "score": 1.2},
            "reasons": [{"feature": "medium", "words": "made for watercolour", "points": 1.1}],
        },
        "prompt": {"text": "x"},
        "negative_prompt": {"text": ""},
    },
}


def drawn(output_dir: Path, n: int, **changes: Any) -> Row:
    """The row of picture `n`, whose file is written: of one colour, 64 x 48."""
    written = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), (n * 37 % 256, n * 91 % 256, n * 53 % 256)).save(written, "PNG")
    values: dict[str, Any] = {
        "path": f"study/{n:04d}.png",
        "file_sha256": hashlib.sha256(written.getvalue()).hexdigest(),
        "width": 64,
        "height": 48,
        "prompt": f"a {THINGS[n % 5]} by the sea, number {n}",
        "model": MODELS[n % 3],
        "steps": (8, 20)[n % 2],
        "loras": ["ink-wash"] if n % 4 == 0 else [],
        "tags": ["postcard", THINGS[n % 5]],
        "run_id": "20260101T000000Z-aaaaaaaa",
        "selection": json.dumps(SELECTION) if n % 3 == 2 else None,
    }
    row = done_of(n, **(values | changes))
    file = output_dir / str(row["path"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written.getvalue())
    return row


def draw(output_dir: Path, numbers: Iterable[int], part: str = "a") -> list[Row]:
    """A part of pictures of these numbers."""
    rows = [drawn(output_dir, n) for n in numbers]
    write_part(output_dir, part, rows)
    return rows
