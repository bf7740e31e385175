"""One model of true size on a GPU, in one of several ways, within the memory of a smaller card: a process of its own.

    python -m benchmarks.gpu_ways write FAMILY FOLDER   the weights, drawn on the GPU
    python -m benchmarks.gpu_ways WAY WORK              WAY is one of `WAYS`, WORK a `Work` as JSON

The plain ways run as a user's own script would, with none of our settings of kernels; ours with those of a run.

torch's allocator refuses to grow beyond what would be left of the smaller card: 0.8 GiB less than it has, for CUDA's
context and libraries, which it does not count (0.3 to 0.8 GiB). The planner sees the large card, so it is told what
`memory=auto` would take of an empty one of that size. Time counts from the loaded model to the last saved picture.
A plain way that takes too long is stopped between two steps, and what it did of its image counts as that share of it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import answer, peak_rss_bytes

GIB = 2**30
NOT_COUNTED = int(0.8 * GIB)
"""What a process takes of a card besides what torch's allocator counts; the most that was seen, to be safe."""

MOST_SECONDS = 120.0
OURS_MOST_SECONDS = 300.0

LEVELS = {8: "aggressive", 12: "balanced", 24: "none"}
"""The memory level for each card."""

OURS = {
    "ours": "ours, the card's level",
    "exact": "ours, memory.quality=exact",
    "expandable": "ours, the card's level, expandable_segments",
}
PLAIN = {
    "resident": "pipe.to('cuda')",
    "model_offload": "enable_model_cpu_offload",
    "sequential": "enable_sequential_cpu_offload",
    "leaf": "enable_group_offload, leaf level with streams",
}
WAYS = {**OURS, **PLAIN}

_EXPANDABLE = dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "expandable_segments:True")
"""Under both names, of which torch reads one first, so that a user's own setting gives way."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every way has to do: square pictures of `side` pixels from the model in `folder`, all of other prompts."""

    folder: str
    output: str
    card_gb: int
    images: int
    steps: int
    guidance_scale: float
    side: int


class _Enough(Exception):
    """The time for this way is up."""


def measured(way: str, work: Work) -> dict[str, Any]:
    """Images (also a part of one) and seconds, peaks of the allocator; `failure` where no image could be made."""
    if way == "expandable":
        os.environ.update(_EXPANDABLE)  # before torch reads it
    import torch

    from pipeline.loading.offline import import_libraries
    from pipeline.system.device import cuda_variables

    if way in OURS:
        import_libraries()
    else:  # on the same card, and otherwise as in a user's own script: none of our settings of cuBLAS
        os.environ.update(cuda_variables())
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (work.card_gb * GIB - NOT_COUNTED) / total), 0)
    Path(work.output).mkdir(parents=True)
    if way in OURS:
        found = _ours(way, work)
    else:
        found = _plain(way, work)
        if on_gpu:
            found["reserved_bytes"] = torch.cuda.max_memory_reserved()
            found["allocated_bytes"] = torch.cuda.max_memory_allocated()
    return {**found, "host_bytes": peak_rss_bytes()}


