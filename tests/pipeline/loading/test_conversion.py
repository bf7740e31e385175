"""Weights of 16 bits in their files and 32 in memory: the same as the libraries make of them, a piece at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import pipeline.loading.conversion as conversion
from pipeline.loading.component_weights import load_weights
from pipeline.loading.components import ComponentPart, parts_of
from pipeline.loading.conversion import convert, load_unconverted
from pipeline.loading.load import load
from pipeline.loading.offline import without_deprecations
from pipeline.memory.device.disk_weights import bring_back, disk_weights_of, put_on_disk
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.mapped_files import MappedFiles
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
from pipeline.weights.families import FAMILIES

Tiny = Callable[[str], Path]
ON_DISK = MemorySettings(techniques=("leaf_offload", "disk_offload"))


@pytest.fixture
def halved(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """A tiny model whose files have 16 bits."""

    def folder(family: str, dtype: torch.dtype = torch.bfloat16) -> Path:
        copy = Path(shutil.copytree(tiny(family), tmp_path / family))
        for file in copy.rglob("*.safetensors"):
            tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in load_file(file).items()}
            save_file(tensors, file, metadata={"format": "pt"})
        return copy

    return folder


def loaded(folder: Path, memory: MemorySettings | None = None) -> LoadedModel:
    return load(identify(str(folder))[0], memory or MemorySettings(), "cpu")


def parts(folder: Path) -> dict[str, ComponentPart]:
    settings, files = identify(str(folder))
    return {name: part for name, part in parts_of(files, settings, MemorySettings()).items() if part.weights}


def content(module: Any) -> dict[str, torch.Tensor]:
    """Weights, and what the class computes for itself."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name].dtype != theirs[name].dtype] == []
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_every_family_comes_as_the_libraries_convert_it(halved: Callable[..., Path], family: str) -> None:
    folder = halved(family)
    pipe = loaded(folder).pipe
    for name, part in parts(folder).items():
        with without_deprecations():
            whole = load_weights(part, torch.float32, "whole")
        assert_same(getattr(pipe, name), whole)


@pytest.mark.slow
def test_most_components_come_in_the_type_of_their_file(halved: Callable[..., Path]) -> None:
    for family in ("sd15", "sdxl", "sd3", "flux"):
        for name, part in parts(halved(family, torch.float16)).items():
            module: Any = load_unconverted(part, torch.float32, "m")
            assert {tensor.dtype for tensor in module.parameters()} >= {torch.float16}, (family, name)
            assert all(tensor.dtype == torch.float16 or "wo." in n for n, tensor in module.named_parameters())


def test_what_a_class_computes_for_itself_is_computed_in_32_bits(halved: Callable[..., Path]) -> None:
    """Such as the tables of Qwen's rotations, whose last bits would be lost."""
    module: Any = load_unconverted(parts(halved("z_image"))["text_encoder"], torch.float32, "m")
    assert {tensor.dtype for tensor in content(module).values() if tensor.is_floating_point()} == {torch.float32}


def test_a_file_of_two_types_is_left_to_the_libraries(halved: Callable[..., Path]) -> None:
    """To load it in the one would round the other."""
    folder = halved("sd15")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    exact = torch.full((32,), 1 / 3)
    save_file(load_file(file) | {"conv_norm_out.weight": exact}, file, metadata={"format": "pt"})
    assert torch.equal(loaded(folder).pipe.unet.conv_norm_out.weight, exact)


def test_16_bits_are_left_to_the_libraries(halved: Callable[..., Path]) -> None:
    part = parts(halved("sd15", torch.float16))["unet"]
    module: Any = load_unconverted(part, torch.bfloat16, "m")
    assert_same(module, load_weights(part, torch.bfloat16, "whole"))


def test_what_waits_on_disk_is_never_in_memory_as_a_whole(
    halved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "PIECE_BYTES", 2**16)
    part = parts(halved("sd15"))["unet"]
    module: Any = load_unconverted(part, torch.float32, "m")
    largest = max(tensor.nbytes for tensor in module.parameters())
    disk, converted = put_on_disk(module, "test"), []
    leave = disk.leave

    def watched(tensors: Any) -> None:
        sizes = [tensor.untyped_storage().nbytes() for tensor in module.parameters() if tensor.dtype == torch.float32]
        converted.append(sum(sizes))
        leave(tensors)

    monkeypatch.setattr(disk, "leave", watched)
    convert(module, torch.float32, disk)
    emptied = 4 * len(list(module.parameters()))  # a number each
    assert len(converted) > 10 and max(converted) <= 2 * max(2**16, largest) + emptied
    monkeypatch.undo()
    bring_back(module)
    assert_same(module, load_weights(part, torch.float32, "whole"))


@pytest.mark.slow
def test_a_model_that_is_loaded_to_stream_from_disk_draws_the_same(halved: Callable[..., Path]) -> None:
    def draw(model: LoadedModel) -> Any:
        generator = torch.Generator().manual_seed(7)
        with torch.inference_mode():
            return model.pipe("a cat", num_inference_steps=2, height=32, width=32, generator=generator).images[0]

    folder = halved("sdxl")
    plain, streamed = loaded(folder), loaded(folder, ON_DISK)
    assert disk_weights_of(streamed.pipe.unet) and disk_weights_of(streamed.pipe.text_encoder_2)
    assert draw(streamed).tobytes() == draw(plain).tobytes()


def test_what_was_read_of_a_file_is_forgotten_and_can_be_read_again(tmp_path: Path) -> None:
    tensors = {name: torch.randn(2**21, generator=torch.Generator().manual_seed(0)) for name in "ab"}
    save_file(tensors, tmp_path / "weights.safetensors")
    mapped, own = load_file(tmp_path / "weights.safetensors"), torch.ones(2**20)
    files = MappedFiles()
    assert files.have(mapped["a"]) and not files.have(own)
    assert mapped["a"].sum().isfinite() and mapped["b"].sum().isfinite()
    before = psutil.Process().memory_info().rss
    for tensor in (mapped["a"], own):
        files.forget(tensor)
    assert before - psutil.Process().memory_info().rss > 6 * 2**20, "8 MiB but for what shares a page with others"
    assert torch.equal(mapped["a"], tensors["a"]) and torch.equal(mapped["b"], tensors["b"]) and own.sum() == 2**20
