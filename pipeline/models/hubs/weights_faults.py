"""What is wrong with weights that a hub sends: by their first bytes, and by their whole header."""

from __future__ import annotations

import struct
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.file_signatures import what_it_is
from pipeline.models.gguf_header import read_gguf
from pipeline.models.safetensors_header import MAX_HEADER_BYTES, read_safetensors


def fault_of_start(start: bytes, suffix: str) -> str | None:
    """What begins so (32 bytes) if it cannot be weights of this kind, `.safetensors` or `.gguf`; None if it may be."""
    if suffix == ".gguf":
        return None if start.startswith(b"GGUF") else what_it_is(start) or "something that is no GGUF file"
    (length,) = struct.unpack("<Q", start[:8])
    if start[8:9] != b"{":
        return what_it_is(start) or "something that is no safetensors file"
    if length > MAX_HEADER_BYTES:
        # The length's own bytes may spell anything, so other kinds are looked for only where this one is out of place.
        return what_it_is(start) or f"a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}, made to harm"
    return None


def fault_of_weights(path: Path, suffix: str) -> str | None:
    """What is wrong with a whole file of this kind, whatever its name; None for a sound one."""
    try:
        read_gguf(path) if suffix == ".gguf" else read_safetensors(path)
    except ModelError as error:
        return str(error).removeprefix(f"{path.name}: ")
    return None
