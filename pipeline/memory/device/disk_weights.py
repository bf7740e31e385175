"""Weights of a module that are offloaded to disk: each written once, and read whenever the module runs."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.errors import ModelError
from pipeline.memory.device.alignment import copy_at, offset_of
from pipeline.memory.device.mapped_files import MappedFiles
from pipeline.memory.device.quantization import true_bytes
from pipeline.storage.user_folders import cache_folder, make_folder
from pipeline.system.units import size_text

if TYPE_CHECKING:
    import torch


class DiskWeights:
    """The weights of a module that are in a folder of their own, which is deleted with the module or the process.

    What has been written stays valid until `come_back`: hooks may be removed and added again and layers may come and
    go, and nothing is read or written for it but what is new. Meanwhile weights are tensors without content. They stay
    ordinary tensors, also where they come and go in inference mode.
    """

    def __init__(self, module: Any, name: str) -> None:
        """`name` says what the weights are. Raises `ModelError` where the disk has no room for them."""
        from torch.utils.weak import WeakIdKeyDictionary

        self.folder = _fresh_folder(module, name)
        self._written = 0
        # Weak, so that layers which are taken out for good are not read when the rest comes back.
        self._places: Any = WeakIdKeyDictionary()  # tensor: (file, name in it, order of dimensions, offset)
        self._tied = _untied(module)

    def leave(self, tensors: Iterable[Any]) -> None:
        """Free weights in memory, after writing them if they are new."""
        import torch

        tensors = list(tensors)
        new = [tensor for tensor in tensors if tensor not in self._places]
        if new:
            self._write(new)
        with torch.inference_mode(False):
            for tensor in tensors:
                tensor.data = torch.empty(1, dtype=tensor.dtype).expand(tensor.shape)

    def read(self, tensors: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
        """Tensors with their content, memory-mapped from the file with their original layout."""
        import safetensors

        of_file: dict[Path, list[Any]] = {}
        for tensor in tensors:
            of_file.setdefault(self._places[tensor][0], []).append(tensor)
        for path, found in of_file.items():
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                for tensor in found:
                    _, name, order, _ = self._places[tensor]
                    yield tensor, file.get_tensor(name).permute(sorted(range(len(order)), key=order.__getitem__))

    def bring(self, tensors: Iterable[Any]) -> None:
        """Read weights into memory, aligned so that they compute the same bits as before."""
        import torch

        with torch.inference_mode(False):
            for tensor, content in self.read(tensor for tensor in tensors if tensor in self._places):
                tensor.data = copy_at(content, self._places[tensor][3])

    def come_back(self) -> None:
        """Read all weights back for good, also of parts that are not in the module now but will be again."""
        self.bring(list(self._places))
        for owner, name, weight in self._tied:
            owner._parameters[name] = weight
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, tensors: list[Any]) -> None:
        import safetensors.torch

        if any(hasattr(tensor, "__tensor_flatten__") for tensor in tensors):
            raise ModelError("disk_offload: quantised weights cannot be streamed from disk; switch it off")
        path = self.folder / f"{self._written}.safetensors"
        self._written += 1
        # safetensors knows no strides; a UNet's channels may lie last (`pipeline.loading.speed`).
        orders = [sorted(range(tensor.dim()), key=tensor.stride, reverse=True) for tensor in tensors]
        contents = {
            str(place): tensor.data.permute(order).contiguous()
            for place, (tensor, order) in enumerate(zip(tensors, orders, strict=True))
        }
        safetensors.torch.save_file(contents, path)
        for place, (tensor, order) in enumerate(zip(tensors, orders, strict=True)):
            self._places[tensor] = path, str(place), order, offset_of(tensor)
        files = MappedFiles()
        for tensor in tensors:
            files.forget(tensor)


def disk_weights_of(module: Any) -> DiskWeights | None:
    """The weights of a module that are offloaded to disk, with or without hooks; None if there are none."""
    weights: DiskWeights | None = module.__dict__.get("disk_weights")
    return weights


def put_on_disk(module: Any, name: str) -> DiskWeights:
    """Prepare a folder on disk for a module's weights; they are written when they are first left."""
    weights = disk_weights_of(module)
    if weights is None:
        weights = module.__dict__["disk_weights"] = DiskWeights(module, name)
    return weights


def bring_back(module: Any) -> None:
    """Read all weights of a module into memory again; it must have no hooks."""
    weights = disk_weights_of(module)
    if weights is not None:
        weights.come_back()
        del module.__dict__["disk_weights"]


def bring_part(module: Any, part: Any) -> None:
    """Give the weights of a part of a module their content, until hooks are added to the module."""
    weights = disk_weights_of(module)
    if weights is not None:
        weights.bring([*part.parameters(), *part.buffers()])


def _fresh_folder(module: Any, name: str) -> Path:
    """In the user's cache folder; folders of processes that were killed are removed."""
    bytes_needed = true_bytes(module)
    root = cache_folder() / "offload"
    make_folder(root, cache_folder())
    for folder in root.iterdir():
        owner = folder.name.split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    free = shutil.disk_usage(root).free
    if free < bytes_needed:
        raise ModelError(
            f"disk_offload needs {size_text(bytes_needed)} in the cache folder, {size_text(free)} are free; "
            "set XDG_CACHE_HOME to a larger disk"
        )
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=root))
    weakref.finalize(module, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _untied(module: Any) -> list[tuple[Any, str, Any]]:
    """Give every layer a weight of its own; returns which layers had which weight, by which name.

    T5 has its embedding twice. The first layer that leaves it on disk empties it for the second one, which may be at
    work.
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
