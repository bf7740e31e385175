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


NO_NEGATIVE_PROMPT = ("flux", "flux2_klein")


def family_request(model: LoadedModel, prompt: str = "a red house", seed: int = 1, **values: Any) -> ImageRequest:
    """A small picture in three steps as the model's family makes it, with the scheduler that came with the weights."""
    side = 64 if model.files.family == "sana" else 32
    own = {
        "negative_prompt": "" if model.files.family in NO_NEGATIVE_PROMPT else "fog",
        "steps": 3,
        "guidance_scale": 3.0,
        "width": side,
        "height": side,
        "scheduler": type(model.own_scheduler).__name__,
    }
    return request_for(model, prompt, seed, **own | values)
