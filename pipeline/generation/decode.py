"""Decodes a pipeline's final latents to pictures, and checks the pictures.

Pipelines unpack, scale and shift their latents each in its own way before the VAE sees them. So a call is left at the
point where it would decode, with what it would have decoded; what remains is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(slots=True)
class Undecoded:
    """Latents that a VAE is about to decode, in `dtype`, a row per image. `scaling` and `shift` were applied."""

    latents: torch.Tensor
    dtype: torch.dtype
    scaling: float
    shift: float
    vae_class: str

    def rows(self, start: int, stop: int) -> Undecoded:
        """The latents of some of the images."""
        return replace(self, latents=self.latents[start:stop])

    def to_host(self) -> None:
        """Move the latents to the host, if the device's memory is needed for something else.

        Waits for the device, on purpose: what goes wrong there does so while it is still known whose work it is.
        """
        self.latents = self.latents.cpu()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures on the host: uint8, (n, height, width, 3), RGB. `faults` say why one is no valid picture; None if it is.

    `flags`: which a safety checker flagged; None where there is no checker.
    """

    pixels: npt.NDArray[np.uint8]
    faults: list[str | None]
    flags: list[bool] | None


class _WouldDecode(BaseException):  # not an Exception: a pipeline may catch those around decoding
    def __init__(self, latents: torch.Tensor) -> None:
        super().__init__()
        self.latents = latents


@contextmanager
def stopped_before_decoding(pipe: Any, undecoded: list[Undecoded]) -> Iterator[None]:
    """Within this block a pipeline's call ends before decoding; the latents are then in `undecoded`.

    The list stays empty for a pipeline without a VAE: such a one returns its pictures.
    """
    vae = getattr(pipe, "vae", None)
    if vae is None:
        yield
        return

    def stop(latents: torch.Tensor, *_: Any, **__: Any) -> Any:
        raise _WouldDecode(latents)

    own, dtype = vars(vae).get("decode"), vae.dtype
    vae.decode = stop
    try:
        yield
    except _WouldDecode as would:
        scaling, shift = (getattr(vae.config, name, None) for name in ("scaling_factor", "shift_factor"))
        undecoded.append(Undecoded(would.latents, vae.dtype, scaling or 1.0, shift or 0.0, type(vae).__name__))
    finally:
        if own is None:
            del vae.decode
        else:
            vae.decode = own
        _cast(vae, dtype)  # some pipelines cast a float16 VAE, which would overflow, for the time of decoding


def decode(pipe: Any, undecoded: Undecoded, device: torch.device) -> Decoded:
    """Decode latents to pictures. A picture that the safety checker flagged is black, as the checker leaves it."""
    import torch

    vae, dtype = pipe.vae, undecoded.dtype
    flags: list[bool] | None = None
    with torch.inference_mode():
        latents = undecoded.latents.to(device)
        if type(vae).__name__ != undecoded.vae_class:  # another VAE has taken its place, with a scale of its own
            dtype = vae.dtype
            latents = (latents.float() - undecoded.shift) * undecoded.scaling
            latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
        before = vae.dtype
        _cast(vae, dtype)
        try:
            pictures = vae.decode(latents.to(dtype), return_dict=False)[0]
        finally:
            _cast(vae, before)
        if pictures.ndim == 5:  # a VAE for video: of one frame
            pictures = pictures[:, :, 0]
        if getattr(pipe, "safety_checker", None) is not None:
            pictures, flags = pipe.run_safety_checker(pictures, pictures.device, pictures.dtype)
        # In float32: pipelines scale in their own precision, which in bfloat16 leaves fewer than 256 levels.
        pictures = (pictures.float() / 2 + 0.5).clamp(0, 1)
        for index, flagged in enumerate(flags or ()):
            if flagged:
                pictures[index] = 0
        return developed(pictures.permute(0, 2, 3, 1), flags)


def _cast(vae: Any, dtype: torch.dtype) -> None:
    import torch

    if vae.dtype != dtype:
        with torch.inference_mode(False):  # what is cast stays ordinary weights
            vae.to(dtype)


def developed(pictures: torch.Tensor, flags: list[bool] | None = None) -> Decoded:
    """Pictures (n, height, width, 3) in 0..1, quantised to 256 levels, and whether each is valid.

    Done where the pictures are, so that a quarter of the bytes is brought to the host, and waited for once.
    """
    import torch

    extremes = torch.stack((pictures.amin(dim=(1, 2, 3)), pictures.amax(dim=(1, 2, 3))))
    pixels = (pictures * 255).round_().to(torch.uint8).contiguous().cpu().numpy()
    return Decoded(pixels, [_fault(darkest, brightest) for darkest, brightest in extremes.T.tolist()], flags)


def _fault(darkest: float, brightest: float) -> str | None:
    if not (math.isfinite(darkest) and math.isfinite(brightest)):  # NaN in a picture is the NaN of both
        return "the model returned NaN; try memory.dtype=float32, or another scheduler or VAE"
    if brightest < 1 / 255:
        return "the model returned an all-black picture; try memory.dtype=float32 or another scheduler"
    return None
