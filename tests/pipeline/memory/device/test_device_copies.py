"""Weights that stay on the host while copies of them are at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.memory.device import device_copies
from pipeline.memory.device.alignment import offset_of
from pipeline.memory.device.device_copies import can_stay, copy_weights, to_device, to_host, weights_stayed
from pipeline.memory.device.quantization import quantize, true_bytes

CPU = torch.device("cpu")


class Tied(torch.nn.Module):
    """Two layers with one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 32)
        self.out = torch.nn.Linear(32, 64)
        self.out.weight = self.embedding.weight
        self.register_buffer("shift", torch.randn(64))
        self.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(ids)) + self.shift


def places(module: torch.nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def test_what_runs_is_a_copy_and_what_comes_back_is_the_original() -> None:
    module = Tied()
    before, ids = places(module), torch.arange(8)
    wanted = module(ids)
    copy_weights(module, CPU)
    assert not set(places(module).values()) & set(before.values())
    assert module.out.weight is module.embedding.weight, "tied weights are copied once"
    assert torch.equal(module(ids), wanted)
    to_host(module)
    assert places(module) == before
    assert module.out.weight is module.embedding.weight


def test_copies_are_ordinary_weights_even_when_made_in_inference_mode() -> None:
    module = Tied()
    with torch.inference_mode():
        copy_weights(module, CPU)
    assert not any(tensor.is_inference() for tensor in [*module.parameters(), *module.buffers()])


class Moved(torch.nn.Module):
    """Counts how often all of it is gone through to be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.moves = torch.nn.Linear(8, 8), 0

    def to(self, *arguments: Any, **options: Any) -> Moved:
        self.moves += 1
        return super().to(*arguments, **options)


@pytest.mark.parametrize("name", ["parameter", "buffer", "layer"])
def test_a_stage_moves_what_is_elsewhere_and_nothing_else(name: str) -> None:
    """PyTorch's device without memory stands for a card."""
    module, card = Moved(), torch.device("meta")
    for _ in range(3):
        to_device(module, card)
    assert module.moves == 1 and module.layer.weight.is_meta
    new = torch.zeros(8)
    if name == "parameter":
        module.layer.register_parameter("scale", torch.nn.Parameter(new))
    elif name == "buffer":
        module.layer.register_buffer("shift", new)
    else:
        module.layer.add_module("lora", torch.nn.Linear(8, 8))
    to_device(module, card)
    assert module.moves == 2 and all(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])


def test_layers_that_came_meanwhile_stay_and_the_rest_goes_back() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    originals = [layer.weight for layer in module]
    copy_weights(module, CPU)
    inner, module[0] = module[0], torch.nn.Sequential(module[0], torch.nn.Linear(8, 2))  # as a LoRA wraps a layer
    added = module[0][1].weight
    to_host(module)
    assert inner.weight is originals[0] and module[1].weight is originals[1]
    assert module[0][1].weight is added


@pytest.mark.parametrize("change", ["dtype", "format", "other"])
def test_a_weight_that_was_changed_on_the_device_comes_back_as_it_is(change: str) -> None:
    module = torch.nn.Conv2d(4, 4, 3)
    original = module.weight
    copy_weights(module, CPU)
    if change == "dtype":
        module.to(torch.float16)
    elif change == "format":
        module.to(memory_format=torch.channels_last)
    else:
        module.weight = torch.nn.Parameter(torch.ones(4, 4, 3, 3))
    changed = module.weight.detach().clone()
    to_host(module)
    assert module.weight is not original
    assert module.weight.dtype == changed.dtype and module.weight.stride() == changed.stride()
    assert torch.equal(module.weight, changed)


def test_without_room_for_all_copies_everything_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module, made = Tied(), []
    before = places(module)
    copied = device_copies.copied

    def failing(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if len(made) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        made.append(tensor)
        return copied(tensor, device)

    monkeypatch.setattr(device_copies, "copied", failing)
    with pytest.raises(torch.OutOfMemoryError):
        copy_weights(module, CPU)
    assert places(module) == before and not weights_stayed(module)


def test_quantised_weights_can_stay_and_come_back() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)).to(torch.bfloat16)
    quantize(module, "int8")
    original, x = module[0].weight, torch.randn(4, 64, dtype=torch.bfloat16)
    wanted = module(x)
    assert can_stay(module)
    copy_weights(module, CPU)
    assert module[0].weight is not original and torch.equal(module(x), wanted)
    to_host(module)
    assert module[0].weight is original


def test_weights_stay_where_they_cost_nothing_or_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.randn(256, 256)}, path)
    mapped, loose = torch.nn.Linear(256, 256, bias=False), torch.nn.Linear(256, 256, bias=False)
    mapped.weight = torch.nn.Parameter(load_file(path)["weight"], requires_grad=False)

    class Memory:
        available = 0

    monkeypatch.setattr(device_copies.psutil, "virtual_memory", lambda: Memory)
    assert can_stay(mapped)
    assert not can_stay(loose)
    Memory.available = loose.weight.nbytes
    assert can_stay(loose)
    tied = Tied()
    Memory.available = true_bytes(tied)
    assert can_stay(tied), "a weight in two layers is there once"


def test_weights_of_torchao_count_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    module = torch.nn.Linear(256, 256, bias=False).to(torch.bfloat16)
    quantization.quantize_(module, quantization.Int8WeightOnlyConfig(version=2))

    class Memory:
        available = true_bytes(module)

    monkeypatch.setattr(device_copies.psutil, "virtual_memory", lambda: Memory)
    assert can_stay(module)


class Stateful(torch.nn.Parameter):
    """As weights of bitsandbytes are: a subclass that moves more than its tensor."""


def test_weights_with_a_state_of_their_own_do_not_stay() -> None:
    module = torch.nn.Linear(8, 8)
    module.weight = Stateful(torch.randn(8, 8))
    assert not can_stay(module)


def test_copies_lie_as_their_originals_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.randn(3, dtype=torch.float16), "weight": torch.randn(64, 64, dtype=torch.float16)}, path)
    module = torch.nn.Linear(64, 64, bias=False)
    module.weight = torch.nn.Parameter(load_file(path)["weight"], requires_grad=False)
    offset = offset_of(module.weight)
    copy_weights(module, CPU)
    assert offset_of(module.weight) == offset
