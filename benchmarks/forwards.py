"""Our generation of 64 demo images against the forwards that it cannot do without: denoiser and VAE, nothing else.

`python -m benchmarks.forwards BATCH IMAGES STEPS` times those alone, in inference mode, with the weights, shapes and
guidance of the run: per step the denoiser on 2 x BATCH latents, then the VAE on BATCH. What a run takes beyond that is
encoding, scheduling, saving behind the next batch, and ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.composing import prompt_file
from benchmarks.measuring import ROOT, Row, Scale, answer, in_child, our_run, ratio_of_pairs

IMAGES = 64
STEPS = 20
ROUNDS, LONG_ROUNDS = 3, 5
MOST = {32: 1.08, 8: 1.15}


def measure(scale: Scale) -> Iterator[Row]:
    """A ratio for each size of batch."""
    folder = scale.new_folder("forwards")
    images = max(32, scale.of(IMAGES))
    given = prompt_file(folder / "prompts.txt", images)
    for batch, most in MOST.items():
        ours, raw = [], []
        for number in range(scale.rounds(ROUNDS, LONG_ROUNDS)):
            place = folder / f"{batch}-{number}"
            found = our_run(*given, f"batch_size={batch}", f"sampling.steps={STEPS}", f"output.dir={place}")
            ours.append(found["generate_s"])
            raw.append(in_child("forwards", batch, images, STEPS)["seconds"])
        yield Row(
            f"forwards.{batch}",
            f"{images} demo images in batches of {batch}, generation against the raw forwards of denoiser and VAE",
            ratio_of_pairs(ours, raw),
            "x",
            most,
            f"{median(ours):.2f} s against {median(raw):.2f} s",
        )


def forwards(batch: int, images: int, steps: int, model: Path = ROOT / "pipeline" / "demo") -> float:
    """Seconds of the forwards; the first of each kind, which is slower, is not counted, as a run's load is not."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        model, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    side = pipe.unet.config.sample_size
    latents = torch.randn(batch, pipe.unet.config.in_channels, side, side)
    twice, text = torch.cat([latents] * 2), torch.randn(2 * batch, 77, pipe.unet.config.cross_attention_dim)
    text = text[:, : pipe.tokenizer.model_max_length]
    timesteps = torch.linspace(999, 0, steps).long()
    with torch.inference_mode():
        pipe.unet(twice, timesteps[0], encoder_hidden_states=text)
        pipe.vae.decode(latents)
        started = time.perf_counter()
        for _ in range(images // batch):
            for timestep in timesteps:
                pipe.unet(twice, timestep, encoder_hidden_states=text)
            pipe.vae.decode(latents)
        return time.perf_counter() - started


if __name__ == "__main__":
    batch, images, steps = map(int, sys.argv[1:])
    answer(seconds=forwards(batch, images, steps))
