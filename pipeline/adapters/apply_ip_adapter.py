"""Applies IP-Adapters to a loaded model, scales and removes them, and computes their conditions from pictures."""

from __future__ import annotations

import inspect
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.adapters.find_weights import file_now, folder_now
from pipeline.adapters.reference_images import opened
from pipeline.errors import JobFailure
from pipeline.loading.component_weights import first_line, load_weights
from pipeline.loading.components import ComponentPart
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import IpAdapterWeights

_PROJECTIONS = ("encoder_hid_proj", "image_proj")
_NOT_CAST = "_skip_layerwise_casting_patterns"
"""What diffusers calls a denoiser's list of layers that float8 storage leaves alone."""

_ENCODER_OPTIONS = ("image_encoder_folder", "image_encoder_pretrained_model_name_or_path")
"""What the option is called that stops diffusers from loading an image encoder."""

_TYPE = "encoder_hid_dim_type"
_KEPT = 64
"""Pictures whose embeddings are kept; one takes 0.01 to 2 MB."""

Seen = OrderedDict[tuple[str | None, ...], tuple[Any, Any]]
"""What image encoders saw: (adapter, encoder, picture) to the embeddings of the picture and of none."""


@dataclass(slots=True)
class IpAdaptersOn:
    """The IP-Adapters on a denoiser, and what it had before. `hashes` are those of the adapters, in order."""

    hashes: tuple[str, ...]
    denoiser: weakref.ref[Any]
    processors: dict[str, Any]
    projections: dict[str, Any]
    type: Any


_ABSENT = object()


def used(ip_adapters: tuple[IpAdapterWeights, ...]) -> tuple[IpAdapterWeights, ...]:
    """The adapters that have an effect: scale 0 is the same as none."""
    return tuple(one for one in ip_adapters if one.scale)


def is_on(denoiser: Any, on: IpAdaptersOn | None, ip_adapters: tuple[IpAdapterWeights, ...]) -> bool:
    """Whether exactly these adapters are on this denoiser."""
    hashes = tuple(one.sha256 for one in used(ip_adapters))
    if on is None:
        return not hashes
    return on.hashes == hashes and on.denoiser() is denoiser


def apply(model: LoadedModel, ip_adapters: tuple[IpAdapterWeights, ...]) -> IpAdaptersOn:
    """Load IP-Adapters into the denoiser. Raises `JobFailure` if one does not fit."""
    pipe = model.pipe
    denoiser = getattr(pipe, model.files.denoiser)
    on = IpAdaptersOn(
        hashes=tuple(one.sha256 for one in ip_adapters),
        denoiser=weakref.ref(denoiser),
        processors=dict(denoiser.attn_processors),
        projections={name: getattr(denoiser, name) for name in _PROJECTIONS if hasattr(denoiser, name)},
        type=getattr(denoiser.config, _TYPE, _ABSENT),
    )
    paths = [file_now(one.source, one.sha256, "ip-adapter", one.name) for one in ip_adapters]
    extractor = getattr(pipe, "feature_extractor", None)
    try:
        _load(pipe, paths)
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
        remove(on)
        names = ", ".join(one.name for one in ip_adapters)
        raise JobFailure(f"ip-adapter {names}: does not fit this model: {first_line(error)}") from error
    finally:
        pipe.feature_extractor = extractor
    for name, processor in denoiser.attn_processors.items():
        pinned = getattr(on.processors.get(name), "_attention_backend", None)
        if pinned is not None and hasattr(processor, "_attention_backend"):
            processor._attention_backend = pinned
    # ImageProjection casts to the type that its weights lie in, so it must not lie in float8.
    vars(denoiser)[_NOT_CAST] = (*(getattr(denoiser, _NOT_CAST, None) or ()), *_PROJECTIONS)
    for module in _new_modules(denoiser):
        module.to(device=denoiser.device, dtype=model.dtype).requires_grad_(False).eval()
    return on


def remove(on: IpAdaptersOn) -> None:
    """Give the denoiser back the attention processors and projections that it had."""
    denoiser = on.denoiser()
    if denoiser is None:
        return
    vars(denoiser).pop(_NOT_CAST, None)
    # First what came in: a projection may have attention layers of its own, which are counted too.
    for name in _PROJECTIONS:
        if name in on.projections:
            setattr(denoiser, name, on.projections[name])
        elif hasattr(denoiser, name):
            delattr(denoiser, name)
    denoiser.set_attn_processor(dict(on.processors))
    if on.type is not _ABSENT:
        setattr(denoiser.config, _TYPE, on.type)
    elif hasattr(denoiser.config, _TYPE):
        delattr(denoiser.config, _TYPE)


