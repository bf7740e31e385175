"""Measures the demo model: what its pictures show of what was asked for, and how long they take.

python -m examples.demo_model.measure [--count 200] [--steps 20] [--guidance 3] [--grid FILE.png]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from examples.demo_model.captions import canonical, held_out_scenes
from examples.demo_model.check import accuracy
from examples.demo_model.scenes import SIZE
from pipeline.weights.references import EMBEDDED

STEPS = 20
GUIDANCE_SCALE = 2.0
"""The model's defaults. From 1.5 to 4 all figures are alike; above, colours begin to run."""
TARGETS = {"time": 0.95, "place": 0.85, "side": 0.85, "colour": 0.80}
"""The shares that the model was made to reach."""


def load(folder: Path) -> Any:
    """Return the `StableDiffusionPipeline` in `folder`, in float32 and without a progress bar."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        folder, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(
    pipeline: Any,
    prompts: Sequence[str],
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    first_seed: int = 0,
    batch_size: int = 20,
) -> list[Image.Image]:
    """Return one picture per prompt; the seeds count up from `first_seed`."""
    import torch

    images: list[Image.Image] = []
    for at in range(0, len(prompts), batch_size):
        batch = list(prompts[at : at + batch_size])
        generators = [torch.Generator("cpu").manual_seed(first_seed + at + i) for i in range(len(batch))]
        images += pipeline(batch, num_inference_steps=steps, guidance_scale=guidance_scale, generator=generators).images
    return images


def measure(
    pipeline: Any, count: int = 200, steps: int = STEPS, guidance_scale: float = GUIDANCE_SCALE
) -> tuple[dict[str, float], list[Image.Image]]:
    """Return the accuracies over `count` held-out captions, and the pictures."""
    scenes = held_out_scenes(count)
    images = paint(pipeline, [canonical(scene) for scene in scenes], steps, guidance_scale)
    return accuracy(scenes, images), images


def seconds_per_picture(pipeline: Any, batch_size: int, rounds: int = 3) -> float:
    """Return the wall time of a picture at default steps, in batches of `batch_size`."""
    prompts = [canonical(scene) for scene in held_out_scenes(batch_size)]
    paint(pipeline, prompts, batch_size=batch_size)
    began = time.perf_counter()
    for _ in range(rounds):
        paint(pipeline, prompts, batch_size=batch_size)
    return (time.perf_counter() - began) / rounds / batch_size


def grid(images: Sequence[Image.Image], columns: int = 10) -> Image.Image:
    """Return `images` side by side."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * SIZE, index // columns * SIZE))
    return sheet


def main() -> None:
    """Print the figures of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EMBEDDED["demo"], help="model folder")
    parser.add_argument("--count", type=int, default=200, help="how many held-out captions")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE_SCALE)
    parser.add_argument("--grid", type=Path, help="save the pictures here, in one")
    args = parser.parse_args()
    pipeline = load(args.model)
    shares, images = measure(pipeline, args.count, args.steps, args.guidance)
    for name, share in shares.items():
        print(f"{name:8} {share:6.1%}  (wanted {TARGETS[name]:.0%})")
    alone, batched = (seconds_per_picture(pipeline, size) for size in (1, 8))
    print(f"{alone:.2f} s alone, {batched:.2f} s in a batch of 8")
    if args.grid:
        grid(images[:60]).save(args.grid)


if __name__ == "__main__":
    main()
