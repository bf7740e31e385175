"""Tiny models held in one way or another, and the pictures they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.generation.generate import generate_bundle
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.techniques import ordered
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings

Load = Callable[..., LoadedModel]
GIB = 2**30


def held_by(*techniques: str, **options: Any) -> MemorySettings:
    """Settings with these techniques, and a budget where one is needed."""
    if "resident_blocks" in techniques:
        options.setdefault("budget_bytes", GIB)
    return MemorySettings(techniques=ordered(techniques), **options)


def requests_for(model: LoadedModel, count: int = 2, **values: Any) -> list[ImageRequest]:
    """Pictures that differ in prompt and seed."""
    family = model.files.family
    options = {
        "negative_prompt": "" if family in ("flux", "flux2_klein") else "mist",
        "steps": 2,
        "guidance_scale": 3.0,
        "width": 64,
        "height": 64,
        "scheduler": model.files.scheduler_class,
        "clip_skip": None,
        "model": model.settings,
        "memory": model.memory,
        **values,
    }
    return [ImageRequest(prompt=f"a green tree {seed}", seed=seed, **options) for seed in range(count)]


def pictures(model: LoadedModel, count: int = 2, **values: Any) -> npt.NDArray[np.uint8]:
    """Two batches through the whole pipeline."""
    return np.stack([image.pixels for image in images(model, count, **values)])


def images(model: LoadedModel, count: int = 2, **values: Any) -> list[GeneratedImage]:
    """As `pictures`, with all that is known of each."""
    requests = requests_for(model, count, **values)
    outcomes = dict(generate_bundle(model, [requests[: count // 2], requests[count // 2 :]]))
    made = [outcomes[place] for place in range(count)]
    assert all(isinstance(image, GeneratedImage) for image in made), made
    return made  # type: ignore[return-value]
