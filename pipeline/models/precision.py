"""In which type each component is held: the model's, but for the few that overflow in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.request import DType

OVERFLOWS_IN_FLOAT16: dict[str, str] = {
    "T5EncoderModel": "its feed-forward layers leave float16's range, which spoils FLUX.1 and SD 3.5 prompts",
    "UMT5EncoderModel": "as T5",
    "Gemma2Model": "trained in bfloat16; its activations leave float16's range, Sana then paints black",
    "AutoencoderDC": "trained in bfloat16; decodes to NaN in float16",
}
"""Classes that are held as bfloat16 where float16 is asked for (diffusers' pages on FLUX.1 and Sana), and why."""


def component_dtype(class_name: str, pipeline_class: str, config: Mapping[str, Any], dtype: DType) -> DType:
    """The type to hold a component in; `config` is its config.json. Only float16 has exceptions.

    SDXL's own VAE overflows in float16: its config says `force_upcast`, on which diffusers casts it up for every
    decode. Loaded as float32 it keeps the digits that the detour loses, and nothing is cast back and forth. Repaired
    VAEs say `force_upcast: false` and stay.
    """
    if dtype != "float16":
        return dtype
    if class_name in OVERFLOWS_IN_FLOAT16:
        return "bfloat16"
    if (
        class_name == "AutoencoderKL"
        and pipeline_class.startswith("StableDiffusionXL")
        and config.get("force_upcast", True)
    ):
        return "float32"
    return dtype
