"""The dtype of a model on a device, and of the few components that overflow in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.request import DType, DTypeChoice
from pipeline.system.device import Device
from pipeline.weights.families import FAMILIES
from pipeline.weights.model_files import Component

OVERFLOWS_IN_FLOAT16: dict[str, str] = {
    "T5EncoderModel": "its feed-forward layers leave float16's range, which spoils FLUX.1 and SD 3.5 prompts",
    "UMT5EncoderModel": "as T5",
    "Gemma2Model": "trained in bfloat16; its activations leave float16's range, Sana then paints black",
    "AutoencoderDC": "trained in bfloat16; decodes to NaN in float16",
}
"""Classes with another dtype where float16 is requested (diffusers' pages on FLUX.1 and Sana), and why.

Text encoders as bfloat16, whose products every card can compute if need be; `AutoencoderDC` as float32, since cuDNN has
no convolutions in bfloat16 on the very cards that float16 is for.
"""


_UNSCALED = "torchao int8"
"""The stored quantisation that leaves float16's range: torchao multiplies with the whole numbers, and scales then."""


def model_dtype(asked: DTypeChoice, device: Device, family: str | None, components: Iterable[Component] = ()) -> DType:
    """The dtype for a model of this family; for an unknown family (None) the one that suits the device.

    Where that is float16 and the family, or how one of the model's `components` is stored, leaves its range: float32 on
    cards without bfloat16, bfloat16 on Apple. Raises `ConfigError` for float16 asked for by name.
    """
    dtype = device.dtype if asked == "auto" else asked
    why = _leaves_float16(family, components) if dtype == "float16" else None
    if why is None:
        return dtype
    if asked == "float16":
        raise ConfigError(
            f"memory.dtype: {why} leaves float16's range and would come out black; take bfloat16 or float32, "
            "or leave it at auto"
        )
    return "bfloat16" if device.kind == "mps" else "float32"


def _leaves_float16(family: str | None, components: Iterable[Component]) -> str | None:
    """What of a model cannot be computed in float16, None if nothing; components with another dtype do not count."""
    known = FAMILIES.get(family) if family else None
    if known is not None and not known.float16:
        return known.label
    unscaled = (one for one in components if one.quantization == _UNSCALED)
    found = next((one for one in unscaled if one.class_name not in OVERFLOWS_IN_FLOAT16), None)
    return None if found is None else f"{found.name}, stored as {found.quantization},"


def component_dtype(class_name: str, pipeline_class: str, config: Mapping[str, Any], dtype: DType) -> DType:
    """The dtype for a component; `config` is its config.json. Only float16 has exceptions.

    SDXL's own VAE overflows in float16: its config says `force_upcast`, on which diffusers casts it up for every
    decode. Loaded as float32 it keeps the digits that the detour loses, and nothing is cast back and forth. Repaired
    VAEs say `force_upcast: false` and stay.
    """
    if dtype != "float16":
        return dtype
    if class_name in OVERFLOWS_IN_FLOAT16:
        return "float32" if class_name == "AutoencoderDC" else "bfloat16"
    if (
        class_name == "AutoencoderKL"
        and pipeline_class.startswith("StableDiffusionXL")
        and config.get("force_upcast", True)
    ):
        return "float32"
    return dtype
