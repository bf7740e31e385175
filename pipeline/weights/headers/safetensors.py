"""Reads the header of a safetensors file, without reading the weights."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.weights.headers.base import HeaderCutOff, TensorInfo, WeightsHeader, fault_of_layout
from pipeline.weights.headers.file_signatures import what_it_is

MAX_HEADER_BYTES = 16 * 2**20
"""Larger headers are refused: real ones stay under 2 MB, and parsing a huge one is an attack on memory."""

_DTYPES: dict[str, tuple[str, float]] = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U64": ("uint64", 8),
    "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1), "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
    "F4": ("float4_e2m1fn", 0.5),
}  # fmt: skip


def read_safetensors(path: Path, *, partial: bool = False, whole_bytes: int | None = None) -> WeightsHeader:
    """Check and read the header. Raises `ModelError` if the file is incomplete or invalid, saying what it is instead.

    `partial`: only the beginning is here yet, of a file of `whole_bytes` if that is known. The layout is that of the
    safetensors specification: u64 little-endian header length, JSON header, tensor bytes without overlaps and holes.
    """
    here = path.stat().st_size
    size = whole_bytes if partial else here
    with path.open("rb") as file:
        start = file.read(32)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        # The length's own bytes may spell anything, so other kinds are looked for only where this one is out of place.
        sound = 0 < length <= MAX_HEADER_BYTES and 8 + length <= here and start[8:9] == b"{"
        if not sound and (disguise := what_it_is(start)):
            raise ModelError(f"{path.name}: is {disguise}")
        if len(start) < 8:
            raise HeaderCutOff(f"{path.name}: is {here} bytes long, too short for a safetensors file; fetch it again")
        if length > MAX_HEADER_BYTES:
            raise ModelError(
                f"{path.name}: announces a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}; "
                "this is no safetensors file, or one made to harm"
            )
        if 8 + length > here:
            raise HeaderCutOff(
                f"{path.name}: the safetensors header is cut off at {here:,} bytes; fetch the file again"
            )
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: the safetensors header is no valid JSON ({error}); fetch it again") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path.name}: the safetensors header is no JSON object; fetch the file again")
    metadata = header.pop("__metadata__", None)
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        tensor, last = _tensor(entry)
        if tensor is None:
            raise ModelError(f"{path.name}: the safetensors header is damaged at tensor {name[:80]!r}; fetch it again")
        tensors[name] = tensor
        spans.append((last - tensor.bytes, last, name))
    if fault := fault_of_layout(spans):
        raise ModelError(f"{path.name}: the safetensors header is damaged: {fault}; fetch the file again")
    end = max((last for _, last, _ in spans), default=0)
    if size is not None and 8 + length + end != size:
        raise ModelError(
            f"{path.name}: holds {size:,} bytes where its header says {8 + length + end:,}; fetch the file again"
        )
    remarks = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return WeightsHeader("safetensors", tensors, remarks, 8 + length)


def _tensor(entry: Any) -> tuple[TensorInfo | None, int]:
    """A header entry as a tensor with the position of its end; None where it contradicts itself."""
    try:
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        dtype = str(entry["dtype"])
        numbers = (first, last, *shape)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None, 0
        name, width = _DTYPES.get(dtype, (dtype.lower(), None))
        if last < first or (width is not None and last - first != prod(shape) * width):
            return None, 0
    except (KeyError, TypeError, ValueError):
        return None, 0
    return TensorInfo(shape, name, last - first), last
