"""Planning 100,000 and 1,000,000 jobs: seconds, and the most memory that the process had.

Each plan is made in a process of its own, through what `run.py` calls after Hydra: `jobs.running.main.validate`, then
the manifest's states, then `Plan`. Two shapes: ten prompts with many seeds, and a text file of 100,000 prompts with as
many seeds as it takes. Imports are not in the seconds; everything is in the memory, the handing out of jobs included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import MEGABYTE, Row, Scale, answer, in_child, peak_rss_bytes

MOST_SECONDS = {100_000: 2.0, 1_000_000: 10.0}
MOST_MEGABYTES = 300.0
FEW_PROMPTS = 10
FILE_PROMPTS = 100_000
HANDED_OUT = 20_000
"""Jobs that are made from the plan afterwards, as the runner does bundle by bundle."""


def measure(scale: Scale) -> Iterator[Row]:
    """Seconds and peak memory of four plans."""
    folder = scale.new_folder("planning")
    for promised, most_seconds in MOST_SECONDS.items():
        jobs = scale.of(promised)
        for shape, prompts in (("seeds", FEW_PROMPTS), ("file", min(jobs, scale.of(FILE_PROMPTS)))):
            found = in_child("planning", folder, shape, prompts, jobs // prompts)
            what = f"plan {jobs:,} jobs, {'prompt file of' if shape == 'file' else ''} {prompts:,} prompts"
            what = " ".join(f"{what} x {jobs // prompts:,} seeds".split())
            note = (
                f"validate {found['validate_s']:.2f} s, plan {found['plan_s']:.2f} s; then "
                f"{found['hand_out_s'] / found['handed_out'] * 1e6:.0f} microseconds to hand out a job"
            )
            name = f"planning.{shape}.{promised}"
            seconds = found["validate_s"] + found["plan_s"]
            yield Row(f"{name}.seconds", what, seconds, "s", most_seconds, note)
            megabytes = found["peak_rss_bytes"] / MEGABYTE
            note = f"{found['before_rss_bytes'] / MEGABYTE:.0f} MB of it after the imports"
            yield Row(f"{name}.memory", f"{what}: peak memory", megabytes, "MB", MOST_MEGABYTES, note)


def child(folder: Path, shape: str, prompts: int, seeds: int) -> None:
    """Make one plan and say what it took."""
    from benchmarks.composing import CONF, composed, inline_prompts, plan_of, prompt_file
    from jobs.planning.validation import validate

    given = prompt_file(folder / "prompts.txt", prompts) if shape == "file" else [inline_prompts(prompts)]
    config = composed(*given, f"seeds={{start: 0, count: {seeds}}}", f"output.dir={folder / 'images'}")
    before = peak_rss_bytes()
    started = time.perf_counter()
    batch = validate([config], [CONF])
    validated = time.perf_counter()
    plan = plan_of(batch)
    planned = time.perf_counter()
    assert plan.to_make == prompts * seeds, plan.to_make
    handed_out = 0
    for bundle in plan.bundles():
        handed_out += len(bundle.assignments)
        if handed_out >= HANDED_OUT:
            break
    done = time.perf_counter()
    answer(
        validate_s=validated - started,
        plan_s=planned - validated,
        hand_out_s=done - planned,
        handed_out=handed_out,
        before_rss_bytes=before,
        peak_rss_bytes=peak_rss_bytes(),
    )


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
