"""Predicts how long a picture takes under a memory plan: computing, copying, and how far they overlap.

Weights that pass through the device in every step are copied while it computes. So a step takes the longer of the two,
and a little for each getting into the other's way. What is moved once for a bundle counts as its pictures' share.
"""

from __future__ import annotations

from pipeline.memory.planning.estimate import Estimate, Shape
from pipeline.memory.planning.rates import Rates
from pipeline.memory.planning.sizes import Sizes
from pipeline.memory.planning.techniques import QUANTIZATIONS
from pipeline.memory.planning.working_memory import denoise_operations
from pipeline.request import MemorySettings
from pipeline.weights.families import FAMILIES

STEPS = 25
"""Of a picture, where plans are compared before its own number is known."""

BUNDLE_IMAGES = 32
"""The default of `bundle_images`."""

INTERFERENCE = 0.1
"""Share of the shorter that copying and computing at once take longer than the longer of the two."""

LAYER_WISE = 1.4
"""How many times longer diffusers' offloading by layers or its groups of blocks copies: many small copies (FLUX.1, five
passes by layer, published: 9.48 s for 22 GB each, where 15 GB/s would take 7.5 s)."""

FLOAT32 = 4.0
"""How many times longer a matrix product takes in float32 than in 16 bits, without TF32, at the least."""

UNPACKING = {"int8": 3.0, "float8": 7.0, "int4": 5.0, "storage": 6.0}
"""Bytes per parameter that making 16 bits of stored weights reads and writes, in every pass, by the last part of a
technique's name: for int8 one is read and two written; float8 is scaled in a pass of its own, and fp8_storage also goes
back to what it was."""


def seconds_per_image(sizes: Sizes, memory: MemorySettings, shape: Shape, found: Estimate, rates: Rates) -> float:
    """Predicted seconds, without the time that every plan needs alike. `found` is this plan's estimate."""
    denoiser = sizes.largest("denoiser")
    if denoiser is None:
        return 0.0
    family = FAMILIES.get(sizes.family) if sizes.family else None
    at_once = family is None or family.doubles_batch
    rows = shape.batch * (2 if shape.guided and at_once else 1)
    passes = STEPS * (2 if shape.guided and not at_once else 1)
    operations = rows * denoise_operations(sizes.family, denoiser.parameters, shape.width, shape.height)
    computing = operations / rates.compute * (FLOAT32 if memory.dtype == "float32" else 1.0)
    for name in QUANTIZATIONS["denoiser"]:
        if memory.uses(name):
            computing += UNPACKING[name.rpartition("_")[2]] * denoiser.parameters * denoiser.parts.linear / rates.memory
    copying = found.passing_bytes / rates.copy * (1.0 if memory.uses("resident_blocks") else LAYER_WISE)
    each_pass = max(computing, copying) + INTERFERENCE * min(computing, copying)
    if memory.uses("disk_offload"):
        each_pass = computing + found.passing_bytes / rates.disk
    moving = found.moved_bytes / rates.copy + found.read_bytes / rates.disk
    encoding = found.encoder_passing_bytes / (rates.disk if memory.uses("disk_offload") else rates.copy)
    return passes * each_pass / shape.batch + encoding + moving / BUNDLE_IMAGES
