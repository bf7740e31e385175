"""Applies to a loaded model the adapters of a request, and removes others."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.adapters import apply_ip_adapter, apply_lora, textual_inversion
from pipeline.adapters.identify_lora import touches_text_encoder
from pipeline.adapters.pipeline_views import load_controlnet
from pipeline.errors import JobFailure
from pipeline.memory.device.apply import without_techniques
from pipeline.memory.device.disk_weights import bring_part
from pipeline.memory.device.loaded_components import components, encoders
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import NO_ADAPTERS, Adapters, lora_weights


@dataclass(slots=True)
class ModelAdapters:
    """Adapters that are applied to a model, in use or not, and how to remove them; kept as `LoadedModel.adapters`."""

    loras: apply_lora.Loras = field(default_factory=OrderedDict)
    tokens: textual_inversion.TokensOn | None = None
    ip_adapters: apply_ip_adapter.IpAdaptersOn | None = None
    seen: apply_ip_adapter.Seen = field(default_factory=OrderedDict)
    controlnets: dict[str, Any] = field(default_factory=dict)

    def remove(self, model: LoadedModel, component: str | None = None) -> None:
        """Remove all adapters from a model, or from one of its components, before it goes back to the pool."""
        pipes = [model.pipe, *model.views.values()]
        if self.tokens is not None and (component is None or component.startswith("text_encoder")):
            textual_inversion.remove(pipes, self.tokens)
            self.tokens = None
        if self.ip_adapters is not None and component in (None, model.files.denoiser):
            apply_ip_adapter.remove(self.ip_adapters)
            self.ip_adapters = None
        apply_lora.restore_layers(model.pipe, component)
        if component is None:
            self.loras.clear()
            _release_controlnets(model, self, keep=())
            model.applied, model.lora_matches = NO_ADAPTERS, ()


def apply(model: LoadedModel, adapters: Adapters) -> None:
    """Apply exactly these adapters to a model; almost free if they are in use already. Raises `JobFailure`.

    What is there is looked up in the components and not remembered, since they may have been loaded again. The model's
    own weights are never touched. After a failure the model is as if none had been asked for.
    """
    on = model.adapters if isinstance(model.adapters, ModelAdapters) else ModelAdapters()
    model.adapters = on
    try:
        with _ordinary_tensors():
            _embeddings(model, on, adapters)
            _layers(model, on, adapters)
            model.lora_matches = apply_lora.switch(model.pipe, on.loras, adapters.loras)
            _ip_adapters(model, on, adapters)
            _controlnets(model, on, adapters)
    except BaseException:
        if adapters != NO_ADAPTERS:
            apply(model, NO_ADAPTERS)
        raise
    model.applied = adapters


def text_encoder_key(model: LoadedModel, adapters: Adapters) -> str:
    """A key of the adapters that change how prompts are encoded, for cached embeddings; empty if none does."""
    files = {lora.sha256: lora for lora in adapters.loras}
    weights = lora_weights(adapters.loras).items()
    parts = [f"lora {sha256} {weight!r}" for sha256, weight in weights if touches_text_encoder(files[sha256])]
    parts += [f"embedding {one.sha256} {one.token}" for one in adapters.embeddings]
    return "\n".join(parts)


@contextmanager
def _ordinary_tensors() -> Iterator[None]:
    """What is made in here outlives the call, so it must not be tensors of inference mode."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


def _embeddings(model: LoadedModel, on: ModelAdapters, adapters: Adapters) -> None:
    current = on.tokens.embeddings if on.tokens else ()
    if current == adapters.embeddings and (on.tokens is None or textual_inversion.still_on(model.pipe, on.tokens)):
        return
    with without_techniques(model):
        pipes = [model.pipe, *model.views.values()]
        if on.tokens is not None:
            textual_inversion.remove(pipes, on.tokens)
            on.tokens = None
        if adapters.embeddings:
            for name in encoders(model):
                encoder = components(model)[name]
                bring_part(encoder, encoder.get_input_embeddings())  # which a longer table is made from
            on.tokens = textual_inversion.apply(pipes, adapters.embeddings)


def _layers(model: LoadedModel, on: ModelAdapters, adapters: Adapters) -> None:
    """Everything that adds modules to the denoiser or the encoders, or takes some away."""
    if adapters.loras and not hasattr(model.pipe, "load_lora_weights"):
        raise JobFailure(f"lora {adapters.loras[0].name}: diffusers cannot load LoRAs into {type(model.pipe).__name__}")
    ip_adapters = apply_ip_adapter.used(adapters.ip_adapters)
    if (
        not apply_lora.missing(model.pipe, on.loras, adapters.loras)
        and not apply_lora.superfluous(on.loras, adapters.loras)
        and apply_ip_adapter.is_on(getattr(model.pipe, model.files.denoiser), on.ip_adapters, ip_adapters)
    ):
        return
    with without_techniques(model):
        for name in apply_lora.superfluous(on.loras, adapters.loras):
            apply_lora.remove(model.pipe, on.loras, name)
        for lora in apply_lora.missing(model.pipe, on.loras, adapters.loras):
            apply_lora.add(model.pipe, on.loras, lora)
        if not apply_ip_adapter.is_on(getattr(model.pipe, model.files.denoiser), on.ip_adapters, ip_adapters):
            if on.ip_adapters is not None:
                apply_ip_adapter.remove(on.ip_adapters)
                on.ip_adapters = None
            if ip_adapters:
                on.ip_adapters = apply_ip_adapter.apply(model, ip_adapters)


def _ip_adapters(model: LoadedModel, on: ModelAdapters, adapters: Adapters) -> None:
    ip_adapters = apply_ip_adapter.used(adapters.ip_adapters)
    if not ip_adapters:
        return
    apply_ip_adapter.scale(model.pipe, ip_adapters)
    for place, one in enumerate(ip_adapters):
        apply_ip_adapter.look(model, one, place, on.seen)


def _controlnets(model: LoadedModel, on: ModelAdapters, adapters: Adapters) -> None:
    _release_controlnets(model, on, keep=tuple(one.sha256 for one in adapters.controlnets))
    for one in adapters.controlnets:
        if one.sha256 not in on.controlnets:
            key = ("controlnet", one.sha256, str(model.dtype))
            on.controlnets[one.sha256] = model.pool.get(key, functools.partial(load_controlnet, model, one))


def _release_controlnets(model: LoadedModel, on: ModelAdapters, keep: tuple[str, ...]) -> None:
    gone = [sha256 for sha256 in on.controlnets if sha256 not in keep]
    for sha256 in gone:
        del on.controlnets[sha256]
        model.pool.release(("controlnet", sha256, str(model.dtype)))
    if gone:  # a view holds its ControlNets
        for name in [name for name, pipe in model.views.items() if "controlnet" in pipe.components]:
            del model.views[name]
