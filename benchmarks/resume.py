"""Resuming a folder with 100,000 finished images.

The promise: seconds from the start of `jobs.batch.run` until the first bundle of new images has been handed to the
worker, which is when the first new image could be started; validation is reported beside it. For information: how much
longer the whole command `run.py`, with the model's load and one new image, takes than in an empty folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmarks.measuring import MEGABYTE, Row, Scale, answer, command_seconds, in_child, peak_rss_bytes

DONE = 100_000
PROMPTS = 10
MOST_SECONDS = 5.0
ROUNDS = 3


class _HandedOver(Exception):  # noqa: N818
    """The first bundle has gone to the worker: seen enough."""


def measure(scale: Scale) -> Iterator[Row]:
    """Time until the first new image, and what that means for the whole command."""
    from benchmarks.composing import batch_of, inline_prompts, plan_of
    from benchmarks.manifests import write_finished

    done = scale.of(DONE)
    folder = scale.new_folder("resume")
    before = [inline_prompts(PROMPTS), f"seeds={{start: 0, count: {done // PROMPTS}}}", f"output.dir={folder}"]
    write_finished(folder, plan_of(batch_of(*before)).jobs())
    arguments = [before[0], f"seeds={{start: 0, count: {done // PROMPTS + 1}}}", f"output.dir={folder}"]
    found = [in_child("resume", *arguments) for _ in range(scale.rounds(ROUNDS))]
    yield Row(
        "resume.seconds",
        f"resume over {done:,} finished jobs, until the first new image could be started",
        median(one["first_bundle_s"] for one in found),
        "s",
        MOST_SECONDS,
        f"validation before it {found[0]['validate_s']:.2f} s; "
        f"peak memory {found[0]['peak_rss_bytes'] / MEGABYTE:.0f} MB",
    )
    new = [inline_prompts(1), "sampling.steps=1", "quiet=true"]  # one step: not among the finished ones
    empty = scale.new_folder("resume_empty")
    resumed = command_seconds("run.py", *arguments[:2], f"output.dir={folder}", "dry_run=true")
    started = command_seconds("run.py", *arguments[:2], f"output.dir={empty}", "dry_run=true")
    first = command_seconds("run.py", *new, f"output.dir={folder}")
    alone = command_seconds("run.py", *new, f"output.dir={empty}")
    yield Row(
        "resume.dry_run",
        f"run.py dry_run=true of {done:,} jobs in that folder, more than in an empty one",
        resumed - started,
        "s",
        note=f"{resumed:.2f} s against {started:.2f} s",
    )
    yield Row(
        "resume.command",
        "run.py of one new image in that folder, more than in an empty one",
        first - alone,
        "s",
        note=f"{first:.2f} s against {alone:.2f} s, imports and load included",
    )


def child(overrides: Sequence[str]) -> None:
    """Run a batch until its first bundle is handed over, and say how long that took."""
    from benchmarks.composing import CONF, composed
    from jobs.batch import run, validate
    from jobs.engines.local import LocalEngine

    def handed_over(*_: object) -> NoReturn:
        raise _HandedOver

    LocalEngine.submit = handed_over  # type: ignore[method-assign]
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
