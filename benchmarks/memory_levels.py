"""Peak host memory of a model of the size of SD 1.5 at each memory level, on the CPU, against plain diffusers.

Weights are random, in files of bfloat16 (`true_size.py`), and computed with in float32, as it is on CPUs: those without
instructions for bfloat16 take minutes for one picture in it. A picture has 256 x 256 pixels and one step, so that it
takes seconds; the weights are what counts. Each level is a `run.py` of its own, and the peak is what its worker had
resident at once, mapped files and loading included, as in its `summary.json`; the peaks of the stages alone are in the
note. The last one is given a budget that the weights exceed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, Scale, answer, command_seconds, in_child, peak_rss_bytes
from benchmarks.sized_model import SIDE, sized_model

LEVELS = ("none", "balanced", "aggressive", "ultra")
QUICK = ("none", "ultra")
BUDGET_SHARE = 0.7
"""Of what plain diffusers takes."""

GIGABYTE = 2**30


def measure(scale: Scale) -> Iterator[Row]:
    """Plain diffusers, then each level, then a budget."""
    model, parameters = sized_model(scale)
    said = f"a model of {parameters / 1e9:.2f} billion random parameters"
    started = time.perf_counter()
    plain = in_child("memory_levels", model)["peak_rss_bytes"]
    yield Row(
        "memory_levels.plain",
        f"peak host memory of {said}, plain diffusers",
        plain / GIGABYTE,
        "GB",
        note=f"{time.perf_counter() - started:.0f} s for the whole process; weights {parameters * 4 / GIGABYTE:.1f} GB",
    )
    folder = scale.new_folder("memory_levels")
    for level in QUICK if scale.quick else LEVELS:
        yield _row(level, f"memory={level}", [f"memory={level}"], model, said, folder, plain)
    budget = plain / GIGABYTE * BUDGET_SHARE
    given = ["memory=auto", f"memory.budget_gb={budget:.2f}"]
    yield _row("budget", f"memory=auto and a budget of {budget:.1f} GB", given, model, said, folder, plain)


def _row(name: str, text: str, given: list[str], model: Path, said: str, folder: Path, plain: int) -> Row:
    from pipeline.memory.planning.estimate import OVERHEAD

    output = folder / name
    seconds = command_seconds("run.py", *_arguments(model, output), *given)
    summary = json.loads(next(output.glob("runs/*/summary.json")).read_text(encoding="utf-8"))
    stages = summary["memory_stages"]
    predicted = max(stage["predicted_bytes"] for stage in stages) + OVERHEAD["cpu"]
    each = ", ".join(f"{stage['stage']} {stage['rss_bytes'] / GIGABYTE:.1f}" for stage in stages)
    return Row(
        f"memory_levels.{name}",
        f"peak host memory of {said}, {text}",
        summary["peak_rss_bytes"] / GIGABYTE,
        "GB",
        note=f"{summary['peak_rss_bytes'] / plain:.2f} x plain; {each}; predicted {predicted / GIGABYTE:.1f}; "
        f"{', '.join(stages[-1]['techniques'])}; {seconds:.0f} s",
    )


def _arguments(model: Path, output: Path) -> list[str]:
    from benchmarks.composing import inline_prompts

    sampling = f"sampling={{steps: 1, width: {SIDE}, height: {SIDE}, guidance_scale: 1.0}}"
    return [
        "model=custom", f"model.source={model}", "memory.dtype=float32", "engine.device=cpu", "batch_size=1",
        inline_prompts(1), sampling, f"output.dir={output}",
    ]  # fmt: skip


def plain(model: str) -> dict[str, Any]:
    """The same picture with diffusers alone; what the process had at most."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        model, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        pipe("a red house in sea at day", num_inference_steps=1, guidance_scale=1.0, width=SIDE, height=SIDE)
    return {"peak_rss_bytes": peak_rss_bytes()}


if __name__ == "__main__":
    answer(**plain(sys.argv[1]))
