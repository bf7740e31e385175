"""Moves the components of a stage to the device, and measures the stage's peaks."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.memory.device.loaded_components import (
    components,
    empty_caches,
    encoders,
    rebuild,
    release_component,
    streaming_of,
    used_while_denoising,
)
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import is_offloaded
from pipeline.memory.device.technique_functions import (
    PARTWISE,
    add_hooks,
    offload_models,
    remove_hooks,
    resident_bytes,
)
from pipeline.memory.planning.estimate import Shape, Stage
from pipeline.system.process_memory import give_back_freed

if TYPE_CHECKING:
    import torch

INTERVAL_S = 0.02
"""Between two looks at the process's memory. The system's own peak counts from the process's start, and resetting it is
not allowed everywhere."""

KEPT_BYTES = 256 * 2**20
"""Free main memory that one stage may leave to the next where memory is not short: its pieces may not fit what comes
then, and small models, of which a stage takes tenths of a second, gain most by not getting it anew."""


@contextmanager
def stage(model: LoadedModel, name: Stage, extra: Collection[str] = (), shape: Shape | None = None) -> Iterator[None]:
    """Within this block, the components of a stage are on the device, and with `staged` no others.

    `extra` names components that are needed besides, such as the VAE that encodes an initial image. Encoders that
    `drop_encoders` has freed are loaded again for "encode", and freed when it ends well. `shape` of the batch decides
    how many blocks stay on the device with `resident_blocks`. The peaks, also of a stage that fails, are in
    `model.stage_peaks`.
    """
    if model.device.type == "cpu":
        give_back_freed(beyond_bytes=0 if _is_alone(model) else KEPT_BYTES)
    with measured(model.device) as peaks:
        model.stage_peaks[name] = peaks
        if name == "encode" or model.dropped & {*extra}:
            _load_dropped(model)
        elif model.memory.uses("drop_encoders") and not {*encoders(model)} & {*extra}:
            _drop_encoders(model)  # never needed, since every text was encoded in an earlier run
        _place(model, name, extra, shape)
        yield
        if name == "encode" and model.memory.uses("drop_encoders"):
            _drop_encoders(model)


@contextmanager
def measured(device: torch.device) -> Iterator[dict[str, int]]:
    """Yields a dictionary that has the peaks, in bytes, after the block, also after an exception.

    `rss`: resident memory of this process. On CUDA also `allocated`, what tensors took, and `reserved`, what the
    allocator took for them; both count from here on, for torch's own counters are reset. And `refused`, unless it is
    zero: how many times there was no memory. If the block ends well all the same, cuDNN did without the workspace of
    its first choice and took another kernel, which may give other last bits.
    """
    import torch

    peaks: dict[str, int] = {}
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
        refused_before = torch.cuda.memory_stats(device).get("num_ooms", 0)
    process, done = psutil.Process(), threading.Event()
    peaks["rss"] = process.memory_info().rss

    def look() -> None:
        peaks["rss"] = max(peaks["rss"], process.memory_info().rss)

    def watch() -> None:
        while not done.wait(INTERVAL_S):
            look()

    watcher = threading.Thread(target=watch, name="memory monitor", daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()
        look()
        if on_cuda:
            peaks["allocated"] = torch.cuda.max_memory_allocated(device)
            peaks["reserved"] = torch.cuda.max_memory_reserved(device)
            refused = torch.cuda.memory_stats(device).get("num_ooms", 0) - refused_before
            if refused:
                peaks["refused"] = refused


def _place(model: LoadedModel, name: Stage, extra: Collection[str], shape: Shape | None) -> None:
    import torch

    needed = {id(module) for part, module in components(model).items() if _stage_of(model, part) == name}
    needed |= {id(components(model)[part]) for part in extra if part in components(model)}
    beside = used_while_denoising(model)
    if name == "denoise":
        needed |= {id(module) for module in beside}
    modules = {id(module): module for module in (*components(model).values(), *beside)}
    alone = _is_alone(model)
    with torch.inference_mode(False):  # what is moved stays ordinary weights
        for key, module in modules.items():
            if alone and key not in needed:
                _move_out(model, module)
        if alone:  # the pieces that one stage leaves behind do not fit the weights of the next
            torch.cuda.empty_cache()
        for key, module in modules.items():
            if not alone or key in needed:
                _bring_in(model, module, shape)
            _say_where_it_runs(model, module)


def _is_alone(model: LoadedModel) -> bool:
    """Whether a stage finds nothing on the device but what it needs, since memory is short."""
    return model.memory.uses("staged") or bool(PARTWISE & {*model.memory.techniques})


def _bring_in(model: LoadedModel, module: Any, shape: Shape | None) -> None:
    streaming = streaming_of(module)
    if streaming is not None:
        if shape is not None and module is components(model).get(model.files.denoiser):
            streaming.resize(resident_bytes(model, model.files.denoiser, shape))
        streaming.enter()
    elif not is_offloaded(module):
        model.pool.to_device(module, model.device)


def _move_out(model: LoadedModel, module: Any) -> None:
    streaming = streaming_of(module)
    if streaming is not None:
        streaming.leave()
    elif not is_offloaded(module):
        model.pool.to_host(module)


def _stage_of(model: LoadedModel, component: str) -> Stage:
    if component.startswith("text_encoder") or component == "image_encoder":
        return "encode"
    return "decode" if component in ("vae", "movq", "safety_checker") else "denoise"


def _load_dropped(model: LoadedModel) -> None:
    if not model.dropped:
        return
    for name in sorted(model.dropped):
        rebuild(model, name)
        add_hooks(model, name)
    if model.memory.uses("model_offload"):
        offload_models(model)


def _drop_encoders(model: LoadedModel) -> None:
    """Their references go, so their memory goes, on the device and on the host."""
    there = encoders(model)
    if not there:
        return
    for name in there:
        remove_hooks(components(model)[name])
        release_component(model, name, keep=False)
        model.dropped.add(name)
    empty_caches(model)


def _say_where_it_runs(model: LoadedModel, module: Any) -> None:
    """A pipeline takes the device of its first component for its own, and that one may be off the device just now.

    It believes accelerate's hooks more; this one does nothing but name the device.
    """
    from accelerate.hooks import ModelHook

    if model.device.type == "cpu" or is_offloaded(module):
        return
    marker = ModelHook()
    marker.execution_device = model.device
    module._hf_hook = marker
