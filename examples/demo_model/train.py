"""Makes the demo model from nothing: draws the data, trains both stages, saves, measures, writes the card.

    python -m examples.demo_model.train --minutes 75                     # from nothing, into pipeline/demo
    python -m examples.demo_model.train --minutes 75 --resume            # go on after an interruption
    python -m examples.demo_model.train --minutes 5 --out /tmp/postcards # a rough one, elsewhere

Checkpoints go to `outputs/demo-training/` (`--work`), which git ignores; what a finished stage left there
is used again with `--resume`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.demo_model.captions import training_scene, wordings
from examples.demo_model.postcards import draw
from examples.demo_model.words import save_tokenizer
from pipeline.weights.references import EMBEDDED

if TYPE_CHECKING:
    from torch import Tensor

POSTCARDS = 24_000
AUTOENCODER_SHARE = 0.47
"""Share of the minutes that the autoencoder gets; the denoiser gets the rest."""


def train(minutes: float, out: Path, work: Path, resume: bool, seed: int, postcards: int = POSTCARDS) -> dict[str, Any]:
    """Train both stages and save the model to `out`; return the figures for the card."""
    import torch

    from examples.demo_model.autoencoder import encode, train_autoencoder
    from examples.demo_model.denoiser import train_denoiser

    rng = Random(seed)
    scenes = [training_scene(rng) for _ in range(postcards)]
    images = np.stack([np.asarray(draw(scene, rng)) for scene in scenes])
    print(f"{len(images)} postcards drawn", flush=True)
    autoencoder, first = train_autoencoder(images, minutes * AUTOENCODER_SHARE, work, resume, seed)
    latents = encode(autoencoder, images)
    factor = scaling_factor(latents)
    autoencoder.register_to_config(scaling_factor=factor)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
        second_minutes = minutes * (1 - AUTOENCODER_SHARE)
        denoiser, text_encoder, second = train_denoiser(
            latents * factor, scenes, tokenizer, second_minutes, work, resume, seed
        )
    save(autoencoder, text_encoder, tokenizer, denoiser, out)
    models: dict[str, Any] = {
        "autoencoder": autoencoder,
        "denoiser": denoiser,
        "text encoder": text_encoder,
    }
    counts = {name: sum(weights.numel() for weights in model.parameters()) for name, model in models.items()}
    return {
        "postcards": postcards,
        "seed": seed,
        "minutes": minutes,
        "threads": torch.get_num_threads(),
        "autoencoder": first,
        "denoiser": second,
        "parameters": counts,
    }


def scaling_factor(latents: Tensor) -> float:
    """Return the factor that gives `latents` unit spread."""
    return round(1 / latents.std().item(), 4)


def make_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of all captions, as it reads back from `folder`."""
    from transformers import CLIPTokenizer

    save_tokenizer(wordings(), folder)
    return CLIPTokenizer.from_pretrained(folder)


def save(autoencoder: Any, text_encoder: Any, tokenizer: Any, denoiser: Any, out: Path) -> None:
    """Write the five parts to `out` in the diffusers layout.

    The denoiser, four fifths of the size, goes to disk as float16 and is read back as float32. The others
    stay float32: transformers keeps the type that it finds, and two types would not go together.
    """
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from examples.demo_model.denoiser import NOISE_SCHEDULE

    scheduler = DDIMScheduler(  # type: ignore[no-untyped-call]
        **NOISE_SCHEDULE, clip_sample=False, steps_offset=1, timestep_spacing="trailing"
    )
    pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=autoencoder.float(),
        text_encoder=text_encoder.float(),
        tokenizer=tokenizer,
        unet=denoiser.to(torch.float16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    tokenizer.backend_tokenizer.model.save(str(out / "tokenizer"))  # CLIP's vocab.json and merges.txt
    for path in out.rglob("*"):
        if path.suffix in (".json", ".safetensors"):
            path.chmod(0o644)  # safetensors writes files for their owner alone


def main() -> None:
    """Train, save, measure and write the card, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=75, help="training time in all (default 75)")
    parser.add_argument("--out", type=Path, default=EMBEDDED["demo"], help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path("outputs/demo-training"), help="folder for checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postcards", type=int, default=POSTCARDS, help="how many to draw")
    args = parser.parse_args()

    from examples.demo_model.card import write_card
    from examples.demo_model.measure import load, measure, seconds_per_picture

    figures: dict[str, Any] = {"resumed": args.resume}
    figures |= train(args.minutes, args.out, args.work, args.resume, args.seed, args.postcards)
    pipeline = load(args.out)
    figures["accuracy"], images = measure(pipeline)
    figures["accuracy_count"] = len(images)
    figures["seconds"] = {size: seconds_per_picture(pipeline, size) for size in (1, 8)}
    write_card(args.out / "README.md", figures)
    print(figures["accuracy"])


if __name__ == "__main__":
    main()
