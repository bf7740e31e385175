"""Latents to pictures, and whether a picture is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def decodes_like_stable_diffusion(pipe: Any) -> bool:
    """Whether latents are (n, channels, h, w) scaled by the VAE's factor, as in SD 1.x, 2.x, SDXL, SD 3."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind = isinstance(getattr(pipe, "vae", None), AutoencoderKL | AutoencoderTiny)
    return kind and type(pipe).__name__.startswith("StableDiffusion")


def decode(pipe: Any, latents: Any) -> npt.NDArray[np.float32]:
    """Pictures as float32 (n, height, width, 3) in 0..1; NaN stays NaN."""
    import numpy as np
    import torch

    if not isinstance(latents, torch.Tensor):
        return np.asarray(latents, dtype=np.float32)
    vae = pipe.vae
    # SDXL's VAE overflows in float16 and says so in its configuration; the pipeline itself upcasts it likewise.
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    latents = latents.to(vae.dtype)
    mean, spread = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and spread is not None:
        shape = (1, latents.shape[1], 1, 1)
        latents = latents * latents.new_tensor(spread).view(shape) / vae.config.scaling_factor
        latents = latents + latents.new_tensor(mean).view(shape)
    else:
        latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
    pictures = vae.decode(latents, return_dict=False)[0]
    if upcast:
        vae.to(torch.float16)
    scaled: npt.NDArray[np.float32] = (pictures.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return scaled


def pixel_fault(picture: npt.NDArray[np.float32]) -> str | None:
    import numpy as np

    if not np.isfinite(picture).all():
        return "the model returned NaN; try memory.dtype=float32, or another scheduler or VAE"
    if float(picture.max()) < 1 / 255:
        return "the model returned an all-black picture; try memory.dtype=float32 or another scheduler"
    return None


def to_uint8(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    import numpy as np

    return (picture * 255).round().astype(np.uint8)
