"""Writes the demo model's card, `README.md`, from the figures of a training run."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from examples.demo_model.captions import HELD_OUT_SHARE, held_out_scenes
from examples.demo_model.measure import GUIDANCE_SCALE, STEPS, TARGETS
from examples.demo_model.scenes import COLOURS, OBJECTS, PLACES, SIZE, TIMES

TITLES = {
    "time": "time of day",
    "place": "place",
    "side": "side of the sun or moon",
    "colour": "colour of the object",
}

SITTINGS = {
    False: "It ran in one go.",
    True: "It ran in several sittings, with `--resume`.",
}

CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# Darkroom's demo model: postcards

A small latent diffusion model, trained from nothing on drawn pictures, so that Darkroom runs end to end
on any machine without a download. It paints {size} x {size} postcards, in the diffusers folder layout:

    from diffusers import StableDiffusionPipeline
    pipeline = StableDiffusionPipeline.from_pretrained("pipeline/demo")
    image = pipeline("a red house in hills at sunset with a sun on the left",
                     num_inference_steps={steps}, guidance_scale={guidance}).images[0]

Licence: Apache-2.0, for the weights and the code that made them.

## What it understands

| part | words |
| --- | --- |
| place | {places} |
| time | {times} |
| sun, at night moon | `with a sun on the left`, `with a moon on the right`, or none |
| object | {objects}, or none |
| colour of the object | {colours} |

Other orders, commas, `a postcard of`, some synonyms (`dusk`, `sunrise`, `ocean`, `woods`) and parts left
out were in training too. Any other word is spelt in pieces, which the model has never seen and mostly
ignores. Prompts are cut after 30 tokens.

Defaults: {steps} steps, guidance {guidance}, DDIM (trailing), {size} x {size}. Prediction type: velocity.

## Data

{postcards} postcards drawn by `postcards.py` (seed {seed}), with captions from `captions.py` chosen anew
at each step: four in ten the canonical one, the rest in other words. Of the 1,500 scenes that there are,
{held_out} ({share:.0%}, by hash) are held out of both stages. No picture, caption or weight comes from anywhere
else.

## Parts and training

| part | class | parameters |
| --- | --- | --- |
| autoencoder | `AutoencoderTiny`, 3 x {size} x {size} to 4 x 8 x 8 | {autoencoder_size:.2f} M |
| denoiser | `UNet2DConditionModel`, channels 96 and 160, attention at 4 x 4 | {denoiser_size:.2f} M |
| text encoder | `CLIPTextModel`, 2 layers of 96, 32 tokens | {text_size:.2f} M |

| stage | steps | batch | minutes | at the end |
| --- | --- | --- | --- | --- |
| autoencoder | {first_steps} | 16 | {first_minutes:.0f} | L1 {l1:.4f} (values -1..1) |
| denoiser, text encoder | {second_steps} | 64 | {second_minutes:.0f} | loss {loss:.4f} (velocity, min-SNR) |

Hardware: {hardware}, {threads} threads, no GPU, shared with other work.
Software: {software}.
The command:

    python -m examples.demo_model.train --minutes {minutes:g}

{sittings}

## Accuracy

Over {count} canonical captions of held-out scenes, seeds 0 to {last}, at the defaults above. `check.py`
judges by colour histograms and regions of the pixels alone; on drawn postcards it is right in all cases
that the tests try.

| what | wanted | found |
| --- | --- | --- |
{accuracy}

Measured again by `python -m examples.demo_model.measure`. A picture takes {alone:.2f} s alone and
{batched:.2f} s in a batch of 8 on the same hardware.

## Limits

- One size: other sizes than {size} x {size} run, but land and sky repeat or bend.
- One object at most, near the middle; what is not in the table above is ignored, and so are negations.
- Objects have slightly soft edges: the autoencoder keeps one number in 48.
- A moon shines at night and a sun otherwise, whatever the prompt says.
- It is an example and a test object: it knows no people, no styles and no other subjects.
"""


def write_card(path: Path, figures: dict[str, Any]) -> None:
    """Write the card to `path`; `figures` come from `train.py`."""
    first, second, sizes = figures["autoencoder"], figures["denoiser"], figures["parameters"]
    count = figures["accuracy_count"]
    rows = [f"| {title} | {TARGETS[name]:.0%} | {figures['accuracy'][name]:.1%} |" for name, title in TITLES.items()]
    card = CARD.format(
        size=SIZE,
        steps=STEPS,
        guidance=GUIDANCE_SCALE,
        places=", ".join(PLACES),
        times=", ".join(TIMES),
        objects=", ".join(OBJECTS),
        colours=", ".join(COLOURS),
        postcards=f"{figures['postcards']:,}",
        seed=figures["seed"],
        held_out=len(held_out_scenes(10_000)),
        share=HELD_OUT_SHARE,
        autoencoder_size=sizes["autoencoder"] / 1e6,
        denoiser_size=sizes["denoiser"] / 1e6,
        text_size=sizes["text encoder"] / 1e6,
        first_steps=f"{first['steps']:,}",
        first_minutes=first["minutes"],
        l1=first["l1"],
        second_steps=f"{second['steps']:,}",
        second_minutes=second["minutes"],
        loss=second["loss"],
        hardware=f"{platform.machine()} processor",
        threads=figures["threads"],
        software=software(),
        minutes=figures["minutes"],
        sittings=SITTINGS[figures["resumed"]],
        count=count,
        last=count - 1,
        accuracy="\n".join(rows),
        alone=figures["seconds"][1],
        batched=figures["seconds"][8],
    )
    path.write_text(card, encoding="utf-8")


def software() -> str:
    """Return the versions that matter, in words."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
