"""Reads the header of a GGUF file: tensor names, shapes and types, without reading the weights.

The layout is that of the GGUF specification, versions 2 and 3: magic, version, tensor count, remark count, remarks,
tensors, padding, tensor bytes; all numbers little-endian.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from pipeline.errors import ModelError
from pipeline.weights.headers.base import HeaderCutOff, TensorInfo, WeightsHeader, fault_of_layout
from pipeline.weights.headers.file_signatures import what_it_is

MAX_HEADER_BYTES = 64 * 2**20
"""Larger headers are refused. Those of denoisers stay under 1 MB; a text encoder's holds its vocabulary, some 10 MB."""

MAX_TENSORS = 2**16
MAX_REMARKS = 2**12
MAX_STRING = 2**20
MAX_LIST = 2**20
MAX_SIDES = 8

_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
}  # fmt: skip
"""GGML's tensor types: name, weights per block, bytes per block (ggml's `type_traits` table)."""

_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
"""Names of llama.cpp's mixtures (`llama_ftype`), as the remark `general.file_type` counts them."""

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


def read_gguf(path: Path, *, partial: bool = False, whole_bytes: int | None = None) -> WeightsHeader:
    """Check and read the header; shapes are given in torch's order. Raises `ModelError` for an invalid file.

    `partial`: only the beginning is here yet, of a file of `whole_bytes` if that is known. Tensors must follow on each
    other, each padded to the alignment, as ggml's own reader demands (`gguf_init_from_file`).
    """
    here = path.stat().st_size
    size = whole_bytes if partial else here
    with path.open("rb") as file:
        start = file.read(32)
        if start[:4] != b"GGUF":
            raise ModelError(f"{path.name}: is {what_it_is(start) or 'no GGUF file'}")
        file.seek(4)
        reader = _Reader(file, path.name, here)
        version = reader.number("<I")
        if version not in (2, 3):
            raise ModelError(f"{path.name}: is GGUF of version {version}; versions 2 and 3 (little-endian) are read")
        count, remarks = reader.number("<Q"), reader.number("<Q")
        if count > MAX_TENSORS or remarks > MAX_REMARKS:
            raise ModelError(f"{path.name}: announces {count:,} tensors and {remarks:,} remarks; damaged")
        metadata: dict[str, Any] = {}
        for _ in range(remarks):
            name = reader.string()
            metadata[name] = reader.value(reader.number("<I"))
        tensors: dict[str, TensorInfo] = {}
        spans: list[tuple[int, int, str]] = []
        for _ in range(count):
            name, tensor, last = reader.tensor()
            spans.append((last - tensor.bytes, last, name))
            shape = metadata.get(_ORIGINAL_SHAPE + name)
            if _is_shape(shape) and prod(shape) == prod(tensor.shape):
                tensor = tensor._replace(shape=tuple(shape))
            tensors[name] = tensor
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise ModelError(f"{path.name}: the GGUF header is damaged (alignment {alignment!r}); fetch the file again")
        if fault := fault_of_layout(spans, alignment):
            raise ModelError(f"{path.name}: the GGUF header is damaged: {fault}; fetch the file again")
        data_start = -(-file.tell() // alignment) * alignment
    end = max((last for _, last, _ in spans), default=0)
    if size is not None and data_start + end > size:
        raise ModelError(
            f"{path.name}: holds {size:,} bytes where its header says {data_start + end:,}; fetch the file again"
        )
    texts = {name: str(value) for name, value in metadata.items() if not isinstance(value, list)}
    return WeightsHeader("gguf", tensors, texts, data_start)


def quantization_name(header: WeightsHeader) -> str | None:
    """The usual name of the quantisation (`Q4_K_M`): from the metadata, else the most common tensor type.

    None where nothing is quantised.
    """
    weights: dict[str, int] = {}
    for tensor in header.tensors.values():
        weights[tensor.dtype] = weights.get(tensor.dtype, 0) + prod(tensor.shape)
    quantized = {name: count for name, count in weights.items() if name not in _PLAIN.values()}
    if not quantized:
        return None
    common = max(quantized, key=lambda name: quantized[name])
    remark = header.metadata.get("general.file_type", "")
    mixture = next((name for number, name in _FILE_TYPES.items() if remark == str(number)), "")
    return mixture if mixture.startswith(common) else common


def _is_shape(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(side) is int and side > 0 for side in value)


class _Reader:
    """Reads forward through a header and stops at its limits."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self._file, self._name, self._size = file, name, size

    def _take(self, count: int) -> bytes:
        if self._file.tell() + count > MAX_HEADER_BYTES:
            raise ModelError(f"{self._name}: has a GGUF header of more than {MAX_HEADER_BYTES:,} bytes; made to harm")
        data = self._file.read(count)
        if len(data) < count:
            raise HeaderCutOff(
                f"{self._name}: the GGUF header is cut off at {self._size:,} bytes; fetch the file again"
            )
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def string(self) -> str:
        length = self.number("<Q")
        if length > MAX_STRING:
            raise ModelError(f"{self._name}: the GGUF header holds a text of {length:,} bytes; it is damaged")
        return self._take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """One remark; of long lists, which are vocabularies, nothing is kept."""
        if kind == _STRING:
            return self.string()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise ModelError(f"{self._name}: the GGUF header is damaged (a remark of type {kind}); fetch it again")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _NUMBERS:
            data = self._take(count * struct.calcsize(_NUMBERS[inner]))
            return list(struct.unpack(f"<{count}{_NUMBERS[inner][1]}", data)) if count <= MAX_SIDES else []
        if inner != _STRING or count > MAX_LIST:
            raise ModelError(f"{self._name}: the GGUF header is damaged (a list of type {inner}); fetch it again")
        for _ in range(count):
            self.string()
        return []

    def tensor(self) -> tuple[str, TensorInfo, int]:
        """Name, tensor and the end of its bytes, counted from the first tensor byte."""
        name = self.string()
        sides = self.number("<I")
        if sides > MAX_SIDES:
            raise ModelError(f"{self._name}: the GGUF header is damaged at tensor {name[:80]!r}; fetch the file again")
        shape = tuple(self.number("<Q") for _ in range(sides))
        kind, offset = self.number("<I"), self.number("<Q")
        if kind not in _TYPES:
            raise ModelError(f"{self._name}: tensor {name[:80]!r} is of GGML type {kind}, which is not known here")
        label, per_block, block_bytes = _TYPES[kind]
        blocks, rest = divmod(prod(shape), per_block)
        if rest:
            raise ModelError(f"{self._name}: the GGUF header is damaged at tensor {name[:80]!r}; fetch the file again")
        taken = blocks * block_bytes
        return name, TensorInfo(shape[::-1], _PLAIN.get(label, label), taken), offset + taken
