"""Resuming a folder with 100,000 finished images.

The promise: how much later than in an empty folder the first bundle of new images is handed to the worker, counted from
the start of `jobs.running.main.run`; then the first new image could be started. The time itself and that of validation
are reported beside it. For information: how much longer the whole command `run.py`, with the model's load and one new
image, takes than in an empty folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmarks.measuring import (
    MEGABYTE,
    Row,
    Scale,
    answer,
    command_seconds,
    in_child,
    interleaved,
    peak_rss_bytes,
)

DONE = 100_000
PROMPTS = 10
MOST_SECONDS = 0.6
ROUNDS = 3


class _HandedOver(Exception):
    """The first bundle has gone to the worker: seen enough."""


def measure(scale: Scale) -> Iterator[Row]:
    """Time until the first new image, and what that means for the whole command."""
    from benchmarks.composing import batch_of, inline_prompts, plan_of
    from benchmarks.manifests import write_finished

    done = scale.of(DONE)
    folder = scale.new_folder("resume")
    before = [inline_prompts(PROMPTS), f"seeds={{start: 0, count: {done // PROMPTS}}}", f"output.dir={folder}"]
    write_finished(folder, plan_of(batch_of(*before)).jobs())
    batch = [before[0], f"seeds={{start: 0, count: {done // PROMPTS + 1}}}"]
    empty = scale.new_folder("resume_empty")
    rounds = range(scale.rounds(ROUNDS))
    pairs = [[in_child("resume", *batch, f"output.dir={place}") for place in (folder, empty)] for _ in rounds]
    full, bare = (median(one["first_bundle_s"] for one in place) for place in zip(*pairs, strict=True))
    yield Row(
        "resume.seconds",
        f"resume over {done:,} finished jobs, until the first new image could be started, more than in an empty folder",
        median(one["first_bundle_s"] - other["first_bundle_s"] for one, other in pairs),
        "s",
        MOST_SECONDS,
        f"{full:.2f} s against {bare:.2f} s; validation before it {pairs[0][0]['validate_s']:.2f} s; "
        f"peak memory {pairs[0][0]['peak_rss_bytes'] / MEGABYTE:.0f} MB",
    )
    yield from _whole_commands(scale, folder, empty, done, batch)


def _whole_commands(scale: Scale, folder: Path, empty: Path, done: int, batch: list[str]) -> Iterator[Row]:
    """`run.py` in the full folder and in an empty one, in turn: what the finished images cost altogether."""
    from benchmarks.composing import inline_prompts

    steps = iter(range(1, 1000))  # numbers of steps that no image was made with yet

    def dry_run(place: Path) -> float:
        return command_seconds("run.py", *batch, f"output.dir={place}", "dry_run=true")

    def one_image(place: Path) -> float:
        new = (inline_prompts(1), f"sampling.steps={next(steps)}", "quiet=true")
        return command_seconds("run.py", *new, f"output.dir={place}")

    for name, what, command in (
        ("dry_run", f"run.py dry_run=true of {done:,} jobs", dry_run),
        ("command", "run.py of one new image", one_image),
    ):
        places: dict[str, Callable[[], float]] = {
            "full": partial(command, folder),
            "empty": partial(command, empty),
        }
        seconds = interleaved(places, scale.rounds(ROUNDS))
        full, bare = seconds["full"], seconds["empty"]
        yield Row(
            f"resume.{name}",
            f"{what} in that folder, more than in an empty one",
            median(one - other for one, other in zip(full, bare, strict=True)),
            "s",
            note=f"the whole command: {median(full):.2f} s against {median(bare):.2f} s",
        )


def child(overrides: Sequence[str]) -> None:
    """Run a batch until its first bundle is handed over, and say how long that took."""
    from benchmarks.composing import CONF, composed
    from jobs.engines.local import LocalEngine
    from jobs.planning.validation import validate
    from jobs.running.main import run

    def handed_over(*_: object) -> NoReturn:
        raise _HandedOver

    LocalEngine.submit = handed_over  # type: ignore[method-assign, assignment]
    config = composed(*overrides)
    started = time.perf_counter()
    batch = validate([config], [CONF])
    validated = time.perf_counter()
    try:
        run(batch)
    except _HandedOver:
        first_bundle = time.perf_counter()
    answer(
        validate_s=validated - started,
        first_bundle_s=first_bundle - validated,
        peak_rss_bytes=peak_rss_bytes(),
    )


if __name__ == "__main__":
    child(sys.argv[1:])
