"""The alignment of weights in memory, as far as the last bits of a picture depend on it.

On a CPU, kernels start differently on an address that is no multiple of their vectors, and add up in another order.
Weights that are mapped from a file lie wherever the file has them; a copy that is to compute the same bits must lie
likewise.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VECTOR_BYTES = 64
"""torch's own allocations are multiples of this; no CPU vector is longer."""

_LARGE = 2**20
"""Bytes from which a copy gets pages of its own."""


def offset_of(tensor: torch.Tensor) -> int:
    """Bytes between a tensor's start and the last multiple of `VECTOR_BYTES`."""
    return tensor.data_ptr() % VECTOR_BYTES


def copy_at(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """A copy of a dense tensor in host memory, at an address with this offset."""
    size = tensor.numel() * tensor.element_size()
    room = _room(size + VECTOR_BYTES)
    start = (offset - room.data_ptr()) % VECTOR_BYTES
    return room[start : start + size].view(tensor.dtype).as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of a dense tensor in another dtype, aligned like torch's own; its memory is returned when freed."""
    size = tensor.numel() * dtype.itemsize
    return _room(size)[:size].view(dtype).as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def _room(size: int) -> torch.Tensor:
    """Bytes that go back to the system when they are free.

    Copies come and go all the time, and the C library keeps what is below 32 MB to itself, which adds up.
    """
    import torch

    if size < _LARGE:
        return torch.empty(size, dtype=torch.uint8)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
