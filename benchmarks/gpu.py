"""On a GPU: the pace of the demo model, and models of true size within the memory of smaller cards.

Demo model: `batches.py` compares all three ways on whatever device there is; this adds the pace on a GPU, where
denoising with so small a model takes so little that whatever else a picture costs shows.

True size: SD 1.5, SDXL, FLUX.1 dev and Z-Image with random weights (`true_size.py`), each as if on a card of 8, 12 and
24 GB: images per hour and the allocator's peak, ours and in the ways that diffusers offers, called once per image,
every way in a process of its own (`gpu_ways.py`). All of it takes hours and 35 GB of disk; parts of it:

    python -m benchmarks gpu --model flux --card 24 --images 4
    python -m benchmarks gpu --model sdxl --card 8 --card 12 --way ours --way model_offload

Without a GPU there are two lines that say so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.batches import BATCH, SAID, compare
from benchmarks.gpu_ways import GIB, LEVELS, OURS, WAYS, Work
from benchmarks.measuring import Part, Row, Scale, in_child
from pipeline.system.device import find_device

DEMO_IMAGES = 256
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Model:
    """Which model it is as large as, and how that one is used."""

    label: str
    steps: int
    guidance_scale: float
    side: int = 1024


MODELS = {
    "sd15": Model("SD 1.5", 25, 7.0, 512),
    "sdxl": Model("SDXL", 25, 5.0),
    "flux": Model("FLUX.1 dev", 28, 3.5),
    "z_image": Model("Z-Image-Turbo", 8, 0.0),
}
"""By family."""

IMAGES = 8
MOST_OF_MODEL_OFFLOAD = {("flux", 24): 1 / 3}
"""The share of the time that model offload takes per image."""


def measure(scale: Scale) -> Iterator[Row]:
    """The demo model, then every model, card and way, unless `scale.part` names some."""
    device = find_device()
    if device.kind != "cuda":
        yield Row("gpu.images", "demo images per second on a GPU", None, "images/s", note="no GPU here")
        what = "images per hour of models of true size on a GPU, in 8, 12 and 24 GB"
        yield Row("gpu.true_size", what, None, "images/h", note="no GPU here")
        return
    part = scale.part
    if part == Part():
        yield _demo(scale, f"{device.name}, {device.dtype}")
    quick = Part(models=("sd15",), cards=(8,), images=2) if scale.quick else Part()
    for family in part.models or quick.models or tuple(MODELS):
        folder = scale.new_folder(f"gpu_{family}")
        in_child("gpu_ways", "write", family, folder / "model")
        for card in part.cards or quick.cards or tuple(LEVELS):
            images = part.images or quick.images or IMAGES
            yield from _card(family, card, folder, images, part.ways or tuple(WAYS), str(device.name))
        shutil.rmtree(folder)


def _demo(scale: Scale, where: str) -> Row:
    images = max(BATCH, scale.of(DEMO_IMAGES) // BATCH * BATCH)
    times, _ = compare(scale.new_folder("gpu"), images, scale.rounds(ROUNDS))
    loops = ", ".join(f"{said}: {images / median(times[name].generation):.1f}" for name, said in SAID.items())
    return Row(
        "gpu.images",
        f"{images} demo images on a GPU, generation",
        images / median(times["ours"].generation),
        "images/s",
        note=f"plain loop, {loops}; {where}",
    )


def _card(family: str, card: int, folder: Path, images: int, ways: tuple[str, ...], name: str) -> Iterator[Row]:
    model = MODELS[family]
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        output = str(folder / f"{card}_{way}")
        work = Work(str(folder / "model"), output, card, images, model.steps, model.guidance_scale, model.side)
        found[way] = done(way, work)
        what = f"{model.label} size, {card} GB card, {WAYS[way]}"
        yield row(f"gpu.{family}.{card}.{way}", what, found[way], model.steps, name)
    theirs = found.get("model_offload", {})
    for way in OURS:
        ours = found.get(way, {})
        if "images" in ours and "images" in theirs:
            yield Row(
                f"gpu.{family}.{card}.{way}.against_model_offload",
                f"{model.label} size, {card} GB card, {WAYS[way]}, against enable_model_cpu_offload: seconds per image",
                _seconds_each(ours) / _seconds_each(theirs),
                "x",
                MOST_OF_MODEL_OFFLOAD.get((family, card)),
                f"{_seconds_each(theirs) / _seconds_each(ours):.2f} x the images per hour",
            )


def done(way: str, work: Work) -> dict[str, Any]:
    """What a way answers; one that breaks off costs only its own row."""
    try:
        return in_child("gpu_ways", way, json.dumps(asdict(work)))
    except RuntimeError as error:
        return {"failure": str(error).strip().splitlines()[-1][:160]}


def row(key: str, what: str, found: dict[str, Any], steps: int, name: str) -> Row:
    """One way's row; without a figure where it made nothing."""
    if "failure" in found:
        return Row(key, what, None, "images/h", note=f"{found['failure']}; {name}")
    parts = [
        f"{_seconds_each(found):.2f} s per image of {steps} steps",
        f"reserved {found['reserved_bytes'] / GIB:.2f} GB, allocated {found['allocated_bytes'] / GIB:.2f}",
        f"host {found['host_bytes'] / GIB:.1f} GB",
        f"load {found['load_s']:.0f} s",
    ]
    if "predicted_bytes" in found:
        parts.append(f"predicted {found['predicted_bytes'] / GIB:.2f} GB with CUDA's own")
        parts.append(f"batch {found['batch']}, {', '.join(found['techniques']) or 'everything resident'}")
        if found["escalated"]:
            parts.append("after running out of memory with what was planned")
    if found["incomplete"]:
        parts.append(found["incomplete"])
    return Row(key, what, 3600 / _seconds_each(found), "images/h", note="; ".join([*parts, name]))


def _seconds_each(found: dict[str, Any]) -> float:
    return float(found["seconds"] / found["images"])
