"""Stage one of training: the autoencoder that turns postcards into latents and back.

A postcard (3, 64, 64) with values in -1..1 becomes latents (4, 8, 8) whose channels have about zero mean
and unit spread, as the denoiser's noise has. The class is diffusers' `AutoencoderTiny`, which is the one
that trains in minutes on a processor (an `AutoencoderKL` of like size needs four times as long per step).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from examples.demo_model.training_clock import Clock

if TYPE_CHECKING:
    from torch import Tensor

BATCH_SIZE = 16
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.1
"""Spread of the noise added to latents in training, so that the decoder forgives a denoiser."""
EDGE_WEIGHT = 6.0
"""How much more a pixel counts at a full step of brightness: outlines are few pixels among many."""


def make_autoencoder() -> Any:
    """Return an untrained autoencoder of 0.5 million parameters.

    The encoder has no block at full size and the decoder one: there they would cost most and learn least.
    """
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(  # type: ignore[no-untyped-call]
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(0, 2, 2, 2),
        num_decoder_blocks=(4, 3, 2, 1),
        latent_channels=4,
    )


def train_autoencoder(
    images: npt.NDArray[np.uint8], minutes: float, folder: Path, resume: bool = False, seed: int = 0
) -> tuple[Any, dict[str, float]]:
    """Train on `images` (n, 64, 64, 3) for so many minutes in all, and return the model and its figures.

    A checkpoint goes to `folder/autoencoder.pt` every two minutes; `resume` goes on from it.
    """
    import torch

    torch.manual_seed(seed)
    model = make_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    clock = Clock(folder / "autoencoder.pt", minutes, {"model": model, "optimizer": optimizer})
    if resume:
        clock.resume()
    chooser = np.random.default_rng(seed + clock.steps)
    while clock.running():
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * clock.rate()
        pixels = to_pixels(images[chooser.integers(len(images), size=BATCH_SIZE)])
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encoder(pixels)
            noisy = latents + LATENT_NOISE * torch.randn_like(latents)
            painted = model.decoder(noisy)
        loss, error = reconstruction_loss(painted.float(), pixels)
        loss = loss + 0.05 * spread_loss(latents.float())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        clock.step("autoencoder L1", error)
    clock.save()
    model.eval()
    return model, {"steps": clock.steps, "minutes": clock.elapsed_s / 60, "l1": clock.mean_error}


def reconstruction_loss(painted: Tensor, pixels: Tensor) -> tuple[Tensor, float]:
    """Return L1 + L2, weighted towards edges, and the plain L1; both images are (n, 3, 64, 64) in -1..1."""
    import torch

    across = (pixels[..., :, 1:] - pixels[..., :, :-1]).abs().amax(1, keepdim=True)
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().amax(1, keepdim=True)
    edges = torch.nn.functional.pad(across, (0, 1, 0, 0)) + torch.nn.functional.pad(down, (0, 0, 0, 1))
    edges = torch.nn.functional.max_pool2d(edges, 3, stride=1, padding=1)
    weight = 1 + EDGE_WEIGHT * edges.clamp(max=1.0)
    difference = painted - pixels
    both = difference.abs() + 2 * difference.square()
    return (both * weight).mean() / weight.mean(), difference.detach().abs().mean().item()


def spread_loss(latents: Tensor) -> Tensor:
    """Return how far the channels of `latents` (n, 4, 8, 8) are from zero mean and unit spread."""
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return mean.square().mean() + (spread - 1).square().mean()


def to_pixels(images: npt.NDArray[np.uint8]) -> Tensor:
    """Return images (n, h, w, 3) of bytes as a channels-last tensor (n, 3, h, w) in -1..1."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def encode(model: Any, images: npt.NDArray[np.uint8], batch_size: int = 64) -> Tensor:
    """Return the latents (n, 4, 8, 8) of `images` (n, 64, 64, 3)."""
    import torch

    with torch.no_grad():
        parts = [model.encoder(to_pixels(images[at : at + batch_size])) for at in range(0, len(images), batch_size)]
    return torch.cat(parts).contiguous()