def _ours(way: str, work: Work) -> dict[str, Any]:
    """A worker as `run.py` starts it, here in this process, so that the limit holds for it."""
    from benchmarks.composing import batch_of, plan_of, prompt_file, worker_settings
    from jobs.engines.messages import Ended, Failed, Loaded, Made, Message
    from jobs.engines.worker import Worker
    from pipeline.memory.planning.choose_techniques import reserve

    card_bytes, output = work.card_gb * GIB, Path(work.output)
    sampling = {"steps": work.steps, "guidance_scale": work.guidance_scale, "width": work.side, "height": work.side}
    batch = batch_of(
        "model=custom",
        f"model.source={work.folder}",
        f"memory={'auto' if way == 'exact' else LEVELS[work.card_gb]}",
        f"memory.quality={'exact' if way == 'exact' else 'any'}",
        f"memory.budget_gb={(card_bytes - reserve(card_bytes)) / GIB:.3f}",
        *(f"sampling.{name}={value}" for name, value in sampling.items()),
        *prompt_file(output / "prompts.txt", work.images),
        f"output.dir={output / 'images'}",
    )
    plan = plan_of(batch)
    fit = next(plan.groups())[0].fit
    said: list[tuple[float, Message]] = []
    noting = threading.Lock()

    def note(message: Message) -> None:
        with noting:
            said.append((time.perf_counter(), message))

    def late() -> bool:
        loaded = [when for when, message in said if isinstance(message, Loaded)]
        return bool(loaded) and time.perf_counter() - loaded[0] > OURS_MOST_SECONDS

    Worker(worker_settings(batch), note, late).run(plan.bundles())
    loaded = [(when, message.seconds) for when, message in said if isinstance(message, Loaded)]
    made = [when for when, message in said if isinstance(message, Made)]
    ended = next(message for _, message in said if isinstance(message, Ended))
    failures = [message.message for _, message in said if isinstance(message, Failed)]
    if ended.stop_message:
        failures.append(ended.stop_message)
    if not made:
        return {"failure": failures[0] if failures else f"no image within {OURS_MOST_SECONDS:.0f} s"}
    held = ended.stages[-1].techniques
    return {
        "images": len(made),
        "seconds": made[-1] - loaded[0][0],
        "load_s": loaded[0][1],
        "reserved_bytes": max((stage.reserved_bytes or 0 for stage in ended.stages), default=0),
        "allocated_bytes": max((stage.allocated_bytes or 0 for stage in ended.stages), default=0),
        "predicted_bytes": fit.predicted_peak_bytes,
        "batch": fit.batch_size,
        "techniques": list(held),
        "escalated": held != fit.held.techniques,
        "incomplete": failures[0] if failures else None,
    }


def _plain(way: str, work: Work) -> dict[str, Any]:
    """A loop over prompts, one call per image."""
    import torch
    from diffusers import DiffusionPipeline

    from benchmarks.composing import prompts

    device = "cuda" if torch.cuda.is_available() else "cpu"
    done, steps_done, failure = 0, 0, None
    started = time.perf_counter()
    loaded = None

    def watch(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal steps_done
        steps_done = step + 1
        if loaded is not None and time.perf_counter() - loaded > MOST_SECONDS:
            raise _Enough
        return tensors

    try:
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            work.folder, dtype=torch.bfloat16, use_safetensors=True, local_files_only=True
        )
        pipe.set_progress_bar_config(disable=True)
        _place(pipe, way, device)
        loaded = time.perf_counter()
        with torch.inference_mode():
            for number, prompt in enumerate(prompts(work.images)):
                steps_done = 0
                picture = pipe(
                    prompt,
                    num_inference_steps=work.steps,
                    guidance_scale=work.guidance_scale,
                    width=work.side,
                    height=work.side,
                    generator=torch.Generator("cpu").manual_seed(number),
                    callback_on_step_end=watch,
                ).images[0]
                picture.save(Path(work.output) / f"{number}.png")
                done += 1
                if time.perf_counter() - loaded > MOST_SECONDS:
                    break
    except _Enough:
        pass
    except torch.OutOfMemoryError:
        failure = "out of memory"
    share = float(done)
    if not failure and done < work.images and steps_done < work.steps:
        share += steps_done / work.steps
    if not share:
        return {"failure": failure or f"no step within {MOST_SECONDS:.0f} s"}
    assert loaded is not None
    return {
        "images": share,
        "seconds": time.perf_counter() - loaded,
        "load_s": loaded - started,
        "incomplete": failure
        or (f"stopped after {share:.2f} of {work.images} images" if share < work.images else None),
    }


def _place(pipe: Any, way: str, device: str) -> None:
    """What a user would write after loading, as diffusers' documentation has it."""
    import psutil
    import torch

    if way == "resident":
        pipe.to(device)
    elif way == "model_offload":
        pipe.enable_model_cpu_offload(device=device)
    elif way == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        # Streams copy from page-locked memory, which is twice the weights' size; where that is not there, on the fly.
        weights = sum(
            parameter.nbytes
            for component in pipe.components.values()
            if isinstance(component, torch.nn.Module)
            for parameter in component.parameters()
        )
        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_type="leaf_level",
            use_stream=device == "cuda",
            low_cpu_mem_usage=device == "cuda" and psutil.virtual_memory().available < 2.2 * weights,
        )


if __name__ == "__main__":
    first, *more = sys.argv[1:]
    if first == "write":
        from benchmarks.true_size import blueprint, write

        answer(parameters=write(blueprint(more[0]), Path(more[1]), device="cuda"))
    else:
        answer(**measured(first, Work(**json.loads(more[0]))))
