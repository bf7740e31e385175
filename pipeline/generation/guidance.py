"""The guidance scale and negative prompt in the terms of each pipeline."""

from __future__ import annotations

from typing import Any

from pipeline.generation.text_interface import defaults, parameters
from pipeline.weights.families import family_of


def guidance_arguments(pipe: Any, scale: float) -> dict[str, float]:
    """The argument of the pipeline's call that takes the guidance scale."""
    return {"true_cfg_scale": scale} if _by_true_cfg(pipe) else {"guidance_scale": scale}


def is_guided(pipe: Any, scale: float) -> bool:
    """Whether a call with this scale uses a second, negative text. The pipeline itself says so if it can."""
    if _by_true_cfg(pipe):
        return scale > 1
    if "true_cfg_scale" in parameters(type(pipe).__call__):
        return False  # the scale is a number that the model was given in training
    if hasattr(type(pipe), "do_classifier_free_guidance"):
        pipe._guidance_scale = scale
        return bool(pipe.do_classifier_free_guidance)
    return scale > 1


def negative_text(pipe: Any, negative_prompt: str) -> str:
    """The negative prompt to encode: a single space for none, if true guidance needs a text."""
    return negative_prompt or (" " if _by_true_cfg(pipe) else "")


def _by_true_cfg(pipe: Any) -> bool:
    family = family_of(type(pipe).__name__)
    if family is not None:
        return family.guidance == "true_cfg"
    call = defaults(type(pipe).__call__)
    return "true_cfg_scale" in call and call.get("guidance_scale", None) is None
