"""What a careful user of diffusers would write instead: load once, no progress bar, inference mode, save PNGs.

    python -m benchmarks.plain_loop PROMPTS.txt FOLDER --batch 1    one call per prompt
    python -m benchmarks.plain_loop PROMPTS.txt FOLDER --batch 8    lists of eight, batched by hand

No record, no journal, no fsync, no resume. Same weights, scheduler, steps, guidance, size, seeds and format as the
batch it is compared with. The last line says how long generating and saving took, imports and load not counted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def generate(
    prompts: list[str], folder: Path, model: Path, batch: int, seed: int, steps: int, guidance: float
) -> float:
    """Make `00000.png` and so on; returns the seconds from the first call to the last saved picture."""
    import torch
    from diffusers import StableDiffusionPipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        model, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(prompts), batch):
            some = prompts[first : first + batch]
            images = pipe(
                some if batch > 1 else some[0],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator("cpu").manual_seed(seed) for _ in some],
            ).images
            for index, image in enumerate(images, first):
                image.save(folder / f"{index:05d}.png")
    return time.perf_counter() - started


def main() -> None:
    """Read the arguments, generate, say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent / "pipeline" / "demo")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    given = parser.parse_args()
    prompts = given.prompts.read_text(encoding="utf-8").splitlines()
    seconds = generate(prompts, given.folder, given.model, given.batch, given.seed, given.steps, given.guidance)
    print(json.dumps({"generate_s": seconds}))


if __name__ == "__main__":
    main()
