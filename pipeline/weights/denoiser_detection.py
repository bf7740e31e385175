"""Detects which model a denoiser is from the names and shapes of its tensors.

What fits no entry of `denoiser_signatures` is refused by name; nothing is ever guessed to be SD 1.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from pipeline.weights.denoiser_signatures import OTHERS, SIGNATURES, Signature
from pipeline.weights.headers.base import width_of

_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""What full checkpoints, and denoisers that ComfyUI saved, put before the denoiser's tensor names."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A recognised denoiser. `family` is None for one that is known but not supported; `label` names both.

    `guidance_embedded`: the guidance scale is an input of the model; None where the family has no such thing.
    """

    family: str | None
    label: str
    layout: Literal["original", "diffusers"]
    prefix: str
    blocks: int | None = None
    attention_width: int | None = None
    guidance_embedded: bool | None = None
    notes: tuple[str, ...] = ()


def prefix_of(names: Collection[str]) -> str:
    """What stands before the names of a denoiser's tensors in a file; "" where they are bare."""
    return next((p for p in _PREFIXES if any(name.startswith(p) for name in names)), "")


def detect(shapes: Shapes) -> list[Denoiser]:
    """Every known denoiser whose keys are among the given ones: one for a valid file, none for an unknown one.

    `shapes` holds tensor names as they stand in the file, and shapes in torch's order.
    """
    prefix = prefix_of(shapes)
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    found = [
        _refined(signature, bare, prefix)
        for signature in SIGNATURES
        if all(key in bare for key in signature.needs) and not any(key in bare for key in signature.lacks)
    ]
    for label, keys in OTHERS:
        # The markers of some stand outside the denoiser, as those of Playground do.
        if any(key in bare or key in shapes for key in keys):
            return [Denoiser(None, label, "original", prefix)]
    return found


def prediction_markers(names: Collection[str], metadata: Mapping[str, str]) -> tuple[str | None, bool]:
    """A file's own marks: `v_prediction`, `epsilon` or None, and whether it was trained to zero terminal SNR.

    `v_pred` and `ztsnr` are empty tensors that trainers leave for ComfyUI; `modelspec.*` and `ss_*` are remarks.
    """
    remark = (metadata.get("modelspec.prediction_type") or metadata.get("modelspec.predict_key") or "").lower()
    spoken = {"v": "v_prediction", "v_prediction": "v_prediction", "v-prediction": "v_prediction", "epsilon": "epsilon"}
    prediction = spoken.get(remark)
    if metadata.get("ss_v_parameterization", "").lower() == "true" or "v_pred" in names:
        prediction = "v_prediction"
    return prediction, "ztsnr" in names or metadata.get("ss_zero_terminal_snr", "").lower() == "true"


def sample_of(names: Collection[str]) -> str:
    """A few tensor names, for an error message about unknown keys."""
    shown = [name[:60] for name in list(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _refined(signature: Signature, bare: Shapes, prefix: str) -> Denoiser:
    numbers = {int(n) for n in (_number_after(signature.blocks, name) for name in bare) if n is not None}
    blocks = max(numbers) + 1 if numbers else None
    width = width_of(bare.get(signature.width))
    known = Denoiser(signature.family, signature.label, signature.layout, prefix, blocks, width)
    match signature.family:
        case "sd15":
            return _unet(known, bare)
        case "sd3":
            return _sd3(known, bare)
        case "flux" | "flux2_klein":
            return _flux(known, bare)
        case "pixart_sigma" if not _predicts_variance(bare):
            return _other(known, "a transformer of no published kind (its output is not that of PixArt)")
        case _:
            return known


def _number_after(blocks: str, name: str) -> str | None:
    match = re.match(rf"{blocks}\.(\d+)\.", name)
    return match[1] if match else None


def _unet(known: Denoiser, bare: Shapes) -> Denoiser:
    """SD 1.x, 2.x and XL share their names; the width of the cross attention and the size conditioning tell them apart.

    Smaller widths than the published ones are taken for a small model of the same structure.
    """
    inputs = width_of(bare.get("input_blocks.0.0.weight") or bare.get("conv_in.weight")) or 0
    sizes = bare.get("label_emb.0.0.weight") or bare.get("add_embedding.linear_1.weight")
    sized = width_of(sizes)
    width = known.attention_width or 0
    named = {9: "inpainting", 8: "InstructPix2Pix", 5: "depth", 7: "upscaling"}
    xl = sized is not None and width <= 2048 and sized <= 2816
    label = "Stable Diffusion XL" if xl else "Stable Diffusion 2.x" if width == 1024 else "Stable Diffusion 1.x"
    if inputs != 4:
        return _other(known, f"{label}, made for {named.get(inputs, f'{inputs} input channels')}")
    if (width, sized) == (1280, 2560):
        return _other(known, "the refiner of Stable Diffusion XL")
    if xl:
        return replace(known, family="sdxl", label=label)
    if sizes is not None or width not in (*range(769), 1024) or "label_emb.weight" in bare:
        return _other(known, f"a Stable Diffusion UNet of no published kind (cross attention {width} wide)")
    notes: tuple[str, ...] = ()
    if width == 1024:
        notes = (
            "Stable Diffusion 2.x is made with epsilon (512) or v-prediction (768), which its weights do not tell: "
            "set model.prediction_type",
        )
    return replace(known, label=label, notes=notes)


def _sd3(known: Denoiser, bare: Shapes) -> Denoiser:
    attends_twice = any(".attn2." in name for name in bare)
    published = {(24, False): "Stable Diffusion 3 medium", (24, True): "Stable Diffusion 3.5 medium"}
    label = "Stable Diffusion 3.5 large" if known.blocks == 38 else published.get((known.blocks or 0, attends_twice))
    return replace(known, label=label or known.label)


def _flux(known: Denoiser, bare: Shapes) -> Denoiser:
    guided = any("guidance_in." in name or "guidance_embedder." in name for name in bare)
    inputs = width_of(bare.get("img_in.weight") or bare.get("x_embedder.weight"))
    label = known.label
    if known.family == "flux2_klein":
        if guided:
            return _other(known, "FLUX.2 dev")
        label = {3072: "FLUX.2 klein 4B", 4096: "FLUX.2 klein 9B"}.get(known.attention_width or 0, label)
        return replace(known, label=label)
    if inputs in (384, 128):
        return _other(known, "FLUX.1 Fill" if inputs == 384 else "FLUX.1 Depth or Canny")
    label = "FLUX.1 dev" if guided else "FLUX.1 schnell"
    return replace(known, label=label, guidance_embedded=guided)


def _predicts_variance(bare: Shapes) -> bool:
    """Whether a patch that goes out has twice the numbers of one that came in, as PixArt's have."""
    patch = bare.get("pos_embed.proj.weight") or bare.get("x_embedder.proj.weight") or (0,)
    out = bare.get("proj_out.weight") or bare.get("final_layer.linear.weight") or (0,)
    return out[0] == 2 * prod(patch[1:])


def _other(known: Denoiser, label: str) -> Denoiser:
    return replace(known, family=None, label=label)
