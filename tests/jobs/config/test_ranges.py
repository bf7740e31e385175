"""One definition of each range: a configuration, the Python API and a record take the same, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from recorded_images import SIZE, record_of

from jobs.config.batch_config import parse_configs
from pipeline.adapters.specs import AdapterSpecs
from pipeline.api.pipeline import PictureArguments
from pipeline.errors import ConfigError
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import Record

PIXELS = np.zeros((SIZE, SIZE, 3), np.uint8)
REQUEST: dict[str, Any] = {
    "prompt": "a house",
    "negative_prompt": "",
    "seed": 0,
    "steps": 8,
    "guidance_scale": 3.5,
    "width": 64,
    "height": 64,
    "clip_skip": None,
    "scheduler": None,
    **{kind: [] for kind in AdapterSpecs.model_fields},
    "init": {},
}

BOUNDS: list[tuple[str, Any, Any]] = [
    ("seed", 0, -1),
    ("seed", 2**53 - 1, 2**53),
    ("steps", 1, 0),
    ("steps", 1000, 1001),
    ("guidance_scale", 0.0, -0.1),
    ("guidance_scale", 100.0, 100.1),
    ("width", 16, 8),
    ("height", 4096, 4104),
    ("width", 40, 36),
    ("clip_skip", 1, 0),
    ("clip_skip", 32, 33),
    ("strength", 1.0, 1.1),
    ("strength", 0.01, 0.0),
    ("negative_prompt", "x" * 2**20, "x" * (2**20 + 1)),
    ("negative_prompt", "\t\U0001f409\n", "\x9b"),
]


def in_configuration(key: str, value: Any) -> None:
    config: dict[str, Any] = {
        "prompts": {"lines": ["a house"]},
        "model": {"source": "demo"},
        "memory": {"level": "none"},
    }
    if key == "seed":
        config["seeds"] = [value]
    elif key == "negative_prompt":
        config["prompts"][key] = value
    elif key == "strength":
        config["init"] = {"image": "a.png", key: value}
    else:
        config["sampling"] = {key: value}
    parse_configs([config])


def in_python(key: str, value: Any) -> None:
    changed = {"init": {"image": Path("a.png"), key: value}} if key == "strength" else {key: value}
    PictureArguments.model_validate(REQUEST | changed)


def in_record(key: str, value: Any) -> None:
    values = record_of(1, PIXELS, MetadataSettings()).model_dump(by_alias=True)
    values["init"] = {"image": {"name": "a", "sha256": "0" * 64}, "strength": value} if key == "strength" else None
    Record.model_validate(values | ({} if key == "strength" else {key: value}))


@pytest.mark.parametrize("border", [in_configuration, in_python, in_record])
@pytest.mark.parametrize(("key", "inside", "outside"), BOUNDS, ids=lambda value: str(value)[:12])
def test_each_border_has_the_same_bounds(
    border: Callable[[str, Any], None], key: str, inside: Any, outside: Any
) -> None:
    border(key, inside)
    with pytest.raises((ConfigError, ValidationError)):
        border(key, outside)
