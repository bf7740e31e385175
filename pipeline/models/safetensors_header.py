"""Reading the header of a safetensors file: what it holds, without touching the weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

MAX_HEADER_BYTES = 16 * 2**20
"""Larger headers are refused: real ones stay under 2 MB, and parsing a huge one is an attack on memory."""

_DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "U16": 2, "U32": 4,
    "U64": 8, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def read_header(path: Path) -> dict[str, Any]:
    """Tensor name to `{dtype, shape, data_offsets}`. Raises `ModelError` if the file is not whole and sound.

    The layout is that of the safetensors specification: u64 little-endian header length, JSON header, tensor bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ModelError(f"{path.name}: is {size} bytes long, too short for a safetensors file; fetch it again")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES:
            raise ModelError(
                f"{path.name}: announces a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}; "
                "this is no safetensors file, or one made to harm"
            )
        if 8 + length > size:
            raise ModelError(f"{path.name}: the safetensors header is cut off at {size:,} bytes; fetch the file again")
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path.name}: the safetensors header is no valid JSON ({error}); fetch it again") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path.name}: the safetensors header is no JSON object; fetch the file again")
    header.pop("__metadata__", None)
    end = 0
    for name, tensor in header.items():
        try:
            first, last = tensor["data_offsets"]
            elements = 1
            for side in tensor["shape"]:
                elements *= side
            sound = last - first == elements * _DTYPE_BYTES.get(tensor["dtype"], (last - first) / max(elements, 1))
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ModelError(f"{path.name}: the safetensors header is damaged at tensor {name[:80]!r}; fetch it again")
        end = max(end, last)
    if 8 + length + end != size:
        raise ModelError(
            f"{path.name}: holds {size:,} bytes where its header says {8 + length + end:,}; fetch the file again"
        )
    return header
