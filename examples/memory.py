"""Fit a model into memory: levels, a budget, and what it costs.

python examples/memory.py                 # the included model
python examples/memory.py /models/sdxl    # any other: a folder, a file, or the name of one that was scanned
"""

import sys

from pipeline import ConfigError, Pipeline
from pipeline.system import read_resources

MODEL = sys.argv[1] if len(sys.argv) > 1 else "demo"
PROMPT = "a white tower by the sea, at night"
MIB = 2**20

now = read_resources()
cards = ", ".join(f"{card.name} with {card.memory_total_bytes / 2**30:.0f} GiB" for card in now.gpus)
print(f"main memory: {now.ram_available_bytes / 2**30:.1f} GiB free; GPUs: {cards or 'none'}\n")

# `auto` takes what is free; the other levels are for cards of 24, 12, 8 and 4 GB. Techniques are chosen for the size of
# each picture: what fits as it is stays as it is.
for level in ("auto", "ultra"):
    with Pipeline(MODEL, memory=level) as pipeline:
        image = pipeline.generate(PROMPT, seed=1, steps=4).image
    used = ", ".join(image.memory.techniques) or "everything resident"
    predicted = (image.predicted_peak_bytes or 0) / MIB
    print(f"{level:9} {predicted:8.0f} MiB predicted, {image.seconds:.2f} s: {used}")

# One technique by name, and `quality="exact"`: only what leaves every pixel as it is.
made = []
for techniques in ({}, {"vae_slicing": True}):
    with Pipeline(MODEL, quality="exact", techniques=techniques) as pipeline:
        made.append(pipeline.generate(PROMPT, seed=1, steps=4).image)
print(f"\nwith {', '.join(made[1].memory.techniques)}: pixels as before: {(made[0].pixels == made[1].pixels).all()}")

# A budget is a promise: where nothing fits into it, that is said before anything is loaded.
try:
    with Pipeline(MODEL, budget_gb=0.001) as pipeline:
        pipeline.generate(PROMPT)
except ConfigError as error:
    print(f"\nwith a budget of 0.001 GiB: {error}")
