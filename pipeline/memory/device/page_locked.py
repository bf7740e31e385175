"""Page-locked host memory, from which a CUDA device can copy while the CPU continues. No other process can use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 2**28
"""Bytes of page-locked memory taken at once; torch rounds each piece up to a power of two, which this already is."""


PIECE = 2**26
"""Bytes of each of the two buffers that weights from ordinary memory go through."""


class LoadingBuffers:
    """Two page-locked buffers in turn: while one is copied to the device, the other is filled.

    From ordinary memory, and from pages of a mapped file, the CPU would wait for every copy.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._sent: list[Any] = [None, None]
        self._turn = 0

    def copy(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of a contiguous tensor on a CUDA device, ready for the next work on its current stream."""
        import torch

        if not self._buffers:
            try:
                self._buffers = [_page_locked(PIECE), _page_locked(PIECE)]
            except RuntimeError:  # the host has none left
                return tensor.to(device, copy=True)
        target = torch.empty_like(tensor, device=device)
        source, arriving = (one.reshape(-1).view(torch.uint8) for one in (tensor, target))
        for start in range(0, source.numel(), PIECE):
            piece, place = source[start : start + PIECE], arriving[start : start + PIECE]
            if self._sent[self._turn] is not None:
                self._sent[self._turn].synchronize()
            filled = self._buffers[self._turn][: piece.numel()].copy_(piece)
            place.copy_(filled, non_blocking=True)
            self._sent[self._turn] = _sent(device)
            self._turn = 1 - self._turn
        return target


LOADING = LoadingBuffers()
"""Those of this process."""


class PageLockedMemory:
    """Holds tensors in chunks; a chunk is free again when no tensor is in it any more."""

    def __init__(self) -> None:
        self._chunk: Any = None
        self._used = 0

    def take(self, module: Any) -> None:
        """Move a module's tensors into page-locked memory, once; without enough of it they stay where they are."""
        import torch

        with torch.inference_mode(False):  # these stay, and ordinary weights is what they must remain
            for tensor in _plain_tensors(module):
                size = tensor.numel() * tensor.element_size()
                if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not size or tensor.is_pinned():
                    continue
                space = self._space(size)
                if space is not None:
                    space = space.view(tensor.dtype).as_strided(tensor.shape, tensor.stride())
                    tensor.data = space.copy_(tensor.data)

    def _space(self, size: int) -> Any:
        start = -(-self._used // 256) * 256
        if self._chunk is None or start + size > self._chunk.numel():
            try:
                self._chunk = _page_locked(max(CHUNK, size))
            except RuntimeError:
                return None
            start = 0
        self._used = start + size
        return self._chunk[start : start + size]


def to_pageable(module: Any) -> None:
    """Move a module's page-locked tensors into ordinary memory, and free each chunk as soon as it is empty.

    So it takes a chunk more than the module, not as much again. For modules that nothing streams.
    """
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    moved = 0
    with torch.inference_mode(False):
        for tensor in _plain_tensors(module):
            if not tensor.is_pinned():
                continue
            if not moved:
                torch.cuda.synchronize()  # a copy to the device may still be reading
            tensor.data = tensor.data.clone()
            moved += tensor.numel() * tensor.element_size()
            if moved >= CHUNK:
                empty_host_cache()
                moved = 1
    if moved:
        empty_host_cache()


def empty_host_cache() -> None:
    """Return page-locked memory that is free in torch's cache to the system."""
    import torch

    # torch 2.13 calls it by the first name, as `torch.accelerator.memory.empty_host_cache`, torch 2.10 by the second.
    names = ("_accelerator_emptyHostCache", "_host_emptyCache")
    empty = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    if empty is not None:
        empty()


def _page_locked(size: int) -> torch.Tensor:
    import torch

    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _sent(device: torch.device) -> Any:
    """An event: all is done that the device's current stream was given until now."""
    import torch

    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _plain_tensors(module: Any) -> Iterator[Any]:
    """Every parameter and buffer, and of quantised ones what they consist of."""
    for tensor in [*module.parameters(), *module.buffers()]:
        yield from _plain(tensor)


def _plain(tensor: Any) -> Iterator[Any]:
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor
