"""Encodes prompts to embeddings: each distinct text once and alone."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.adapters.apply import text_encoder_key
from pipeline.generation.guidance import is_guided, negative_text
from pipeline.generation.long_prompts import (
    is_of_other_length,
    padded_alike,
    parse_weights,
    plain_text,
    takes_weights,
    weighed_embeddings,
)
from pipeline.generation.prompt_tokens import counted, tokenizers_of
from pipeline.generation.text_interface import TextInterface, defaults, parameters, text_interface
from pipeline.memory.device.embedding_cache import Embedding
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.timings import device_name
from pipeline.request import ImageRequest
from pipeline.weights.hashes import file_hashes

ENCODING_SCHEMA = 1
"""Raised when the same text would be encoded otherwise; what older versions left on disk is then not used."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """The texts of one image, encoded as arguments of its pipeline's call.

    `negative` is None without guidance. Both are None for a pipeline that encodes its texts itself; `is_negated` then
    says whether there is a negative text to encode, since some of those do otherwise with none than with an empty one.
    """

    positive: Embedding | None
    negative: Embedding | None = None
    is_negated: bool = True


def known(model: LoadedModel, request: ImageRequest) -> EncodedPrompt | None:
    """The result of `encode` if it needs no text encoder: all is in the cache, or the pipeline encodes itself."""
    return _encoded(model, request, encodes=False)


def encode(model: LoadedModel, request: ImageRequest) -> EncodedPrompt:
    """The embeddings of a request's texts, from the cache if they are there.

    Alone, because a text's embedding must not depend on its neighbours.
    """
    encoded = _encoded(model, request, encodes=True)
    assert encoded is not None
    return encoded


def prompt_arguments(pipe: Any, requests: Sequence[ImageRequest], prompts: Sequence[EncodedPrompt]) -> dict[str, Any]:
    """The prompt arguments of a call of `pipe` for alike images; tensors are still on the CPU."""
    import torch

    call = parameters(type(pipe).__call__)
    if prompts[0].positive is None:
        texts: dict[str, Any] = {"prompt": [request.prompt for request in requests]}
        if "negative_prompt" in call and prompts[0].is_negated:
            texts["negative_prompt"] = [request.negative_prompt for request in requests]
        return texts
    arguments: dict[str, Any] = {}
    if defaults(type(pipe).__call__).get("negative_prompt") is not None:
        arguments["negative_prompt"] = None  # else its default text would stand beside the embeddings
    for side in ("positive", "negative"):
        embeddings: list[Embedding] = [embedding for prompt in prompts if (embedding := getattr(prompt, side))]
        for name in {name: None for embedding in embeddings for name in embedding.tensors}:
            rows = [embedding.tensors[name] for embedding in embeddings]
            if name in call:
                arguments[name] = rows if name in embeddings[0].ragged else torch.cat(rows)
    return arguments


def together(places: Sequence[int], prompts: Mapping[int, EncodedPrompt], *, masks_count: bool) -> list[list[int]]:
    """The indices of images, grouped by texts that can share a forward pass without changing each other's pictures.

    Texts of other lengths would be padded to the longest, and padding moves the last bits of all. `masks_count`: so it
    is with the number of tokens that a mask leaves, where the denoiser looks at nothing else.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place in places:
        key: list[Any] = [prompts[place].is_negated]
        for embedding in (prompts[place].positive, prompts[place].negative):
            for name, tensor in (embedding.tensors if embedding else {}).items():
                key.append((name, tuple(tensor.shape), int(tensor.sum()) if masks_count and "mask" in name else None))
        alike.setdefault(tuple(key), []).append(place)
    return list(alike.values())


def _encoded(model: LoadedModel, request: ImageRequest, *, encodes: bool) -> EncodedPrompt | None:
    """Encodes what is not in the cache; without `encodes`, None where something is not."""
    pipe, interface = model.pipe, text_interface(model.pipe.__class__)
    if interface is None:
        return EncodedPrompt(None, is_negated=bool(request.negative_prompt))

    def find(text: str, positive: Embedding | None) -> Embedding | None:
        key, on_disk = _key(model, request, text, positive is not None), model.memory.uses("drop_encoders")
        embedding = model.embeddings.get(key, on_disk=on_disk)
        if embedding is None and encodes:
            embedding = _encode(model, request, interface, text, positive)
            model.embeddings.put(key, embedding, on_disk=on_disk)
        return embedding

    positive = find(request.prompt, None)
    if positive is None or not (interface.negative and is_guided(pipe, request.guidance_scale)):
        return EncodedPrompt(positive) if positive else None
    negative = find(negative_text(pipe, request.negative_prompt), positive)
    if negative is None or not takes_weights(pipe) or not is_of_other_length(positive, negative):
        return EncodedPrompt(positive, negative) if negative else None
    empty, empty_negative = find("", None), find(negative_text(pipe, ""), positive)
    if empty is None or empty_negative is None:
        return None
    return EncodedPrompt(*padded_alike(positive, negative, empty, empty_negative))


