"""Model loads of a sweep over two models in interleaved order, and memory after twenty switches between two models.

Loads: `run.py -m` with seeds outside and two tiny models inside, so that the configurations alternate; the run's own
`summary.json` says how often a model was loaded. Memory: one worker, in a process of its own, is handed bundles that
alternate between the demo model (30 MB of weights, so that models which stay behind would show) and a tiny one; its
resident memory after both have been loaded once is compared with that after twenty more switches.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import MEGABYTE, Row, Scale, answer, command_seconds, in_child

if TYPE_CHECKING:
    from jobs.engines.messages import Assignment, Message

SWITCHES = 20
MOST_MEGABYTES = 100.0
SEEDS = "0,1,2"


def measure(scale: Scale) -> Iterator[Row]:
    """Loads, then memory."""
    folder = scale.new_folder("models")
    found = in_child("models", "weights", folder / "a", folder / "b")
    yield _loads(folder, found["folders"])
    switches = max(4, scale.of(SWITCHES))
    found = in_child("models", "memory", folder / "a", folder / "images", switches)
    yield Row(
        "models.memory",
        f"memory growth over {switches} model switches after the first round",
        found["growth_bytes"] / MEGABYTE,
        "MB",
        MOST_MEGABYTES,
        f"{found['first_bytes'] / MEGABYTE:.0f} MB after the first round; {found['loads']} loads",
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
    from tests.tiny_models import write_tiny_sd

    for seed, folder in enumerate(folders):
        write_tiny_sd(folder, seed=seed)
    answer(folders=[str(folder) for folder in folders])


def switch(tiny: Path, output_dir: Path, switches: int) -> None:
    """One worker, two models, and what memory it has after each bundle."""
    import psutil

    from benchmarks.composing import CONF, composed, inline_prompts, plan_of, worker_settings
    from jobs.batch import validate
    from jobs.engines.messages import Loaded
    from jobs.engines.worker import Worker

    rounds = switches // 2 + 1
    common = (inline_prompts(1), f"seeds={{start: 0, count: {rounds}}}", "sampling.steps=1", "batch_size=1")
    configs = [
        composed("model=demo", *common, f"output.dir={output_dir}"),
        composed("model=custom", f"model.source={tiny}", *common, f"output.dir={output_dir}"),
    ]
    batch = validate(configs, [CONF])
    bundles = list(plan_of(batch).bundles())
    alternating = [bundle for pair in zip(bundles[:rounds], bundles[rounds:], strict=True) for bundle in pair]
    process, memory = psutil.Process(), []
    messages: list[Message] = []

    def handed_out() -> Iterator[Sequence[Assignment]]:
        for bundle in alternating:
            gc.collect()
            memory.append(process.memory_info().rss)
            yield bundle
        gc.collect()
        memory.append(process.memory_info().rss)

    Worker(worker_settings(batch), messages.append, lambda: False).run(handed_out())
    answer(
        first_bytes=memory[2],
        growth_bytes=memory[-1] - memory[2],
        loads=sum(isinstance(message, Loaded) for message in messages),
    )


if __name__ == "__main__":
    if sys.argv[1] == "weights":
        write_weights([Path(folder) for folder in sys.argv[2:]])
    else:
        switch(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
