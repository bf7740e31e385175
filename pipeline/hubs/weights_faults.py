"""Checks weights that a hub sends: by their first bytes, and by their whole header."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import inf
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.weights.headers.base import HeaderCutOff, WeightsHeader
from pipeline.weights.headers.file_signatures import what_it_is
from pipeline.weights.headers.gguf import read_gguf
from pipeline.weights.headers.safetensors import MAX_HEADER_BYTES, read_safetensors

_FIRST_LOOK_BYTES = 32 * 2**10


def fault_of_start(start: bytes, suffix: str) -> str | None:
    """What begins so (32 bytes), if it cannot be weights of this kind, `.safetensors` or `.gguf`; None if it may be."""
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
    """What is wrong with a complete file of this kind, whatever its name; None if it is valid."""
    try:
        _reader(suffix)(path)
    except ModelError as error:
        return str(error).removeprefix(f"{path.name}: ")
    return None


class Front:
    """Reads the header of a weights file during its download, as soon as the header is complete.

    `whole_bytes` is how long the file will be, if that is known.
    """

    def __init__(self, path: Path, suffix: str, whole_bytes: int | None) -> None:
        self._path, self._suffix, self._whole_bytes = path, suffix, whole_bytes
        self._look_at_bytes = 0.0

    def header(self, here_bytes: int) -> WeightsHeader | None:
        """The header, once, when it is complete; raises `ModelError` if it is invalid."""
        if here_bytes < self._look_at_bytes:
            return None
        try:
            header = _reader(self._suffix)(self._path, partial=True, whole_bytes=self._whole_bytes)
        except HeaderCutOff:
            self._look_at_bytes = 2 * max(here_bytes, _FIRST_LOOK_BYTES)
            return None
        self._look_at_bytes = inf
        return header


def _reader(suffix: str) -> Callable[..., WeightsHeader]:
    return read_gguf if suffix == ".gguf" else read_safetensors