def _key(model: LoadedModel, request: ImageRequest, text: str, negative: bool) -> str:
    """Everything that an embedding depends on."""
    encoders = [one for one in model.files.components if one.name.startswith("text_encoder")]
    files = tuple(file for one in encoders for file in one.files)
    tokenizers = {name: f"{type(one).__name__} {len(one)}" for name, one in tokenizers_of(model.pipe).items()}
    content = {
        "schema": ENCODING_SCHEMA,
        "made_with": _made_with(device_name(model.device.type)),
        "pipeline": type(model.pipe).__name__,
        "weights": _weights(files, model.settings.sha256),
        "classes": [one.class_name for one in encoders],
        "tokenizers": tokenizers,
        "dtype": model.memory.dtype,
        "quantization": [name for name in model.memory.techniques if name.startswith("encoder_")],
        "adapters": text_encoder_key(model, request.adapters),
        "text": text,
        "negative": negative,
        "clip_skip": request.clip_skip,
        "max_sequence_length": model.settings.max_sequence_length,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@functools.lru_cache
def _made_with(device: str) -> dict[str, str]:
    """What else an embedding's last bits depend on, the kind of card among it; those kept on disk outlive updates."""
    packages = ("torch", "transformers", "diffusers", "tokenizers", "compel", "peft")
    return {"device": device, **{name: importlib.metadata.version(name) for name in packages}}


@functools.lru_cache
def _weights(files: tuple[Path, ...], model_sha256: str) -> list[str]:
    """Hashes of the encoders' files; of the model where it has no such files of their own."""
    return sorted(file_hashes(list(files)).values()) or [model_sha256]


def _encode(
    model: LoadedModel, request: ImageRequest, interface: TextInterface, text: str, positive: Embedding | None
) -> Embedding:
    """One text; a negative one where `positive`, the embedding of the request's prompt, is given."""
    import torch

    pipe = model.pipe
    fragments = parse_weights(text) if takes_weights(pipe) else ((text, 1.0),)
    text = plain_text(fragments)
    with torch.inference_mode():
        with counted(pipe, text) as tokens:
            returned = pipe.encode_prompt(**_arguments(model, request, interface, text, positive))
        values = dict(zip(interface.returned, returned, strict=True))
        if positive and interface.separate:
            values = {f"negative_{name}": value for name, value in values.items()}
        # The pipeline's own way has lost something: a weight, or tokens at the end.
        lossy = any(weight != 1.0 for _, weight in fragments) or any(one.truncated for one in tokens)
        if lossy and takes_weights(pipe):
            name = "negative_prompt_embeds" if positive else "prompt_embeds"
            # The pipelines do not skip layers for negative prompts.
            values[name] = weighed_embeddings(pipe, fragments, None if positive else request.clip_skip, model.device)
            tokens = [replace(one, truncated=0) for one in tokens]
    tensors, ragged = {}, []
    for name in interface.negative if positive else interface.positive:
        value = values.get(name)
        if isinstance(value, list):
            ragged.append(name)
            (value,) = value
        if value is not None:
            # Some encoders have another precision than the denoiser, since they would overflow in its.
            tensors[name] = value.to("cpu", model.dtype if value.is_floating_point() else value.dtype)
    return Embedding(tensors, tuple(ragged), tuple(tokens))


def _arguments(
    model: LoadedModel, request: ImageRequest, interface: TextInterface, text: str, positive: Embedding | None
) -> dict[str, Any]:
    """Of `encode_prompt`, as the pipeline's own call passes them, its defaults included."""
    pipe = model.pipe
    taken = parameters(type(pipe).encode_prompt)
    call = defaults(type(pipe).__call__)
    arguments = {name: value for name, value in call.items() if name in taken}
    arguments |= {"device": model.device, "num_images_per_prompt": 1, "clip_skip": request.clip_skip, "prompt": text}
    arguments |= {"prompt_2": None, "prompt_3": None, "clean_caption": False, "do_classifier_free_guidance": False}
    if model.settings.max_sequence_length:
        arguments["max_sequence_length"] = model.settings.max_sequence_length
    if positive and not interface.separate:
        # An empty one is passed as a user of diffusers who gives none does: SDXL then uses zeros.
        arguments |= {"negative_prompt": text or call.get("negative_prompt"), "do_classifier_free_guidance": True}
        arguments["prompt"] = request.prompt
        for name, tensor in positive.tensors.items():
            if takes_weights(pipe) and name == "prompt_embeds":
                tensor = tensor[:, : pipe.tokenizer.model_max_length]  # as many tokens are taken of the negative text
            arguments[name] = [tensor.to(model.device)] if name in positive.ragged else tensor.to(model.device)
    return {name: value for name, value in arguments.items() if name in taken}
