"""The header of a weights file: its tensors and metadata, in one form for safetensors and GGUF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from pipeline.errors import ModelError

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Endings of weights that are Python pickles, which can run code when opened; refused."""

WEIGHTS = (".safetensors", ".gguf")
"""Endings of the weights that are read."""

_NO_WEIGHT = frozenset({"int16", "int32", "int64", "uint16", "uint32", "uint64", "bool"})
_NOT_LEARNED = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format", "pos_embed")


class HeaderCutOff(ModelError):
    """The file ends before its header does; a download may still be incomplete."""


class TensorInfo(NamedTuple):
    """One tensor: its shape in torch's order, its dtype or GGML type by name, and the bytes it takes in the file."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """Tensors by name, and the metadata beside them. `data_start` is the position of the first tensor byte."""

    format: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 0


def width_of(shape: tuple[int, ...] | None) -> int | None:
    """How many numbers a layer with a weight of this shape takes in; None for one that is no matrix and no kernel."""
    return shape[1] if shape and len(shape) > 1 else None


def fault_of_layout(spans: Iterable[tuple[int, int, str]], alignment: int = 1) -> str | None:
    """What is wrong with the positions of tensors; None if each begins at the first aligned byte after the one before.

    `spans` are the first byte of each, the byte behind its last, and its name, counted from the first tensor byte.
    """
    end = 0
    for first, last, name in sorted(spans):
        expected = -(-end // alignment) * alignment
        if first != expected:
            what = "overlaps the one before it" if first < end else "leaves a hole before it"
            return f"tensor {name[:80]!r} {what} (it begins at byte {first:,}, expected {expected:,})"
        end = last
    return None


def parameters(tensors: Mapping[str, TensorInfo]) -> int:
    """Numbers learned in training. Index buffers and tables of positions do not count; packed 4-bit pairs count twice.

    Packed are those of bitsandbytes, whose tensors hold two weights in a byte.
    """
    packed = {name.partition(".quant_state.")[0] for name in tensors if ".quant_state." in name}
    total = 0
    for name, tensor in tensors.items():
        if tensor.dtype in _NO_WEIGHT or ".quant_state." in name or name.endswith(_NOT_LEARNED):
            continue
        total += prod(tensor.shape) * (2 if name in packed else 1)
    return total


def tensor_bytes(tensors: Mapping[str, TensorInfo]) -> int:
    """Bytes of all tensors together, as stored in the file."""
    return sum(tensor.bytes for tensor in tensors.values())


def dtypes(tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Names of the dtypes, the one with most bytes first."""
    shares: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype not in _NO_WEIGHT:
            shares[tensor.dtype] += tensor.bytes
    return tuple(name for name, _ in shares.most_common())
