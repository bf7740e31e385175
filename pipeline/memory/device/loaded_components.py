"""The components of a loaded model: find by name, release, load again, set in every pipeline that uses them."""

from __future__ import annotations

import gc
from typing import Any

from pipeline.memory.device.block_streaming import BlockStreaming
from pipeline.memory.device.disk_weights import bring_back, disk_weights_of
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import is_cast, is_offloaded, is_offloaded_in_parts
from pipeline.memory.device.page_locked import empty_host_cache
from pipeline.system.process_memory import give_back_freed
from pipeline.weights.families import ENCODES_CONTROL_IMAGES

COMPILED = "compiled"
"""The attribute of a module under which `pipeline.loading.compiling` notes how it is compiled, and for which LoRAs."""


def free_memory(model: LoadedModel) -> None:
    """Collect garbage and empty the caches, so that unused memory becomes free on the device and on the host."""
    gc.collect()
    empty_caches(model)


def empty_caches(model: LoadedModel) -> None:
    """Return memory that is free in torch and in the C library to the system."""
    import torch

    give_back_freed()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        empty_host_cache()


def components(model: LoadedModel) -> dict[str, Any]:
    """The modules of a model by their names in the pipeline."""
    import torch

    return {name: part for name, part in model.pipe.components.items() if isinstance(part, torch.nn.Module)}


def encoders(model: LoadedModel) -> list[str]:
    """Names of the text encoders that are loaded."""
    return [name for name in components(model) if name.startswith("text_encoder")]


def is_placed_by_hooks(module: Any) -> bool:
    """Whether hooks move a module to the device when it runs."""
    return streaming_of(module) is not None or is_offloaded(module)


def is_streamed(module: Any) -> bool:
    """Whether a module is moved to the device in parts."""
    return streaming_of(module) is not None or is_offloaded_in_parts(module)


def streaming_of(module: Any) -> BlockStreaming | None:
    """The streaming of a module's blocks; None if they are not streamed."""
    streaming: BlockStreaming | None = module.__dict__.get("block_streaming")
    return streaming


def used_while_denoising(model: LoadedModel) -> list[Any]:
    """Modules that the denoising loop needs besides the denoiser: ControlNets, and the VAE that encodes pictures."""
    adapters = model.applied
    modules = [controlnets(model)[one.sha256] for one in adapters.controlnets]
    encodes = bool(adapters.init) or (bool(modules) and model.files.family in ENCODES_CONTROL_IMAGES)
    vae = getattr(model.pipe, "vae", None)
    return [*modules, vae] if encodes and vae is not None else modules


def controlnets(model: LoadedModel) -> dict[str, Any]:
    """The loaded ControlNets of a model by the SHA-256 of their weights."""
    held: dict[str, Any] = model.adapters.controlnets if model.adapters else {}
    return held


def rebuild(model: LoadedModel, name: str) -> None:
    """Load a component again with the techniques of `model.memory`; the old one is freed first.

    A component that could not be loaded is in `model.dropped`.
    """
    old, on_device = components(model).get(name), False
    if old is not None:
        on_device = model.pool.is_on_device(old)
        release_component(model, name, keep=False)
    del old
    free_memory(model)
    model.dropped.add(name)
    new = model.load_component(model, name)
    put(model, name, new)
    model.dropped.discard(name)
    if on_device:
        model.pool.to_device(new, model.device)


def release_component(model: LoadedModel, name: str, *, keep: bool = True) -> None:
    """Take a component out of the pipeline, back to the pool; without `keep` it is freed unless others use it.

    It carries no hooks. What of it waits on disk is read only for others who use it: it waits there because memory is
    short, so nobody keeps it for later.
    """
    if model.adapters is not None:
        model.adapters.remove(model, name)  # the next model that shares it must not find adapters on it
    module = components(model)[name]
    put(model, name, None)
    key = model.pool.key_of(module)
    if model.pool.is_shared(module):
        bring_back(module)
    # A float8 copy is not what its key says to the next user, who may want to put LoRAs on it first.
    keep = keep and not is_cast(module) and disk_weights_of(module) is None
    del module
    model.pool.release(key, keep=keep)


def put(model: LoadedModel, name: str, module: Any) -> None:
    """Set a component in the pipeline and in all views of it."""
    for pipe in (model.pipe, *model.views.values()):
        if name in pipe.components:
            setattr(pipe, name, module)


def uncompile(module: Any) -> None:
    """Let a module run uncompiled again."""
    if module.__dict__.pop(COMPILED, None):
        for child in module.modules():
            child._compiled_call_impl = None


def disable_step_cache(model: LoadedModel) -> None:
    """Remove and empty the step cache, if one is on."""
    denoiser: Any = getattr(model.pipe, model.files.denoiser, None)
    if getattr(denoiser, "is_cache_enabled", False):
        denoiser._reset_stateful_cache()
        denoiser.disable_cache()
