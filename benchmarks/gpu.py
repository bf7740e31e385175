"""Images per second of the demo model on a GPU, ours against the plain loops.

`batches.py` compares all three ways on whatever device there is; this adds the pace on a GPU, where denoising with so
small a model takes so little that whatever else a picture costs shows. Without a GPU there is one line that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.batches import BATCH, SAID, compare
from benchmarks.measuring import Row, Scale
from pipeline.system.device import find_device

IMAGES = 256
ROUNDS = 3


def measure(scale: Scale) -> Iterator[Row]:
    """Images per second, generation alone, three ways."""
    device = find_device()
    if device.kind != "cuda":
        yield Row("gpu.images", "demo images per second on a GPU", None, "images/s", note="no GPU here")
        return
    images = max(BATCH, scale.of(IMAGES) // BATCH * BATCH)
    times, _ = compare(scale.new_folder("gpu"), images, scale.rounds(ROUNDS))
    loops = ", ".join(f"{said}: {images / median(times[name].generation):.1f}" for name, said in SAID.items())
    yield Row(
        "gpu.images",
        f"{images} demo images on a GPU, generation",
        images / median(times["ours"].generation),
        "images/s",
        note=f"plain loop, {loops}; {device.name}, {device.dtype}",
    )
