"""Requests for pictures of tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import ImageRequest


def request_for(model: LoadedModel, prompt: str = "a red house", seed: int = 1, **values: Any) -> ImageRequest:
    """A picture of 32 x 32 in four steps; `values` are other fields of the request."""
    request = ImageRequest(
        prompt=prompt,
        negative_prompt="fog",
        seed=seed,
        steps=4,
        guidance_scale=5.0,
        width=32,
        height=32,
        scheduler="DDIM",
        clip_skip=None,
        model=model.settings,
        memory=model.memory,
    )
    return replace(request, **values)
