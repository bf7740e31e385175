"""Converts weights from the dtype of their file to that of the computation, piece by piece.

The libraries convert a component as a whole, so that the mapped file and all converted weights are in memory at once.
Loaded in the type of the file it costs nothing; then each piece can be converted, its part of the file let go, and, if
it is to wait on disk, put there before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.loading.component_weights import load_weights
from pipeline.loading.components import ComponentPart
from pipeline.memory.device.alignment import converted
from pipeline.memory.device.disk_weights import DiskWeights
from pipeline.memory.device.mapped_files import MappedFiles
from pipeline.weights.headers.base import dtypes
from pipeline.weights.headers.read import read_weights

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 2**26
"""Of the file, what is converted and written at once: small against any model for which memory is short."""

_HALVES = ("float16", "bfloat16")


def load_unconverted(part: ComponentPart, dtype: torch.dtype, model: str) -> torch.nn.Module:
    """Load a component in the dtype of its file, if `convert` gives exactly the same result; raises as loading does.

    That is so from 16 to 32 bits: nothing is rounded. Other types go with exceptions, and tables that a class computes
    for itself it computes in the type that it is loaded in.
    """
    import torch

    own = _type_of(part)
    if dtype == torch.float32 and own is not None:
        module = load_weights(part, getattr(torch, own), model)
        if not any(buffer.is_floating_point() for buffer in _computed(module)):
            return module
        del module
    return load_weights(part, dtype, model)


def convert(module: torch.nn.Module, dtype: torch.dtype, disk: DiskWeights | None = None) -> None:
    """Convert a component's weights to their dtype; with `disk` they are then on disk and not in memory."""
    for piece in _pieces(module):
        files = MappedFiles()
        for tensor in piece:
            if tensor.is_floating_point() and tensor.dtype.itemsize == 2 and dtype.itemsize == 4:
                old = tensor.data
                tensor.data = old.to(dtype) if disk is None else converted(old, dtype)
                files.forget(old)
        if disk is not None:
            disk.leave(piece)


def _type_of(part: ComponentPart) -> str | None:
    """The 16 bit type that all weights in a component's files have; None where there are others."""
    found = {
        name for file in part.weights if file.suffix == ".safetensors" for name in dtypes(read_weights(file).tensors)
    }
    return next(iter(found)) if len(found) == 1 and found <= {*_HALVES} else None


def _computed(module: Any) -> Iterator[torch.Tensor]:
    """Buffers that are in no file."""
    saved = module.state_dict().keys()
    return (buffer for name, buffer in module.named_buffers() if name not in saved)


def _pieces(module: Any) -> Iterator[list[Any]]:
    piece: list[Any] = []
    size = 0
    for tensor in dict.fromkeys((*module.parameters(), *module.buffers())):
        size += tensor.nbytes
        if piece and size > PIECE_BYTES:
            yield piece
            piece, size = [], tensor.nbytes
        piece.append(tensor)
    if piece:
        yield piece
