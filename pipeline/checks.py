"""What the Python API is given, checked before a picture is made. Batches have a border of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.errors import ConfigError
from pipeline.request import MAX_SEED

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0

_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def check_request(
    *,
    prompt: Any,
    negative_prompt: Any,
    seed: Any,
    steps: Any,
    guidance_scale: Any,
    width: Any,
    height: Any,
    clip_skip: Any,
    text_layers: int | None,
) -> None:
    """Raises `ConfigError` with one line per fault: what, what was expected, what was given."""
    faults = [
        *_text_faults("prompt", prompt),
        *_text_faults("negative_prompt", negative_prompt),
        *_number_faults("seed", seed, 0, MAX_SEED),
        *_number_faults("steps", steps, 1, MAX_STEPS),
        *_side_faults("width", width),
        *_side_faults("height", height),
    ]
    if isinstance(guidance_scale, bool | str) or not _within(guidance_scale, 0, MAX_GUIDANCE):
        faults.append(f"guidance_scale: must be a number from 0 to {MAX_GUIDANCE:g} (got {guidance_scale!r})")
    if clip_skip is not None:
        faults += _number_faults("clip_skip", clip_skip, 1, text_layers or 12)
    if faults:
        raise ConfigError(faults)


def _text_faults(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{key}: must be text (got {value!r})"
    elif found := _REFUSED.search(value):
        yield f"{key}: holds the character U+{ord(found[0]):04X} at {found.start()}, which no prompt can have"


def _number_faults(key: str, value: Any, least: int, most: int) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        yield f"{key}: must be a whole number from {least} to {most} (got {value!r})"


def _side_faults(key: str, value: Any) -> Iterator[str]:
    faults = list(_number_faults(key, value, MIN_SIDE, MAX_SIDE))
    yield from faults
    if not faults and value % 8:
        yield f"{key}: must be a multiple of 8 pixels (got {value})"


def _within(value: Any, least: float, most: float) -> bool:
    try:
        return least <= float(value) <= most
    except (TypeError, ValueError):
        return False
