"""Headers are read and nothing else; a file that is not what its name says is refused, saying what it is."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from published_weights import Shapes, original_shapes, published_shapes, write_header

from pipeline.errors import ModelError
from pipeline.weights.headers.base import TensorInfo, WeightsHeader
from pipeline.weights.headers.gguf import _TYPES, quantization_name, read_gguf
from pipeline.weights.inspection import inspect_file

SELF_IO = Path("/proc/self/io")


def write_gguf(path: Path, shapes: Shapes, kind: str, file_type: int | None = None) -> Path:
    """A GGUF file by the format's own library: matrices quantised as `kind`, the rest in F32; its body is a hole."""
    writer = gguf.GGUFWriter(path, "flux")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("general.sizes", [1, 2, 3])
    end = 0
    for name, shape in shapes.items():
        quantized = gguf.GGMLQuantizationType[kind]
        per_block, size = gguf.GGML_QUANT_SIZES[quantized]
        if len(shape) != 2 or shape[-1] % per_block:
            quantized, per_block, size = gguf.GGMLQuantizationType.F32, 1, 4
        taken = prod(shape) // per_block * size
        writer.add_tensor_info(name, list(shape), np.dtype(np.float32), taken, raw_dtype=quantized)
        end += -(-taken // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_padding(writer.fout[0], writer.fout[0].tell())
    end += writer.fout[0].tell()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(end)
    return path


def bytes_read() -> int:
    """Bytes that this process has asked the system for so far, from the page cache too."""
    return int(SELF_IO.read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not SELF_IO.exists(), reason="only Linux counts what a process reads")
def test_of_a_ten_gigabyte_checkpoint_only_the_header_is_read(tmp_path: Path) -> None:
    path = write_header(tmp_path / "xl.safetensors", original_shapes("sdxl"), "F32")
    quantized = write_gguf(tmp_path / "flux.gguf", original_shapes("flux_dev"), "Q8_0")
    assert path.stat().st_size > 10e9 and quantized.stat().st_size > 10e9
    for big in (path, quantized):
        before = bytes_read()
        assert inspect_file(big).parameters > 2e9
        assert bytes_read() - before < 2**20


@pytest.mark.parametrize(
    ("kind", "file_type", "name"),
    [("Q4_K", 15, "Q4_K_M"), ("Q4_K", None, "Q4_K"), ("Q8_0", 7, "Q8_0"), ("Q4_0", 15, "Q4_0"), ("F16", 1, None)],
)
def test_gguf_tells_quantisation_parameters_and_exact_bytes(
    kind: str, file_type: int | None, name: str | None, tmp_path: Path
) -> None:
    shapes = original_shapes("flux_schnell")
    facts = inspect_file(write_gguf(tmp_path / "flux.gguf", shapes, kind, file_type))
    assert (facts.kind, facts.label, facts.format) == ("denoiser", "FLUX.1 schnell", "gguf")
    assert facts.quantization == name
    assert facts.parameters == sum(map(prod, shapes.values()))
    tensors = gguf.GGUFReader(facts.path).tensors
    assert facts.file_bytes == sum(tensor.n_bytes for tensor in tensors)
    assert facts.dtype == {"F16": "float16"}.get(kind, kind)


def test_table_of_gguf_types_is_that_of_the_library() -> None:
    for number, (name, per_block, size) in _TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (per_block, size))


