"""Model loads of a sweep over two models in interleaved order, and twenty switches between two models: memory, time.

Loads: `run.py -m` with seeds outside and two tiny models inside, so that the configurations alternate; the run's own
`summary.json` says how often a model was loaded.

Switches: one worker, in a process of its own, is handed bundles of one image that alternate between the demo model
(30 MB of weights, so that models which stay behind would show) and a tiny one; its resident memory after both have been
loaded once is compared with that after twenty more switches. Once as it is, its pool keeping both models in main
memory, and once with a pool that keeps nothing, so that every switch reads the weights again. A plain loop that loads
the other model with diffusers for each image takes the same switches.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import MEGABYTE, ROOT, Row, Scale, answer, command_seconds, in_child

if TYPE_CHECKING:
    from jobs.engines.messages import Message
    from jobs.job import Bundle

SWITCHES = 20
MOST_MEGABYTES = 20.0
SEEDS = "0,1,2"
POOLS = {"kept": "its pool keeping both", "reloaded": "a pool that keeps nothing"}


def measure(scale: Scale) -> Iterator[Row]:
    """Loads, then memory and time."""
    folder = scale.new_folder("models")
    found = in_child("models", "weights", folder / "a", folder / "b")
    yield _loads(folder, found["folders"])
    switches = max(4, scale.of(SWITCHES))
    ours = {pool: in_child("models", pool, folder / "a", folder / pool, switches) for pool in POOLS}
    plain = in_child("models", "plain", folder / "a", switches)
    for pool, said in POOLS.items():
        yield Row(
            f"models.memory.{pool}",
            f"memory growth over {switches} model switches after the first round, {said}",
            ours[pool]["growth_bytes"] / MEGABYTE,
            "MB",
            MOST_MEGABYTES,
            f"{ours[pool]['first_bytes'] / MEGABYTE:.0f} MB after the first round; {ours[pool]['reads']} components "
            f"read; a plain loop grew by {plain['growth_bytes'] / MEGABYTE:.1f} MB",
        )
    yield Row(
        "models.switch",
        "switching the model and making one image, against loading with diffusers and making it",
        ours["kept"]["image_s"] / plain["image_s"],
        "x",
        note=f"{ours['kept']['image_s'] * 1000:.0f} ms against {plain['image_s'] * 1000:.0f} ms; "
        f"{ours['reloaded']['image_s'] * 1000:.0f} ms with {POOLS['reloaded']}",
    )


def _loads(folder: Path, models: Sequence[str]) -> Row:
    from benchmarks.composing import inline_prompts

    sources = f"model.source={','.join(models)}"
    few = (inline_prompts(4), "sampling.steps=2", "quiet=true", f"output.dir={folder / 'sweep'}")
    command_seconds("run.py", "-m", f"seeds={SEEDS}", "model=custom", sources, *few)
    summary = json.loads(next((folder / "sweep").glob("runs/*/summary.json")).read_text(encoding="utf-8"))
    return Row(
        "models.loads",
        f"model loads of a sweep over {len(models)} models in interleaved order",
        summary["model_loads"],
        "",
        len(models),
        f"{summary['made']} images made of {summary['requested']}",
    )


def write_weights(folders: Sequence[Path]) -> None:
    """Tiny random models, one per folder."""
    from tiny_models import write_tiny

    for seed, folder in enumerate(folders):
        write_tiny("sd15", folder, seed=seed)
    answer(folders=[str(folder) for folder in folders])


def switch(pool: str, tiny: Path, output_dir: Path, switches: int) -> None:
    """One worker, two models, and what memory it has after each bundle."""
    from benchmarks.composing import CONF, composed, inline_prompts, plan_of, worker_settings
    from jobs.engines import worker as workers
    from jobs.planning.validation import validate

    if pool == "reloaded":
        workers.HOST_SHARE = 0.0
    rounds = switches // 2 + 1
    alone = ("sampling.steps=1", "batch_size=1", "bundle_images=1", f"output.dir={output_dir}")
    common = (inline_prompts(1), f"seeds={{start: 0, count: {rounds}}}", *alone)
    batch = validate(
        [composed("model=demo", *common), composed("model=custom", f"model.source={tiny}", *common)], [CONF]
    )
    bundles = list(plan_of(batch).bundles())
    alternating = [bundle for pair in zip(bundles[:rounds], bundles[rounds:], strict=True) for bundle in pair]
    log = _Log()
    messages: list[Message] = []

    def handed_out() -> Iterator[Bundle]:
        for bundle in alternating:
            log.note()
            yield bundle
        log.note()

    worker = workers.Worker(worker_settings(batch), messages.append, lambda: False)
    worker.run(handed_out())
    log.tell(reads=worker._pool.loads)


def switch_plainly(tiny: Path, switches: int) -> None:
    """The same with diffusers alone: the other model is loaded for each image."""
    import torch
    from diffusers import StableDiffusionPipeline

    log = _Log()
    for number in range(2 * (switches // 2 + 1)):
        log.note()
        pipe = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            (ROOT / "pipeline" / "demo", tiny)[number % 2], use_safetensors=True, local_files_only=True
        )
        pipe.set_progress_bar_config(disable=True)
        with torch.inference_mode():
            pipe("a red house in sea at day", num_inference_steps=1, generator=torch.Generator("cpu").manual_seed(0))
        del pipe
    log.note()
    log.tell()


class _Log:
    """Resident memory and time between images; `tell` answers with what came of it after the first round."""

    def __init__(self) -> None:
        self._rss_bytes: list[int] = []
        self._started: list[float] = []
        self._ended: list[float] = []

    def note(self) -> None:
        """An image begins, or after the last one everything has ended."""
        import psutil

        self._ended.append(time.perf_counter())
        gc.collect()
        self._rss_bytes.append(psutil.Process().memory_info().rss)
        self._started.append(time.perf_counter())

    def tell(self, **more: Any) -> None:
        """Both models have made one image when the third begins."""
        took = [end - start for start, end in zip(self._started[2:-1], self._ended[3:], strict=True)]
        growth = self._rss_bytes[-1] - self._rss_bytes[2]
        answer(first_bytes=self._rss_bytes[2], growth_bytes=growth, image_s=median(took), **more)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "weights":
        write_weights([Path(folder) for folder in arguments])
    elif what == "plain":
        switch_plainly(Path(arguments[0]), int(arguments[1]))
    else:
        switch(what, Path(arguments[0]), Path(arguments[1]), int(arguments[2]))