def scale(pipe: Any, ip_adapters: tuple[IpAdapterWeights, ...]) -> None:
    """Set the scale of each adapter."""
    scales = [one.scale for one in used(ip_adapters)]
    pipe.set_ip_adapter_scale(scales[0] if len(scales) == 1 else scales)


def look(model: LoadedModel, one: IpAdapterWeights, place: int, seen: Seen) -> tuple[Any, Any]:
    """The image encoder's conditions for the picture of the adapter at `place`, and for none; computed once.

    The encoder is on the device only while it looks, and stays in the pool.
    """
    key = (one.sha256, one.encoder_sha256, one.image.sha256)
    if key not in seen:
        encoder, processor, release = _encoder(model, one)
        try:
            model.pool.to_device(encoder, model.device)
            seen[key] = _embeddings(model, encoder, processor, opened(one.image), place)
        finally:
            model.pool.to_host(encoder)
            release()
    seen.move_to_end(key)
    while len(seen) > _KEPT:
        seen.popitem(last=False)
    return seen[key]


def _load(pipe: Any, paths: list[Path]) -> None:
    parameters = inspect.signature(pipe.load_ip_adapter).parameters
    encoder = next(name for name in _ENCODER_OPTIONS if name in parameters)
    folders, names = [str(path.parent) for path in paths], [path.name for path in paths]
    single = "list" not in str(parameters["weight_name"].annotation)  # Stable Diffusion 3 takes one
    pipe.load_ip_adapter(
        folders[0] if single else folders,
        subfolder="",
        weight_name=names[0] if single else names,
        local_files_only=True,
        **{encoder: None},
    )


def _encoder(model: LoadedModel, one: IpAdapterWeights) -> tuple[Any, Any, Any]:
    """The image encoder, what prepares pictures for it, and how to give it back."""
    import transformers

    folder = Path(one.encoder_source or "")
    siglip = model.files.family == "sd3"
    class_name = "SiglipVisionModel" if siglip else "CLIPVisionModelWithProjection"
    (_, *weights), variant = folder_now(str(folder), one.encoder_sha256 or "", "image encoder of", one.name)
    part = ComponentPart("image_encoder", "transformers", class_name, folder, tuple(weights), variant)
    key = ("image_encoder", one.encoder_sha256, str(model.dtype))
    file_bytes = sum(file.stat().st_size for file in weights)
    encoder = model.pool.get(key, lambda: load_weights(part, model.dtype, one.name), file_bytes)
    side = encoder.config.image_size
    # Of the two implementations the one that is always there, since their pixels differ; as diffusers makes it.
    name = "SiglipImageProcessor" if siglip else "CLIPImageProcessor"
    kind: Any = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor = kind(size={"height": side, "width": side}) if siglip else kind(size=side, crop_size=side)
    return encoder, processor, lambda: model.pool.release(key)


def _embeddings(model: LoadedModel, encoder: Any, processor: Any, picture: Any, place: int) -> tuple[Any, Any]:
    """Of the picture and of none, by the pipeline's own rules for both."""
    import numpy as np
    import torch
    from diffusers.models.embeddings import ImageProjection

    pipe = model.pipe
    before = pipe.image_encoder, pipe.feature_extractor
    pipe.image_encoder, pipe.feature_extractor = encoder, processor
    try:
        if model.files.family == "sd3":
            positive = pipe.encode_image(picture, model.device)
            return positive, torch.zeros_like(positive)
        if "output_hidden_states" not in inspect.signature(pipe.encode_image).parameters:  # FLUX.1, Chroma
            black = np.zeros((64, 64, 3), dtype=np.uint8)
            positive, negative = (pipe.encode_image(one, model.device, 1) for one in (picture, black))
        else:
            projection = pipe.unet.encoder_hid_proj.image_projection_layers[place]
            hidden = not isinstance(projection, ImageProjection)
            positive, negative = pipe.encode_image(picture, model.device, 1, hidden)
        return positive[None], negative[None]
    finally:
        pipe.image_encoder, pipe.feature_extractor = before


def _new_modules(denoiser: Any) -> list[Any]:
    import torch

    found = [getattr(denoiser, name, None) for name in _PROJECTIONS] + list(denoiser.attn_processors.values())
    return [module for module in found if isinstance(module, torch.nn.Module)]
