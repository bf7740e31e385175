"""Prompts to embeddings: each distinct text encoded once and alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.models.loading import LoadedModel
from pipeline.request import ImageRequest

if TYPE_CHECKING:
    import torch

MAX_EMBEDDINGS = 2048
"""Prompt embeddings kept per model; CLIP's are 0.1 to 0.3 MB each, so this stays within about 600 MB."""

_POSITIVE = ("prompt_embeds", "pooled_prompt_embeds")
_NEGATIVE = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")


def encode_prompts(model: LoadedModel, requests: Sequence[ImageRequest]) -> dict[str, Any]:
    """The prompt arguments of the pipeline call: embeddings, each distinct text encoded once and alone.

    Alone, because a text's embedding must not depend on its neighbours. Families whose `encode_prompt` does not follow
    the (positive, negative[, pooled, negative pooled]) order of Stable Diffusion get plain texts.
    """
    pipe = model.pipe
    accepted = inspect.signature(type(pipe).__call__).parameters
    guided = requests[0].guidance_scale > 1
    texts: dict[str, Any] = {"prompt": [request.prompt for request in requests]}
    if guided and "negative_prompt" in accepted:
        texts["negative_prompt"] = [request.negative_prompt for request in requests]
    if not _encodes_like_stable_diffusion(pipe):
        return texts
    names = [name for name in _POSITIVE if name in accepted]
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    negative_names = [name for name in _NEGATIVE if name in accepted] if guided else []
    columns |= {name: [] for name in negative_names}
    import torch

    for request in requests:
        positive = _embedding(model, request.prompt, None, request.clip_skip)
        for name, tensor in zip(names, positive, strict=True):
            columns[name].append(tensor)
        if negative_names:
            negative = _embedding(model, request.prompt, request.negative_prompt, request.clip_skip)
            for name, tensor in zip(negative_names, negative, strict=True):
                columns[name].append(tensor)
    return {name: torch.cat(tensors) for name, tensors in columns.items()}


def _encodes_like_stable_diffusion(pipe: Any) -> bool:
    encode = getattr(pipe, "encode_prompt", None)
    if encode is None:
        return False
    call = inspect.signature(type(pipe).__call__).parameters
    parameters = inspect.signature(encode).parameters
    wanted = {"prompt_embeds", "negative_prompt_embeds", "do_classifier_free_guidance", "negative_prompt"}
    masks = any("mask" in name for name in (*call, *parameters))
    return wanted <= set(parameters) and {"prompt_embeds", "negative_prompt_embeds"} <= set(call) and not masks


def _embedding(
    model: LoadedModel, prompt: str, negative_prompt: str | None, clip_skip: int | None
) -> tuple[torch.Tensor, ...]:
    """Positive (embeds[, pooled]) of a prompt, or, where `negative_prompt` is given, the negative ones."""
    negative = negative_prompt is not None
    key = (negative_prompt if negative_prompt is not None else prompt, negative, clip_skip)
    known = model.embeddings.get(key)
    if known is not None:
        model.embeddings.move_to_end(key)
        return known
    pipe = model.pipe
    parameters = inspect.signature(pipe.encode_prompt).parameters
    arguments: dict[str, Any] = {"prompt": prompt, "device": model.device, "num_images_per_prompt": 1}
    arguments["do_classifier_free_guidance"] = negative
    arguments |= {name: None for name in ("prompt_2", "prompt_3") if name in parameters}
    if "clip_skip" in parameters:
        arguments["clip_skip"] = clip_skip
    if negative:
        # An empty negative is passed as None, as a user of diffusers who gives none does: SDXL then uses zeros.
        arguments["negative_prompt"] = negative_prompt or None
        positive = _embedding(model, prompt, None, clip_skip)
        arguments.update(zip((name for name in _POSITIVE if name in parameters), positive, strict=True))
    encoded = pipe.encode_prompt(**arguments)
    chosen = encoded[1::2] if negative else encoded[0::2]
    value = tuple(tensor for tensor in chosen if tensor is not None)
    model.embeddings[key] = value
    while len(model.embeddings) > MAX_EMBEDDINGS:
        model.embeddings.popitem(last=False)
    return value
