"""`darkroom models list` over a registry of 10,000 models, beyond what a command of `darkroom` takes to start.

The list is the table of all of them; the same command over an empty registry is the start. Medians, in turn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring import Row, Scale, command_seconds, interleaved

MODELS = 10_000
ROUNDS = 7
AT_MOST_S = 0.3


def measure(scale: Scale) -> Iterator[Row]:
    """Seconds beyond start-up."""
    count = scale.of(MODELS)
    folder = scale.new_folder("registry")
    _fill(folder / "full" / "registry.sqlite", count)

    def seconds(home: str, *arguments: str) -> float:
        os.environ["DARKROOM_HOME"] = str(folder / home)
        try:
            return command_seconds("-m", "jobs", "models", *arguments)
        finally:
            del os.environ["DARKROOM_HOME"]

    seconds("empty", "stats")  # makes the empty one
    found = interleaved(
        {
            "start": lambda: seconds("empty", "list", "--limit", "0"),
            "table": lambda: seconds("full", "list", "--limit", "0"),
            "json": lambda: seconds("full", "list", "--format", "json"),
        },
        scale.rounds(ROUNDS),
    )
    start, table, as_json = (median(found[name]) for name in ("start", "table", "json"))
    yield Row(
        "registry.list",
        f"darkroom models list, {count:,} models, beyond the same over none",
        table - start,
        "s",
        AT_MOST_S,
        f"the whole command {table:.2f} s, over none {start:.2f} s, as JSON {as_json:.2f} s",
    )


def _fill(path: Path, count: int) -> None:
    from pipeline.registry.database import Registry
    from pipeline.registry.records import StoredModel
    from pipeline.registry.storing import add

    with Registry(path) as registry, registry.changing():
        for number in range(count):
            place = Path(f"/models/loras/style {number} of many.safetensors")
            words = (f"style {number}", "ink wash", "on paper")
            add(
                registry,
                StoredModel(
                    place.stem, "local", str(place), "lora", place, 228_000_000, "sdxl", "bfloat16", trigger_words=words
                ),
                [],
            )
