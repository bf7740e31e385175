"""The type that a model is computed in, by its family and the device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.api.pipeline import Pipeline
from pipeline.errors import ConfigError
from pipeline.loading.load import load
from pipeline.loading.precision import model_dtype
from pipeline.registry.model_settings import identify
from pipeline.request import DType, MemorySettings
from pipeline.system.device import Device
from pipeline.weights.families import FAMILIES
from pipeline.weights.model_files import Component

TURING, AMPERE = (Device("cuda", "a card", capability) for capability in ((7, 5), (8, 0)))
APPLE, CPU = Device("mps"), Device("cpu")


@pytest.mark.parametrize(
    ("family", "device", "dtype"),
    [
        ("sdxl", TURING, "float16"),
        ("flux", TURING, "float16"),
        ("flux", AMPERE, "bfloat16"),
        ("flux", APPLE, "float16"),
        *((name, TURING, "float32") for name in ("qwen_image", "z_image", "lumina2")),
        *((name, APPLE, "bfloat16") for name in ("qwen_image", "z_image", "lumina2")),
        *((name, AMPERE, "bfloat16") for name in ("qwen_image", "z_image", "lumina2")),
        ("qwen_image", CPU, "float32"),
        (None, TURING, "float16"),
    ],
)
def test_what_nobody_asks_for_suits_device_and_family(family: str | None, device: Device, dtype: DType) -> None:
    assert model_dtype("auto", device, family) == dtype


@pytest.mark.parametrize("device", [TURING, AMPERE, APPLE, CPU])
def test_float16_is_refused_where_pictures_would_be_black(device: Device) -> None:
    for name, family in FAMILIES.items():
        if family.float16:
            assert model_dtype("float16", device, name) == "float16"
            continue
        with pytest.raises(ConfigError, match=f"memory.dtype: {family.label} .*take bfloat16 or float32") as caught:
            model_dtype("float16", device, name)
        assert len(caught.value.faults) == 1 and model_dtype("bfloat16", device, name) == "bfloat16"


def stored(name: str, class_name: str, quantization: str | None) -> Component:
    return Component(name, class_name, 1, 1, "int8", (), quantization)


DENOISER = stored("transformer", "FluxTransformer2DModel", "torchao int8")
CLIP = stored("text_encoder", "CLIPTextModel", "torchao int8")


@pytest.mark.parametrize("family", ["flux", None])
@pytest.mark.parametrize("component", [DENOISER, CLIP])
def test_what_torchao_stored_as_int8_is_not_computed_in_float16(component: Component, family: str | None) -> None:
    parts = (stored("vae", "AutoencoderKL", None), component)
    found = {device: model_dtype("auto", device, family, parts) for device in (TURING, APPLE, AMPERE, CPU)}
    assert found == {TURING: "float32", APPLE: "bfloat16", AMPERE: "bfloat16", CPU: "float32"}
    with pytest.raises(ConfigError) as caught:
        model_dtype("float16", AMPERE, family, parts)
    assert str(caught.value) == (
        f"memory.dtype: {component.name}, stored as torchao int8, leaves float16's range and would come out black; "
        "take bfloat16 or float32, or leave it at auto"
    )


def test_other_stored_weights_and_what_is_held_as_bfloat16_anyway_leave_float16_alone() -> None:
    for part in (
        stored("transformer", "FluxTransformer2DModel", "torchao"),
        stored("transformer", "FluxTransformer2DModel", "bitsandbytes int8"),
        stored("transformer", "FluxTransformer2DModel", "Q8_0"),
        stored("text_encoder_2", "T5EncoderModel", "torchao int8"),
    ):
        assert model_dtype("auto", TURING, "flux", (part,)) == "float16"


def test_torchao_overflows_in_float16_and_in_float32_does_not() -> None:
    """With ordinary outputs of a layer as wide as FLUX.1's. If torchao has mended it, the rule may go."""
    quantization = pytest.importorskip("torchao.quantization")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(512, 3072, generator=generator) * 0.02
    x = torch.randn(16, 3072, generator=generator) * 16
    wanted = torch.nn.functional.linear(x, weight)
    assert 50 < wanted.abs().max() < 100
    for dtype, is_finite in ((torch.float16, False), (torch.float32, True)):
        layer = torch.nn.Sequential(torch.nn.Linear(3072, 512, bias=False))
        layer[0].weight = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
        quantization.quantize_(layer, quantization.Int8WeightOnlyConfig(version=2))
        with torch.inference_mode():
            assert layer(x.to(dtype)).isfinite().all().item() is is_finite


def test_a_pipeline_in_float16_of_what_torchao_stored_as_int8_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "stored"
    shutil.copytree(tiny("flux"), folder)
    config = folder / "transformer" / "config.json"
    said = {"quant_method": "torchao", "quant_type": "int8_weight_only"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": said}))
    with pytest.raises(ConfigError, match=r"memory\.dtype: transformer, stored as torchao int8"):
        Pipeline(str(folder), device="cpu", dtype="float16")


def test_a_model_that_torchao_stored_as_int8_makes_pictures_in_float32(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("torchao")
    import diffusers
    from torchao.quantization import Int8WeightOnlyConfig

    folder = tmp_path / "flux"
    shutil.copytree(tiny("flux"), folder)
    library: Any = diffusers
    stored_so = library.TorchAoConfig(Int8WeightOnlyConfig(version=2))
    small = library.FluxTransformer2DModel.from_pretrained(
        folder / "transformer", quantization_config=stored_so, dtype=torch.bfloat16
    )
    shutil.rmtree(folder / "transformer")
    small.save_pretrained(folder / "transformer")
    settings, files = identify(str(folder))
    dtype = model_dtype("auto", TURING, files.family, files.components)
    assert (files.quantization, dtype) == ("torchao int8", "float32")
    model = load(settings, MemorySettings(dtype=dtype), "cpu")
    options = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "pt"}
    picture = model.pipe(prompt="a house", generator=torch.Generator().manual_seed(0), **options).images
    assert picture.dtype == torch.float32 and picture.isfinite().all()
