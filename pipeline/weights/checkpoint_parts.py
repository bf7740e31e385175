"""Assigns the tensors of a full checkpoint to components."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.weights.denoiser_detection import prefix_of
from pipeline.weights.headers.base import TensorInfo

_ENCODERS = {
    "cond_stage_model": "text_encoder",
    "conditioner.embedders.0": "text_encoder",
    "conditioner.embedders.1": "text_encoder_2",
    "text_encoders.clip_l": "text_encoder",
    "text_encoders.clip_g": "text_encoder_2",
}
_VAE = ("first_stage_model.", "vae.")

CLASSES = {
    "sd15": {"text_encoder": "CLIPTextModel", "vae": "AutoencoderKL"},
    "sdxl": {
        "text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection", "vae": "AutoencoderKL",
    },
    "sd3": {
        "text_encoder": "CLIPTextModelWithProjection", "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel", "vae": "AutoencoderKL",
    },
    "flux": {"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel", "vae": "AutoencoderKL"},
    "chroma": {"text_encoder": "T5EncoderModel", "vae": "AutoencoderKL"},
}  # fmt: skip
"""Classes of the components that full checkpoints of these families hold beside the denoiser."""

_T5 = {"sd3": "text_encoder_3", "flux": "text_encoder_2"}
"""Where the pipelines keep T5."""


def split(tensors: Mapping[str, TensorInfo], family: str, denoiser: str) -> dict[str, dict[str, TensorInfo]]:
    """Tensors by component name, `denoiser` first. Tensors of no component, such as training averages, are left out."""
    prefix = prefix_of(tensors)
    if not prefix:
        return {denoiser: dict(tensors)}
    parts: dict[str, dict[str, TensorInfo]] = {denoiser: {}}
    for name, tensor in tensors.items():
        component = denoiser if name.startswith(prefix) else _component(name, family)
        if component:
            parts.setdefault(component, {})[name] = tensor
    return parts


def _component(name: str, family: str) -> str | None:
    if name.startswith(_VAE):
        return "vae"
    for start, component in _ENCODERS.items():
        if name.startswith(f"{start}."):
            return component
    if name.startswith("text_encoders.t5xxl."):
        return _T5.get(family, "text_encoder")
    return "text_encoder" if name.startswith("text_encoders.") else None
