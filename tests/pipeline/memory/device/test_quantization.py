"""Weights in fewer bits, wherever they came from, and their true size."""

from __future__ import annotations

import importlib.util
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.memory.device.quantization import quantize, quantized_as, true_bytes

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
    """Names of the layers that hold a scale beside their weight, or a weight of torchao's."""
    return {
        name
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and (hasattr(layer, "scale") or hasattr(layer.weight, "qdata"))
    }


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_denoiser_and_encoder_take_about_a_byte_per_weight(load: Callable[..., Any], kind: Any) -> None:
    for module in (
        load("flux", "transformer", "FluxTransformer2DModel"),
        load("flux", "text_encoder", "CLIPTextModel"),
    ):
        elements = {
            name: layer.weight.numel() for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)
        }
        before = true_bytes(module)
        count = quantize(module, kind)
        names = quantised_layers(module)
        assert count == len(names) > 0 and quantized_as(module) == kind
        saved = sum(elements[name] for name in names)  # of two bytes each, one is left, and a scale per row
        assert before - saved < true_bytes(module) < before - saved * 0.8
        assert module.dtype == torch.bfloat16, "what is computed with is asked for in many places"


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


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"bitsandbytes: pip install 'darkroom\[bitsandbytes\]'") as caught:
        quantize(torch.nn.Linear(64, 64), "int4", CPU)
    assert "\n" not in str(caught.value)
    for kind in ("int8", "float8"):
        assert quantize(torch.nn.Sequential(torch.nn.Linear(64, 64)), kind, CPU) == 1, "eight bits need none"


def layer_of(weight: torch.Tensor) -> torch.nn.Sequential:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return torch.nn.Sequential(layer)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_wide_layer_stays_within_float16(kind: Any) -> None:
    """The sum of 3072 numbers times up to 127 each does not, if the scale comes after it."""
    generator = torch.Generator().manual_seed(0)
    model = layer_of((torch.randn(512, 3072, generator=generator) * 0.02).half())
    x = (torch.randn(16, 3072, generator=generator) * 16).half()
    with torch.inference_mode():
        wanted = model(x)
        quantize(model, kind)
        found = model(x)
    assert 50 < wanted.abs().max() < 100 and found.isfinite().all()
    assert (found - wanted).float().norm() < (0.01 if kind == "int8" else 0.05) * wanted.float().norm()


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_layer_is_unpacked_once_while_it_computes(kind: Any) -> None:
    """Beside the weights there is one copy of them in 16 bits, as the estimate counts."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Alive(TorchDispatchMode):
        """The most bytes at once of what was made under it."""

        def __init__(self) -> None:
            super().__init__()
            self.alive = self.peak = 0
            self.known: set[int] = set()

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            storage = made.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known | given:
                self.known.add(key)
                self.alive += size
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._gone, key, size)
            return made

        def _gone(self, key: int, size: int) -> None:
            self.known.discard(key)
            self.alive -= size

    model = layer_of(torch.randn(512, 512).bfloat16())
    x = torch.randn(1, 512).bfloat16()
    quantize(model, kind)
    given = {one.untyped_storage()._cdata for one in (x, model[0].weight, model[0].scale)}
    with torch.inference_mode(), Alive() as alive:
        model(x)
    assert 512 * 512 * 2 <= alive.peak <= 512 * 512 * 2 + 512 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [10.0, 0.05, 1e-3, 3e-6])
def test_a_number_is_off_by_half_a_scale_at_most(dtype: torch.dtype, largest: float) -> None:
    """Also where the scale itself is so small that float16 has it in coarse steps; and a row of zeros stays one."""
    weight = (torch.rand(8, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1) * largest
    weight[3] = 0
    weight[5] *= 1e-3
    model = layer_of(weight.to(dtype))
    before = model[0].weight.float()
    quantize(model, "int8")
    (layer,) = model
    assert layer.scale.dtype == dtype and layer.weight.dtype == torch.int8
    with torch.inference_mode():
        after = model(torch.eye(512, dtype=dtype)).T.float()
    rounding = torch.finfo(dtype).eps * before.abs() + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert ((after - before).abs() <= layer.scale.float() / 2 * 1.001 + rounding).all()
    assert (after[3] == 0).all()
    # No range is given away but by rounding the scale up.
    rows = before.abs().amax(1) > 1e-4
    assert (layer.weight[rows].abs().amax(1) >= (126 if largest > 0.01 else 100)).all()


def test_damaged_weights_do_not_become_sound_ones() -> None:
    weight = torch.randn(8, 512)
    weight[2, 7], weight[5, 1] = float("nan"), float("inf")
    model = layer_of(weight)
    quantize(model, "int8")
    assert model(torch.ones(1, 512)).isfinite().flatten().tolist() == [n not in (2, 5) for n in range(8)]


def test_what_a_weight_was_mapped_from_is_left_as_it_was(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({"weight": torch.randn(64, 64)}, tmp_path / "weights.safetensors")
    mapped = load_file(tmp_path / "weights.safetensors")["weight"]
    before = mapped.clone()
    quantize(layer_of(mapped), "int8")
    assert torch.equal(mapped, before)


def test_a_layer_in_two_places_is_one_still() -> None:
    model = layer_of(torch.randn(64, 64))
    model.append(model[0])
    assert quantize(model, "int8") == 1 and model[0] is model[1]
    assert true_bytes(model) == 64 * 64 + 64 * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_quantised_layers_can_be_compiled_whole(kind: Any) -> None:
    from torch._dynamo.testing import CompileCounter

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64)).requires_grad_(False)
    quantize(model, kind)
    counter, x = CompileCounter(), torch.randn(4, 64)
    with torch.inference_mode():
        wanted = model(x)
        assert torch.equal(torch.compile(model, backend=counter, fullgraph=True)(x), wanted)
    assert counter.frame_count == 1


def test_four_bits_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ModelError, match="NVIDIA GPU"):
        quantize(torch.nn.Sequential(torch.nn.Linear(64, 64)), "int4", CPU)


def test_scales_beside_a_weight_are_counted() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight = torch.nn.Parameter(torch.zeros(2048, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = SimpleNamespace(absmax=torch.zeros(64))  # as bitsandbytes has them, which needs a GPU
    assert true_bytes(layer) == 2048 + 64 * 4
