"""The type that a model is computed in, by its family and the device."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.loading.precision import model_dtype
from pipeline.request import DType
from pipeline.system.device import Device
from pipeline.weights.families import FAMILIES

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
