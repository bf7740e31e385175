"""Reads the header of a weights file of either format."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError
from pipeline.weights.headers.base import PICKLES, WEIGHTS, WeightsHeader
from pipeline.weights.headers.gguf import read_gguf
from pipeline.weights.headers.safetensors import read_safetensors


def read_weights(path: Path) -> WeightsHeader:
    """The header of a `.safetensors` or `.gguf` file. Raises `ModelError` for other kinds and invalid files."""
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise ModelError(
            f"{path.name}: is a {suffix} file, a pickle, which can run code when opened; "
            "get or convert it as safetensors"
        )
    if suffix not in WEIGHTS:
        raise ModelError(f"{path.name}: weights are read from .safetensors and .gguf files, not from {suffix}")
    try:
        return read_gguf(path) if suffix == ".gguf" else read_safetensors(path)
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read ({error.strerror or error})") from None
