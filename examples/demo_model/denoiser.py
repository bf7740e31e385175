"""Stage two of training: the denoiser, together with the text encoder that steers it.

The denoiser sees latents (n, 4, 8, 8) under noise, a timestep and a prompt's features (n, 32, 96), and
predicts the velocity (Salimans and Ho, 2022, "Progressive distillation"): at such sizes it learns the
colour of a whole sky faster than noise prediction does. The loss is weighted by the signal-to-noise ratio,
capped at 5 (Hang et al., 2023, "Min-SNR"). What is kept is a running average of the weights.
"""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from examples.demo_model.captions import caption
from examples.demo_model.scenes import Scene
from examples.demo_model.text_encoder import FEATURES, make_text_encoder, teach_words, tokenize
from examples.demo_model.training_clock import Clock

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import CLIPTokenizer

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
EMPTY_SHARE = 0.1
"""Share of captions left empty, which is what guidance compares with."""
SNR_CAP = 5.0
AVERAGE_DECAY = 0.999
NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
}
"""The linear schedule ends in all but pure noise, so that no trace of a sky's colour is left to rely on."""


def make_denoiser() -> Any:
    """Return an untrained U-Net of 6.6 million parameters over latents of 8 x 8; it reads the prompt at 4 x
    4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(96, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=FEATURES,
        attention_head_dim=4,  # this is the number of heads: diffusers keeps the old, misleading name
        norm_num_groups=16,
    )


def train_denoiser(
    latents: Tensor,
    scenes: list[Scene],
    tokenizer: CLIPTokenizer,
    minutes: float,
    folder: Path,
    resume: bool = False,
    seed: int = 0,
) -> tuple[Any, Any, dict[str, float]]:
    """Train on `latents` (n, 4, 8, 8) of `scenes`; return the averaged models and the figures.

    A checkpoint goes to `folder/denoiser.pt` every two minutes; `resume` goes on from it.
    """
    import torch
    from diffusers import DDPMScheduler

    torch.manual_seed(seed)
    denoiser, text_encoder = make_denoiser(), make_text_encoder(tokenizer)
    models = torch.nn.ModuleDict({"denoiser": denoiser, "text_encoder": text_encoder})
    optimizer = torch.optim.AdamW(models.parameters(), lr=LEARNING_RATE, weight_decay=1e-2, betas=(0.9, 0.99))
    average = copy.deepcopy(models)
    parts = {"models": models, "average": average, "optimizer": optimizer}
    clock = Clock(folder / "denoiser.pt", minutes, parts)
    if resume:
        clock.resume()
    if clock.steps == 0:
        understood = teach_words(text_encoder, tokenizer)
        print(f"text encoder: {understood:.1%} of attributes understood", flush=True)
        average.load_state_dict(models.state_dict())
    noise_schedule: Any = DDPMScheduler(**NOISE_SCHEDULE)  # type: ignore[no-untyped-call]
    ratios = noise_schedule.alphas_cumprod / (1 - noise_schedule.alphas_cumprod)
    weights = ratios.clamp(max=SNR_CAP) / (ratios + 1)
    rng = Random(seed + clock.steps)
    torch.manual_seed(seed + clock.steps)
    while clock.running():
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * clock.rate()
        chosen = [rng.randrange(len(scenes)) for _ in range(BATCH_SIZE)]
        words = ["" if rng.random() < EMPTY_SHARE else caption(scenes[index], rng) for index in chosen]
        clean = latents[chosen]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (BATCH_SIZE,))
        noisy = noise_schedule.add_noise(clean, noise, timesteps)
        velocity = noise_schedule.get_velocity(clean, noise, timesteps)
        features = text_encoder(tokenize(tokenizer, words)).last_hidden_state
        predicted = denoiser(noisy, timesteps, features).sample
        errors = (predicted - velocity).square().mean((1, 2, 3))
        loss = (errors * weights[timesteps]).mean() / weights.mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        follow(average, models, min(AVERAGE_DECAY, (clock.steps + 1) / (clock.steps + 10)))
        clock.step("denoiser loss", loss.item())
    clock.save()
    average.eval()
    figures = {"steps": clock.steps, "minutes": clock.elapsed_s / 60, "loss": clock.mean_error}
    return average["denoiser"], average["text_encoder"], figures


def follow(average: Module, models: Module, decay: float) -> None:
    """Move the weights of `average` towards those of `models`."""
    import torch

    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - decay)