def test_gguf_shapes_stand_in_the_order_of_torch(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", {"a": (64, 512), "b": (7,)}, "Q4_K")
    assert {name: tensor.shape for name, tensor in read_gguf(path).tensors.items()} == {"a": (64, 512), "b": (7,)}


def test_gguf_tensor_that_was_reshaped_for_quantising_has_its_own_shape(tmp_path: Path) -> None:
    """ComfyUI's converter lays convolutions out flat and remarks what they were."""
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "sdxl")
    writer.add_array("comfy.gguf.orig_shape.conv", [4, 32, 2, 2])
    writer.add_tensor("conv", np.zeros((2, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_gguf(tmp_path / "a.gguf").tensors["conv"].shape == (4, 32, 2, 2)


@pytest.mark.parametrize("sides", [[4.0, 128.0], [-4, -128]])
def test_gguf_shape_that_is_none_is_passed_over(tmp_path: Path, sides: list[Any]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "sdxl")
    writer.add_array("comfy.gguf.orig_shape.a", sides)
    writer.add_tensor("a", np.zeros((2, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_gguf(tmp_path / "a.gguf").tensors["a"].shape == (2, 256)


@pytest.mark.parametrize("remark", ["9" * 5000, "²", "-1"])
def test_gguf_mixture_that_is_no_number_is_passed_over(remark: str) -> None:
    header = WeightsHeader("gguf", {"a": TensorInfo((32,), "Q8_0", 34)}, {"general.file_type": remark})
    assert quantization_name(header) == "Q8_0"


def gguf_bytes(*, version: int = 3, tensors: int = 0, remarks: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, remarks) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def two_gguf_tensors(second_at: int) -> bytes:
    """Two of 8 bytes each, so that the second belongs to byte 32, the first that is aligned."""
    first, second = (text(name) + struct.pack("<IQIQ", 1, 2, 0, at) for name, at in ((b"a", 0), (b"b", second_at)))
    return gguf_bytes(tensors=2, rest=(first + second).ljust(200, b"\0"))


DAMAGED_GGUF = {
    "cut off in the header": (gguf_bytes(tensors=3), "cut off"),
    "first version": (gguf_bytes(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
    "too many tensors": (gguf_bytes(tensors=2**40), "1,099,511,627,776 tensors"),
    "endless text": (gguf_bytes(remarks=1, rest=struct.pack("<Q", 2**62)), "text of"),
    "endless list": (gguf_bytes(remarks=1, rest=text(b"a") + struct.pack("<IIQ", 9, 4, 2**60)), "more than"),
    "list of lists": (gguf_bytes(remarks=1, rest=text(b"a") + struct.pack("<IIQ", 9, 9, 1)), "damaged"),
    "unknown remark": (gguf_bytes(remarks=1, rest=text(b"a") + struct.pack("<I", 77)), "remark of type 77"),
    "unknown type": (gguf_bytes(tensors=1, rest=text(b"a") + struct.pack("<IQIQ", 1, 32, 999, 0)), "type 999"),
    "part of a block": (gguf_bytes(tensors=1, rest=text(b"a") + struct.pack("<IQIQ", 1, 7, 12, 0)), "tensor 'a'"),
    "body missing": (gguf_bytes(tensors=1, rest=text(b"a") + struct.pack("<IQIQ", 1, 256, 12, 0)), "holds"),
    "another kind": (b"<!DOCTYPE html><html></html>" + bytes(100), "web page"),
    "overlap": (two_gguf_tensors(second_at=0), "tensor 'b' overlaps the one before it"),
    "hole": (two_gguf_tensors(second_at=64), "tensor 'b' leaves a hole before it"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED_GGUF)
def test_damaged_gguf_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    data, words = DAMAGED_GGUF[case]
    path = tmp_path / "flux.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words) as caught:
        inspect_file(path)
    assert "\n" not in str(caught.value) and "flux.gguf" in str(caught.value)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))


def write_two_tensors(path: Path, first: tuple[int, int] = (0, 16), second: tuple[int, int] = (16, 32)) -> None:
    """Two of 16 bytes each, where their offsets say; the file is as long as these make it."""
    entries = {
        name: {"dtype": "F32", "shape": [4], "data_offsets": span} for name, span in (("a", first), ("b", second))
    }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(second[1]))


DISGUISES: dict[str, tuple[Callable[[Path], object], str]] = {
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html><body>Log in</body></html>"), "a web page"),
    "web page, indented": (lambda path: path.write_text("\n <html><body>Not found</body></html>"), "a web page"),
    "server's message": (lambda path: path.write_text('{"error": "Unauthorized", "code": 401}'), "JSON text"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"state_dict": list(range(100))})), "a pickle"),
    "PyTorch archive": (write_zip, "a zip archive"),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "a Git LFS",
    ),
    "GGUF": (lambda path: path.write_bytes(gguf_bytes(rest=bytes(64))), "a GGUF file"),
    "nothing": (lambda path: path.write_bytes(b""), "0 bytes long"),
    "no tensors": (lambda path: path.write_bytes(struct.pack("<Q", 2) + b"{}"), "holds no tensors"),
    "nested for ever": (
        lambda path: path.write_bytes(struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995), "no valid JSON",
    ),
    "negative side": (
        lambda path: path.write_bytes(
            struct.pack("<Q", 65) + b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0,4]}}' + bytes(4)
        ),
        "damaged at tensor 'a'",
    ),
    "overlap": (lambda path: write_two_tensors(path, second=(8, 24)), "tensor 'b' overlaps the one before it"),
    "hole": (lambda path: write_two_tensors(path, second=(24, 40)), "tensor 'b' leaves a hole before it"),
    "hole at the start": (lambda path: write_two_tensors(path, (16, 32), (32, 48)), "tensor 'a' leaves a hole"),
    "cut off": (
        lambda path: os.truncate(write_header(path, {"a": (100, 100)}), 500), "fetch the file again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DISGUISES)
def test_file_that_is_no_safetensors_says_what_it_is(case: str, tmp_path: Path) -> None:
    write, words = DISGUISES[case]
    path = tmp_path / "model.safetensors"
    write(path)
    with pytest.raises(ModelError, match=words) as caught:
        inspect_file(path)
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl"])
def test_pickles_are_refused_by_their_ending_and_never_opened(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    write_header(path, published_shapes("sd15"))
    path.chmod(0)
    with pytest.raises(ModelError, match=rf"is a {suffix} file, a pickle.*safetensors"):
        inspect_file(path)


def test_header_whose_length_spells_another_kind_is_read_all_the_same(tmp_path: Path) -> None:
    """The first bytes are a number, and may happen to be those of a pickle or of JSON."""
    for length in (0x0280, 0x227B):
        header = b'{"emb_params": {"dtype": "F32", "shape": [1, 768], "data_offsets": [0, 3072]}}'.ljust(length)
        path = tmp_path / "style.safetensors"
        path.write_bytes(struct.pack("<Q", length) + header + bytes(3072))
        assert inspect_file(path).kind == "embedding"


@pytest.mark.parametrize(
    ("extra", "dtype", "quantization"),
    [
        ({"transformer_blocks.0.attn.to_q.weight.quant_state.bitsandbytes__nf4": (8,)}, "U8", "bitsandbytes nf4"),
        ({"scaled_fp8": (0,)}, "F8_E4M3", "scaled float8"),
        ({}, "F8_E4M3", "float8"),
        ({}, "BF16", None),
    ],
)
def test_quantisation_of_a_safetensors_file_is_told(
    extra: Shapes, dtype: str, quantization: str | None, tmp_path: Path
) -> None:
    path = write_header(tmp_path / "flux.safetensors", published_shapes("flux_dev") | extra, dtype)
    assert inspect_file(path).quantization == quantization
