"""Adds, detects and completely removes diffusers' and accelerate's offloading hooks on components.

diffusers has no public way to remove group offloading, and applying it twice is silently ignored; both are dealt
with here and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.errors import ModelError
from pipeline.memory.device.device_copies import to_device, to_host
from pipeline.memory.device.disk_weights import DiskWeights
from pipeline.memory.device.quantization import true_bytes

if TYPE_CHECKING:
    import torch

_GROUP = "group_offloading"
_GROUP_HOOKS = (_GROUP, "layer_execution_tracker", "lazy_prefetch_group_offloading")
_CAST = "layerwise_casting"


def add_group_offload(module: Any, device: torch.device, *, by_leaf: bool, disk: DiskWeights | None = None) -> None:
    """Keep a module on the host, or in its `disk` weights, and move it to the device in parts as it runs.

    By leaf (each single layer) or by block (the elements of its lists of layers). On CUDA the next group comes while
    the present one works.
    """
    import torch
    from diffusers.hooks.group_offloading import apply_group_offloading

    if not getattr(module, "_supports_group_offloading", True):
        raise ModelError(f"{type(module).__name__} cannot be offloaded in parts; use memory techniques staged, int8")
    if is_offloaded(module):
        raise RuntimeError(f"{type(module).__name__} has offloading hooks already; diffusers would ignore new ones")
    streams = device.type == "cuda"
    # Page-locked copies of everything cost the model's size once more. By leaf they can be made on the way at little
    # cost; by block that takes four times as long (huggingface/diffusers#11106).
    scarce = by_leaf and psutil.virtual_memory().available < 2 * true_bytes(module)
    with torch.inference_mode(False):
        apply_group_offloading(
            module,
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level" if by_leaf else "block_level",
            num_blocks_per_group=None if by_leaf else 1,
            use_stream=streams,
            low_cpu_mem_usage=streams and (disk is not None or scarce),
        )
        if disk is not None:
            for group in _groups(module):
                _keep_on_disk(group, disk)


def is_offloaded(module: Any) -> bool:
    """Whether hooks decide where a module's weights are."""
    return _is_model_offloaded(module) or is_offloaded_in_parts(module)


def is_offloaded_in_parts(module: Any) -> bool:
    """Whether group offloading moves a module's weights."""
    return any(_hook(child, _GROUP) is not None for child in module.modules())


def is_cast(module: Any) -> bool:
    """Whether a module's weights are stored in float8 by layer-wise casting, which cannot be undone."""
    return any(_hook(child, _CAST) is not None for child in module.modules())


def remove_group_offload(module: Any) -> None:
    """Remove group offloading, in whatever state a failure has left it; the module is then on the host.

    What waits on disk stays there (`pipeline.memory.device.disk_weights`).
    """
    import torch
    from diffusers.hooks.hooks import HookRegistry

    groups = _groups(module)
    if not groups:
        return
    with torch.inference_mode(False):
        for group in groups:
            group._offload_to_memory()
        registry = HookRegistry.check_if_exists_or_initialize(module)
        for name in _GROUP_HOOKS:
            registry.remove_hook(name, recurse=True)
        module.to("cpu")
    for child in module.modules():
        registry = child.__dict__.get("_diffusers_hook")
        if registry is None:
            continue
        registry._child_registries_cache = None  # may list registries that go now
        if not registry.hooks:
            del child.__dict__["_diffusers_hook"]
            _forget_forward(child)


def add_model_offload(modules: Iterable[Any], device: torch.device) -> None:
    """Keep modules on the host; each is moved to the device when it runs, and the one before is moved back.

    diffusers' own (`enable_model_cpu_offload`) removes all of them at the end of every call, so that every batch
    pays for bringing the denoiser again.
    """
    from accelerate.hooks import add_hook_to_module

    there: list[Any] = []
    for module in modules:
        add_hook_to_module(module, _hook_class()(device, there))


def remove_model_offload(module: Any) -> None:
    """Remove model offloading; the module is then on the host."""
    from accelerate.hooks import remove_hook_from_module

    if _is_model_offloaded(module):
        remove_hook_from_module(module)
        _forget_forward(module)
        to_host(module)


@functools.cache
def _hook_class() -> type[Any]:
    from accelerate.hooks import ModelHook

    class OneAtATime(ModelHook):  # type: ignore[misc]
        """`there` is shared by all hooks: the module that is on the device now."""

        def __init__(self, device: torch.device, there: list[Any]) -> None:
            self.execution_device = device  # where pipelines look for the device they run on
            self.there = there

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            import torch

            if not any(one is module for one in self.there):
                with torch.inference_mode(False):  # what is moved stays ordinary weights
                    while self.there:
                        to_host(self.there.pop())
                    to_device(module, self.execution_device)
                self.there.append(module)
            return args, kwargs

    return OneAtATime


def _is_model_offloaded(module: Any) -> bool:
    return isinstance(getattr(module, "_hf_hook", None), _hook_class())


def _forget_forward(module: Any) -> None:
    """Removed hooks leave the class's own method in the instance, which makes it a cycle that only `gc` frees."""
    if getattr(module.__dict__.get("forward"), "__func__", None) is type(module).forward:
        del module.__dict__["forward"]


def _hook(module: Any, name: str) -> Any:
    registry = module.__dict__.get("_diffusers_hook")
    return None if registry is None else registry.get_hook(name)


def _groups(module: Any) -> list[Any]:
    hooks = [hook for child in module.modules() if (hook := _hook(child, _GROUP)) is not None]
    return list({id(hook.group): hook.group for hook in hooks}.values())


def _keep_on_disk(group: Any, disk: DiskWeights) -> None:
    """Let a group come from disk and go back there.

    diffusers can do so itself, but it keeps as much memory for weights on disk as for those in memory, knows its files
    by the place of a layer alone, and writes all of them again when layers are added.
    """
    found = [tensor for module in group.modules for tensor in (*module.parameters(), *module.buffers())]
    tensors = list(dict.fromkeys([*found, *group.parameters, *group.buffers]))
    disk.leave(tensors)
    group.cpu_param_dict.clear()
    group._onload_from_memory = functools.partial(_bring, group, disk, tensors)
    group._offload_to_memory = functools.partial(_leave, group, disk, tensors)


def _bring(group: Any, disk: DiskWeights, tensors: list[Any]) -> None:
    import torch

    if group.stream is None:  # the device is the host
        disk.bring(tensors)
        return
    group.stream.synchronize()  # one transfer after the other
    with torch.inference_mode(False), group._torch_accelerator_module.stream(group.stream):
        for tensor, content in disk.read(tensors):
            tensor.data = content.pin_memory().to(group.onload_device, non_blocking=group.non_blocking)


def _leave(group: Any, disk: DiskWeights, tensors: list[Any]) -> None:
    if group.stream is not None:
        group._torch_accelerator_module.current_stream().synchronize()  # what computes now may still read them
    disk.leave(tensors)
