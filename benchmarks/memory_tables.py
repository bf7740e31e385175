"""The tables of docs/memory.md: what would be done with six models on cards of 4, 8, 12 and 24 GB.

    python -m benchmarks.memory_tables

Nothing is loaded and nothing measured: these are the plans of a dry run with each memory level, one picture at a time,
from published sizes, beside 64 GB of main memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobs.planning.memory_levels import NOMINAL, forecasts, levels, profiles
from pipeline.memory.planning.choose_techniques import CLASSES
from pipeline.memory.planning.rates import published
from pipeline.system.device import Device, DeviceMemory
from pipeline.system.units import GIB

MODELS = ("sd15", "sdxl", "sd35_large", "z_image_turbo", "flux_dev", "qwen_image")
CARDS = {
    "A card of which no rate is known": NOMINAL,
    "With the rates of an RTX 4090": Device("cuda", "NVIDIA GeForce RTX 4090", (8, 9)),
}
HOST_BYTES = 64 * GIB
LARGEST = max(CLASSES.values())


def tables() -> Iterator[str]:
    """Lines of Markdown."""
    found = [profile for profile in profiles()[0] if profile.name in MODELS]
    smallest_first = {level: levels()[level] for level in sorted(CLASSES, key=CLASSES.__getitem__)}
    for title, card in CARDS.items():
        rates = published(card)
        yield f"{title} ({rates.compute / 1e12:.0f} tera-operations a second, {rates.copy / 1e9:.0f} GB/s):"
        yield ""
        yield "| | " + " | ".join(f"{CLASSES[level] // GIB} GB" for level in smallest_first) + " |"
        yield "| --- |" + " --- |" * len(smallest_first)
        there = DeviceMemory(LARGEST, LARGEST, HOST_BYTES, HOST_BYTES)
        cells = {(one.profile, one.level): one.text for one in forecasts(found, smallest_first, card, there)}
        for model in MODELS:
            yield f"| `{model}` | " + " | ".join(cells[model, level] for level in smallest_first) + " |"
        yield ""


if __name__ == "__main__":
    print("\n".join(tables()))
