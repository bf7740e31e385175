"""What the panel says of one picture: its recipe in plain words, why it was chosen, what failed, how to go on."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.archive.more import NEW_SEEDS
from jobs.archive.search import search
from jobs.archive.show import as_lines
from jobs.manifest.layout import command
from jobs.manifest.schema import FAILED, INTERRUPTED, QUARANTINED
from pipeline.errors import DarkroomError, ReadError
from pipeline.metadata.reading import describe_record, parse_record
from pipeline.selection.choice import read_choice
from pipeline.selection.explain import paragraph
from pipeline.system.units import duration_text

MAX_SELECTION = 200_000
"""Characters of a recorded choice that are read."""

MAX_FAILURES = 20
_SAID_ELSEWHERE = {"prompt", "negative prompt", "made by"}


def details(output_dir: Path, picture: Mapping[str, Any]) -> dict[str, Any]:
    """All that the panel shows of a picture of `Views.pictures`. What cannot be read is left out."""
    image_id, job_id = picture["image_id"], picture["job_id"]
    columns = ("negative_prompt", "prompt_template", "record_json", "selection", "device")
    rows = list(search(output_dir, where=f"image_id = '{image_id}'", columns=columns, limit=1))
    row = rows[0] if rows else dict.fromkeys(columns)
    return {
        **{name: value for name, value in picture.items() if name != "job_id"},
        "negative_prompt": row["negative_prompt"] or "",
        "prompt_template": row["prompt_template"],
        "recipe": recipe(picture, row["device"]),
        "facts": _facts(row["record_json"]),
        "reasons": _reasons(row["selection"]),
        "failures": _failures(output_dir, job_id),
        "commands": commands(output_dir, picture["path"]),
    }


def recipe(picture: Mapping[str, Any], device: str | None = None) -> str:
    """How a picture was made, in sentences."""
    steps, guidance = picture["steps"], picture["guidance_scale"]
    text = (
        f"{picture['model']} made it in {steps} step{'' if steps == 1 else 's'} with {picture['scheduler']}"
        f"{f' at guidance {guidance:g}' if guidance is not None else ''}, "
        f"{picture['width']} × {picture['height']} pixels, from seed {picture['seed']}."
    )
    if picture["loras"]:
        text += f" LoRA: {', '.join(picture['loras'])}."
    seconds = picture["seconds"]
    if seconds is not None and math.isfinite(seconds) and 0 <= seconds < 1e9:
        took = f"{seconds:.1f} s" if seconds < 60 else duration_text(seconds)
        text += f" It took {took}{f' on {device}' if device else ''}."
    return text


def commands(output_dir: Path, path: str) -> list[dict[str, str]]:
    """Commands for a shell that remake a picture, make others like it, and tell more of it."""
    image = shlex.quote(str(output_dir / path))
    return [
        {"does": "Make it again", "command": command(output_dir, f"reproduce {image}")},
        {"does": "More like this", "command": command(output_dir, f"more {image} seeds={NEW_SEEDS}")},
        {"does": "Its whole record", "command": command(output_dir, f"show {image}")},
    ]


def _facts(record_json: str | None) -> list[list[str]]:
    if not record_json:
        return []
    try:
        lines = as_lines(describe_record(parse_record(record_json)), {})
    except (DarkroomError, ValueError, RecursionError):
        return []
    return [[name, value] for name, value in lines if name not in _SAID_ELSEWHERE]


def _reasons(selection: str | None) -> str:
    """Why this model and these settings were chosen; empty where nothing was."""
    if not selection or len(selection) > MAX_SELECTION:
        return ""
    try:
        return paragraph(read_choice(json.loads(selection)["choice"]))
    except (ReadError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _failures(output_dir: Path, job_id: str) -> list[dict[str, Any]]:
    """The attempts of the picture's job that made none."""
    where = f"job_id = '{job_id}' AND status IN ('{FAILED}', '{QUARANTINED}', '{INTERRUPTED}')"
    columns = ("created_at", "attempt", "status", "error_kind", "error_message")
    rows = search(output_dir, where=where, columns=columns, sort="created_at", limit=MAX_FAILURES)
    return [{**row, "created_at": f"{row['created_at']:%Y-%m-%d %H:%M:%S} UTC"} for row in rows]
