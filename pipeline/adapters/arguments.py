"""The arguments of a pipeline's call for its adapters."""

from __future__ import annotations

import inspect
from typing import Any

from pipeline.adapters.apply_ip_adapter import used
from pipeline.adapters.reference_images import control_image, fitted
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import Adapters, ControlNetWeights, IpAdapterWeights


def arguments(
    model: LoadedModel, pipe: Any, adapters: Adapters, count: int, width: int, height: int, guided: bool = True
) -> dict[str, Any]:
    """The call arguments of `view` for a batch of `count` pictures of `width` x `height` pixels.

    `guided` says whether the call uses classifier-free guidance. Raises `JobFailure` if a picture is gone.
    """
    accepted = inspect.signature(type(pipe).__call__).parameters
    found: dict[str, Any] = {}
    if adapters.init:
        # One per image: each is encoded alone, with noise from its own generator.
        found["image"] = [fitted(adapters.init.image, width, height)] * count
        found["strength"] = adapters.init.strength
    if adapters.controlnets:
        found |= _of_controlnets(adapters.controlnets, accepted, width, height)
    ip_adapters = used(adapters.ip_adapters)
    if ip_adapters:
        found |= _of_ip_adapters(model, ip_adapters, accepted, guided)
    return found


def _of_controlnets(
    controlnets: tuple[ControlNetWeights, ...], accepted: Any, width: int, height: int
) -> dict[str, Any]:
    def one_or_all(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else values

    values: dict[str, list[Any]] = {
        "control_image" if "control_image" in accepted else "image": [
            control_image(one, width, height) for one in controlnets
        ],
        "controlnet_conditioning_scale": [one.strength for one in controlnets],
        "control_guidance_start": [one.start for one in controlnets],
        "control_guidance_end": [one.end for one in controlnets],
    }
    return {name: one_or_all(value) for name, value in values.items() if name in accepted}


def _of_ip_adapters(
    model: LoadedModel, ip_adapters: tuple[IpAdapterWeights, ...], accepted: Any, guided: bool
) -> dict[str, Any]:
    import torch

    assert model.adapters is not None, "IP-Adapters are applied before the call"
    pairs = [model.adapters.seen[(one.sha256, one.encoder_sha256, one.image.sha256)] for one in ip_adapters]
    if "negative_ip_adapter_image_embeds" in accepted:
        return {
            "ip_adapter_image_embeds": [positive for positive, _ in pairs],
            "negative_ip_adapter_image_embeds": [negative for _, negative in pairs],
        }
    embeddings = [torch.cat([negative, positive]) if guided else positive for positive, negative in pairs]
    return {"ip_adapter_image_embeds": embeddings[0] if model.files.family == "sd3" else embeddings}
