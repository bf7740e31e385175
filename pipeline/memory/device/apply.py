"""Changes the memory techniques of a loaded model: applies and removes them in place, in the safe order.

A component is loaded again only where its weights themselves must be others: another quantisation, float8 storage
undone, the tiny VAE in or out.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.errors import DarkroomError
from pipeline.memory.device.disk_weights import bring_back
from pipeline.memory.device.loaded_components import (
    components,
    disable_step_cache,
    empty_caches,
    free_memory,
    is_placed_by_hooks,
    is_streamed,
    rebuild,
    release_component,
    uncompile,
)
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import is_cast
from pipeline.memory.device.page_locked import to_pageable
from pipeline.memory.device.quantization import quantized_as
from pipeline.memory.device.technique_functions import TECHNIQUES_APPLIED, decode_plainly, remove_hooks
from pipeline.memory.planning.techniques import quantization_for
from pipeline.request import MemorySettings
from pipeline.system.failures import classify


def apply_memory(model: LoadedModel, memory: MemorySettings) -> None:
    """Change a model to other techniques of the same precision; almost free if nothing changes.

    `model.memory` has afterwards the techniques that are really applied: without those that its classes do not have.
    Raises `ModelError` or `OutOfMemory` if one cannot be applied; the model then has the techniques it had before,
    or, if memory is lacking for that as well, none until the next call.
    """
    if memory.dtype != model.memory.dtype:
        raise ValueError(f"a model loaded in {model.memory.dtype} cannot be used in {memory.dtype}; load it again")
    before = _asked(model)
    if model.pipe.__dict__.get("held") and _decides(before) == _decides(memory):
        model.pipe.__dict__["held"] = memory
        model.memory = replace(memory, techniques=model.memory.techniques)
        return
    try:
        _remove_all(model)
        _apply(model, memory)
        return
    except Exception as error:
        failure = error
    # Whatever the failure, out of memory included: a technique that could not be applied must not seem to be on.
    # Outside the except block and without the frames of the failure, which would keep what took the memory.
    traceback.clear_frames(failure.__traceback__)
    try:
        _remove_all(model)
        _apply(model, before)
    except Exception as again:
        traceback.clear_frames(again.__traceback__)
        failure.__context__ = again
    try:
        if isinstance(failure, DarkroomError):
            raise failure
        raise classify(failure) from failure
    finally:
        del failure  # or it and this frame would keep each other, and all that is in the frames above


def reapply(model: LoadedModel) -> None:
    """Remove all techniques and apply those of `model.memory` again."""
    memory = _asked(model)
    _remove_all(model)
    _apply(model, memory)


@contextmanager
def without_techniques(model: LoadedModel) -> Iterator[None]:
    """Within this block, layers may be added to and removed from components: nothing is hooked, cast or offloaded.

    A denoiser in float8 storage is replaced by a freshly loaded one, since LoRAs must be there before it is cast. What
    waits on disk stays there: layers are added to weights that have a shape and no content. Who needs the content asks
    for it (`disk_weights.bring_part`).
    """
    modules = list(components(model).values())
    if not any(is_placed_by_hooks(module) or is_cast(module) for module in modules):
        yield
        return
    memory = _asked(model)
    _remove_all(model)
    for name, module in components(model).items():
        if is_cast(module):
            rebuild(model, name)
    try:
        yield
    finally:
        _apply(model, memory)


def recover(model: LoadedModel) -> None:
    """Make a model usable again after an exception: weights may be half moved and caches half filled.

    To be called outside the `except` block: a traceback that is alive keeps the tensors that took the memory. Raises
    what went wrong where `apply_memory` had failed and the model cannot be held as before now either.
    """
    disable_step_cache(model)
    free_memory(model)
    if "held" not in model.pipe.__dict__ or any(is_placed_by_hooks(module) for module in components(model).values()):
        reapply(model)


def release_model(model: LoadedModel, *, keep: bool = True) -> None:
    """Give a model's components back to the pool, as they were loaded; the model cannot be used after that.

    Without `keep` nothing waits there for the next model, and what waits on disk does not in any case.
    """
    if model.adapters is not None:
        model.adapters.remove(model)
    _remove_all(model)
    for name in list(components(model)):
        uncompile(components(model)[name])
        components(model)[name].__dict__.pop("_hf_hook", None)
        release_component(model, name, keep=keep)
    model.views.clear()
    empty_caches(model)


def _apply(model: LoadedModel, memory: MemorySettings) -> None:
    """Techniques onto a model that carries none."""
    import torch

    model.memory = memory
    with torch.inference_mode(False):  # what is moved stays ordinary weights
        _load_what_differs(model)
        if not memory.uses("disk_offload"):
            for module in components(model).values():
                bring_back(module)
        used = [name for name, apply in TECHNIQUES_APPLIED.items() if memory.uses(name) and apply(model)]
        for module in components(model).values():
            if not is_streamed(module):
                to_pageable(module)
    empty_caches(model)
    model.memory = replace(memory, techniques=tuple(used))
    model.pipe.__dict__["held"] = memory


def _remove_all(model: LoadedModel) -> None:
    """Remove all techniques that can be removed; weights are then on the host, or on disk if offloaded there."""
    model.pipe.__dict__.pop("held", None)
    for module in components(model).values():
        remove_hooks(module)
    if getattr(model.pipe, "vae", None) is not None:
        decode_plainly(model.pipe.vae)


def _asked(model: LoadedModel) -> MemorySettings:
    """What `apply_memory` was asked for last; `model.memory` may have less, where the model has no such thing."""
    memory: MemorySettings = model.pipe.__dict__.get("held") or model.memory
    return memory


def _decides(memory: MemorySettings) -> Any:
    return memory.techniques, memory.budget_bytes, memory.resident_share, memory.tiny_vae_sha256


def _load_what_differs(model: LoadedModel) -> None:
    missing = {name for name in model.dropped if not name.startswith("text_encoder")}
    for name in missing | {name for name, module in components(model).items() if _weights_differ(model, name, module)}:
        rebuild(model, name)


def _weights_differ(model: LoadedModel, name: str, module: Any) -> bool:
    memory, role = model.memory, "encoder" if name.startswith("text_encoder") else "denoiser"
    if name == "vae":
        own = model.files.component("vae")
        is_tiny = type(module).__name__ == "AutoencoderTiny"
        return is_tiny != memory.uses("tiny_vae") and (own is None or own.class_name != "AutoencoderTiny")
    if role == "denoiser" and name != model.files.denoiser:
        return False
    wanted = quantization_for(memory, role)
    return quantized_as(module) != wanted or (is_cast(module) and not memory.uses("fp8_storage"))
