"""Weights in fewer bits, wherever they came from, and their true size."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.memory.quantization import quantize, quantized_as, true_bytes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def load(tiny: Callable[[str], Path]) -> Callable[..., Any]:
    def load(family: str, component: str, class_name: str, dtype: torch.dtype = torch.bfloat16) -> Any:
        import diffusers
        import transformers

        library = transformers if component.startswith("text") else diffusers
        module = getattr(library, class_name).from_pretrained(
            tiny(family) / component, dtype=dtype, local_files_only=True
        )
        return module.requires_grad_(False).eval()

    return load


def quantised_layers(module: torch.nn.Module) -> set[str]:
    return {name for name, layer in module.named_modules() if hasattr(getattr(layer, "weight", None), "qdata")}


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_denoiser_and_encoder_take_about_a_byte_per_weight(load: Callable[..., Any], kind: Any) -> None:
    for module in (
        load("flux", "transformer", "FluxTransformer2DModel"),
        load("flux", "text_encoder", "CLIPTextModel"),
    ):
        elements = {
            name: layer.weight.numel() for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)
        }
        before, told = true_bytes(module), module.get_memory_footprint()
        count = quantize(module, kind)
        names = quantised_layers(module)
        assert count == len(names) > 0 and quantized_as(module) == kind
        saved = sum(elements[name] for name in names)  # of two bytes each, one is left, and a scale per row
        assert before - saved < true_bytes(module) < before - saved * 0.8
        # What diffusers and transformers say does not change: why there is a function of our own.
        assert module.get_memory_footprint() == told


def test_what_decides_a_lot_and_weighs_little_keeps_its_precision(load: Callable[..., Any]) -> None:
    transformer = load("flux", "transformer", "FluxTransformer2DModel")
    quantize(transformer, "int8")
    names = quantised_layers(transformer)
    assert "transformer_blocks.0.attn.to_q" in names
    assert not [name for name in names if "embed" in name or name == "proj_out"]
    assert all(transformer.get_submodule(name).weight.numel() >= 1024 for name in names)


def test_a_weight_shared_with_an_embedding_is_left_shared() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(64, 32)
            self.head = torch.nn.Linear(32, 64, bias=False)
            self.head.weight = self.table.weight
            self.body = torch.nn.Linear(32, 64)

    model = Tied()
    assert quantize(model, "int8") == 1
    assert model.head.weight is model.table.weight and quantised_layers(model) == {"body"}


def test_a_single_file_is_quantised(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """diffusers' own way, `from_single_file(quantization_config=...)`, quantises nothing and says nothing."""
    from diffusers import TorchAoConfig, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from torchao.quantization import Int8WeightOnlyConfig

    unet = tiny("sd15") / "unet"
    state = load_file(next(unet.glob("*.safetensors")))
    file = tmp_path / "unet.safetensors"
    save_file(state, file)
    options = {"config": str(unet), "local_files_only": True, "dtype": torch.bfloat16}
    theirs = UNet2DConditionModel.from_single_file(
        str(file), quantization_config=TorchAoConfig(Int8WeightOnlyConfig(version=2)), **options
    )
    assert not quantised_layers(theirs), "diffusers has mended it: our way round may go"
    ours = UNet2DConditionModel.from_single_file(str(file), **options)
    before = true_bytes(ours)
    assert quantize(ours, "int8") == len(quantised_layers(ours)) > 10
    assert true_bytes(ours) < before


def test_the_picture_stays_nearly_the_same(load: Callable[..., Any]) -> None:
    encoder = load("flux", "text_encoder", "CLIPTextModel", torch.float32)
    tokens = torch.arange(10)[None]
    with torch.inference_mode():
        exact = encoder(tokens).last_hidden_state
        quantize(encoder, "int8")
        rough = encoder(tokens).last_hidden_state
    error = (rough - exact).norm() / exact.norm()
    assert 0 < error < 0.05


def test_twice_or_nothing_to_do_is_refused(load: Callable[..., Any]) -> None:
    encoder = load("flux", "text_encoder", "CLIPTextModel")
    quantize(encoder, "int8")
    with pytest.raises(ModelError, match="already quantised to int8"):
        quantize(encoder, "float8")
    with pytest.raises(ModelError, match="no Linear layer"):
        quantize(torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3), torch.nn.Linear(4, 4)), "int8")


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("int8", "torchao", "quantization"),
        ("float8", "torchao", "quantization"),
        ("int4", "bitsandbytes", "bitsandbytes"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    kind: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ModelError, match=rf"package {package}: pip install 'darkroom\[{extra}\]'") as caught:
        quantize(torch.nn.Linear(64, 64), kind, CPU)
    assert "\n" not in str(caught.value)


def test_four_bits_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ModelError, match="NVIDIA GPU"):
        quantize(torch.nn.Sequential(torch.nn.Linear(64, 64)), "int4", CPU)


def test_scales_beside_a_weight_are_counted() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight = torch.nn.Parameter(torch.zeros(2048, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = SimpleNamespace(absmax=torch.zeros(64))  # as bitsandbytes has them, which needs a GPU
    assert true_bytes(layer) == 2048 + 64 * 4
