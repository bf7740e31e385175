"""diffusers' and accelerate's offloading hooks on the components of a pipeline: put on, seen, taken off completely.

diffusers has no public way to take group offloading off, and putting it on twice is silently ignored; both are dealt
with here and nowhere else.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import psutil

from pipeline.errors import ModelError
from pipeline.memory.alignment import copy_at, offset_of
from pipeline.memory.quantization import true_bytes

if TYPE_CHECKING:
    import torch

_GROUP = "group_offloading"
_GROUP_HOOKS = (_GROUP, "layer_execution_tracker", "lazy_prefetch_group_offloading")
_CAST = "layerwise_casting"


def add_group_offload(module: Any, device: torch.device, *, by_leaf: bool, folder: Path | None = None) -> None:
    """Keep a module on the host, or in an empty `folder` on disk, and bring it to the device as it runs.

    By leaf (each single layer) or by block (the elements of its lists of layers). On CUDA the next group comes while
    the present one works. A group is `folder`'s file of a name that depends on nothing but the place in the module, and
    a file that is there is taken for the right one: so each module needs a folder of its own.
    """
    import torch
    from diffusers.hooks.group_offloading import apply_group_offloading

    if not getattr(module, "_supports_group_offloading", True):
        raise ModelError(f"{type(module).__name__} cannot be offloaded in parts; use memory techniques staged, int8")
    if is_offloaded(module):
        raise RuntimeError(f"{type(module).__name__} has offloading hooks already; diffusers would ignore new ones")
    streams = device.type == "cuda"
    if folder is not None:
        module.__dict__["tied"] = _untied(module)
    offsets = {tensor: offset_of(tensor) for tensor in (*module.parameters(), *module.buffers())} if folder else {}
    # Page-locked copies of everything cost the model's size once more. By leaf they can be made on the way at little
    # cost; by block that takes four times as long (huggingface/diffusers#11106).
    scarce = psutil.virtual_memory().available < 2 * true_bytes(module)
    with torch.inference_mode(False):
        apply_group_offloading(
            module,
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level" if by_leaf else "block_level",
            num_blocks_per_group=None if by_leaf else 1,
            use_stream=streams,
            low_cpu_mem_usage=streams and by_leaf and scarce,
            offload_to_disk_path=None if folder is None else str(folder),
        )
    for group in _groups(module) if folder else ():
        group.offsets = offsets
        group._offload_to_disk = functools.partial(_leave_on_disk, group)
        _leave_on_disk(group)
        if device.type == "cpu":
            group._onload_from_disk = functools.partial(_read_back, group)


def is_offloaded(module: Any) -> bool:
    """Whether hooks decide where a module's weights are."""
    return _is_model_offloaded(module) or any(_hook(child, _GROUP) is not None for child in module.modules())


def is_cast(module: Any) -> bool:
    """Whether a module's weights are stored in float8 by layer-wise casting, which cannot be undone."""
    return any(_hook(child, _CAST) is not None for child in module.modules())


def remove_group_offload(module: Any) -> None:
    """Take group offloading off, in whatever state a failure has left it; the module is then whole, on the host."""
    import torch
    from diffusers.hooks.hooks import HookRegistry

    groups = _groups(module)
    if not groups:
        return
    with torch.inference_mode(False):
        for group in groups:
            _read_back(group)
        registry = HookRegistry.check_if_exists_or_initialize(module)
        for name in _GROUP_HOOKS:
            registry.remove_hook(name, recurse=True)
        for owner, name, weight in module.__dict__.pop("tied", ()):
            owner._parameters[name] = weight
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
    """Keep modules on the host; each comes to the device when it runs, and whichever was there goes.

    diffusers' own (`enable_model_cpu_offload`) takes all of them off at the end of every call, so that every batch
    pays for bringing the denoiser again.
    """
    from accelerate.hooks import add_hook_to_module

    there: list[Any] = []
    for module in modules:
        add_hook_to_module(module, _one_at_a_time(device, there))


def remove_model_offload(module: Any) -> None:
    """Take that off again; the module is then on the host."""
    from accelerate.hooks import remove_hook_from_module

    if _is_model_offloaded(module):
        remove_hook_from_module(module)
        _forget_forward(module)
        module.to("cpu")


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
                        self.there.pop().to("cpu")
                    module.to(self.execution_device)
                self.there.append(module)
            return args, kwargs

    return OneAtATime


def _one_at_a_time(device: torch.device, there: list[Any]) -> Any:
    return _hook_class()(device, there)


def _is_model_offloaded(module: Any) -> bool:
    return isinstance(getattr(module, "_hf_hook", None), _hook_class())


def _forget_forward(module: Any) -> None:
    """Removed hooks leave the class's own method in the instance, which makes it a cycle that only `gc` frees."""
    if getattr(module.__dict__.get("forward"), "__func__", None) is type(module).forward:
        del module.__dict__["forward"]


def disk_folder(module: Any, name: str) -> Path:
    """A fresh folder for a module's weights, in the user's cache folder; it goes with the module or the process.

    `name` says what is in it. Folders of processes that were killed are removed. Raises `ModelError` without space.
    """
    bytes_needed = true_bytes(module)
    root = Path(platformdirs.user_cache_dir("darkroom")) / "offload"
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.iterdir():
        owner = folder.name.split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    free = shutil.disk_usage(root).free
    if free < bytes_needed:
        raise ModelError(
            f"disk_offload needs {bytes_needed / 2**30:.1f} GiB in the cache folder, {free / 2**30:.1f} GiB are free; "
            "set XDG_CACHE_HOME to a larger disk"
        )
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=root))
    weakref.finalize(module, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _hook(module: Any, name: str) -> Any:
    registry = module.__dict__.get("_diffusers_hook")
    return None if registry is None else registry.get_hook(name)


def _groups(module: Any) -> list[Any]:
    hooks = [hook for child in module.modules() if (hook := _hook(child, _GROUP)) is not None]
    return list({id(hook.group): hook.group for hook in hooks}.values())


def _untied(module: Any) -> list[tuple[Any, str, Any]]:
    """Give every layer a weight of its own; returns which layers had which weight, by which name.

    T5 has its embedding twice. The first layer that writes it to disk empties it, and the second would write that.
    """
    seen: set[int] = set()
    tied = []
    for owner in module.modules():
        for name, weight in list(owner._parameters.items()):
            if weight is None:
                continue
            if id(weight) in seen:
                tied.append((owner, name, weight))
                own = copy_at(weight.data, offset_of(weight))
                owner._parameters[name] = type(weight)(own, requires_grad=False)
            seen.add(id(weight))
    return tied


def _leave_on_disk(group: Any) -> None:
    """Let go of weights that are on disk already. diffusers would keep as much memory for them, without content."""
    import torch

    if group.stream is not None and not group.record_stream:
        # What computes now may still read them.
        group._torch_accelerator_module.current_stream().synchronize()
    for tensor in group.tensor_to_key:
        tensor.data = torch.empty(1, dtype=tensor.dtype).expand(tensor.shape)


def _read_back(group: Any) -> None:
    """Weights that wait on disk are empty tensors in memory. They come back so that they compute the same bits."""
    import safetensors.torch

    if group.offload_to_disk_path is None or not group._is_offloaded_to_disk:
        return
    loaded = safetensors.torch.load_file(group.safetensors_file_path, device="cpu")
    for key, tensor in group.key_to_tensor.items():
        tensor.data = copy_at(loaded[key], group.offsets[tensor])
