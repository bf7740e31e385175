"""Copies weights to the device while the originals stay in place on the host.

Weights do not change while pictures are made, so nothing needs to be copied back: taking the copies away restores what
was. `module.to("cpu")` would instead fetch everything into new memory, which for 22 GB takes four times as long as
bringing them, and turns weights that are mapped from a file, which cost no memory, into ones that do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.memory.device.alignment import copy_at, offset_of
from pipeline.memory.device.mapped_files import MappedFiles
from pipeline.memory.device.page_locked import LOADING
from pipeline.memory.device.quantization import tensor_bytes

if TYPE_CHECKING:
    import torch

_STAYED = "stayed_on_host"

SMALLEST_LOADED = 2**20
"""Bytes from which on a weight goes through page-locked buffers; the driver copies small ones at once."""


def to_device(module: Any, device: torch.device) -> None:
    """Move a module to a device; on a CUDA device as copies, if its weights can stay on the host.

    Most stages find their modules there already: `module.to`, which goes through all of it several times, is not asked.
    """
    if _is_on(module, device):
        return
    if device.type == "cuda" and not weights_stayed(module) and can_stay(module):
        copy_weights(module, device)
    module.to(device)


def to_host(module: Any) -> None:
    """Move a module to the host: weights that stayed there are put back in place, everything else is moved.

    What is new or was changed on the device comes along as it is there.
    """
    for owner, name, original, copy in module.__dict__.pop(_STAYED, ()):
        if owner.get(name) is copy and _form(copy) == _form(original):
            owner[name] = original
    module.to("cpu")


def copy_weights(module: Any, device: torch.device) -> None:
    """Replace all weights of a module by copies on a device, until `to_host`."""
    import torch

    stayed = module.__dict__[_STAYED] = []
    known: dict[int, Any] = {}
    try:
        with torch.inference_mode(False):  # copies of ordinary weights must be such too
            for owner, name, original in tensors_of(module, set()):
                if id(original) not in known:  # tied weights stay tied
                    known[id(original)] = copied(original, device)
                owner[name] = known[id(original)]
                stayed.append((owner, name, original, owner[name]))
    except BaseException:
        to_host(module)
        raise


def weights_stayed(module: Any) -> bool:
    """Whether a module on a device has its weights on the host too."""
    return _STAYED in module.__dict__


def tensors_of(module: Any, without: set[int]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every parameter and buffer with the dictionary that contains it, as they are now (LoRA layers come and go)."""
    if id(module) in without:
        return
    for owner in (module._parameters, module._buffers):
        yield from ((owner, name, tensor) for name, tensor in list(owner.items()) if tensor is not None)
    for child in module.children():
        yield from tensors_of(child, without)


def copied(tensor: Any, device: torch.device) -> Any:
    """A copy of a weight on a device, a parameter for a parameter; asynchronous if the host's memory allows it."""
    if hasattr(tensor, "__tensor_flatten__"):  # not all of them know all forms of `to`
        names, context = tensor.__tensor_flatten__()
        inner = {name: copied(getattr(tensor, name), device) for name in names}
        return _like(type(tensor).__tensor_unflatten__(inner, context, tensor.shape, tensor.stride()), tensor)
    if device.type == "cpu":
        return _like(copy_at(tensor.data, offset_of(tensor)), tensor)
    data = tensor.data
    if data.nbytes >= SMALLEST_LOADED and data.device.type == "cpu" and data.is_contiguous() and not data.is_pinned():
        return _like(LOADING.copy(data, device), tensor)
    return _like(tensor.to(device, non_blocking=True, copy=True), tensor)


def _like(tensor: Any, original: Any) -> Any:
    """A parameter for a parameter, a buffer for a buffer."""
    import torch

    if isinstance(original, torch.nn.Parameter) and not isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(tensor, requires_grad=False)
    return tensor


def can_stay(module: Any) -> bool:
    """Whether the host can keep a module's weights while copies of them are on a CUDA device.

    It does where that costs no memory, because they are mapped from files, or where there is enough. Not where moving
    a weight moves something that belongs to it as well (bitsandbytes, GGUF).
    """
    import torch

    tensors = [tensor for _, _, tensor in tensors_of(module, set())]
    plain = (torch.Tensor, torch.nn.Parameter)
    if not all(type(tensor) in plain or hasattr(tensor, "__tensor_flatten__") for tensor in tensors):
        return False
    mapped = MappedFiles()
    loose = {id(tensor): tensor_bytes(tensor) for tensor in tensors if not mapped.have(tensor)}  # tied ones once
    return bool(sum(loose.values()) <= psutil.virtual_memory().available)


def _is_on(module: Any, device: torch.device) -> bool:
    present = {tensor.device for _, _, tensor in tensors_of(module, set())}
    return all(one.type == device.type and device.index in (None, one.index) for one in present)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What a weight keeps unless something was done to it."""
    return tensor.dtype, tensor.shape, tensor.stride()
