"""Prompts that are refused, because their images would contain a key or a user's folder.

The plan finds them. Each is told once, its images are recorded as failures, and it is no obstacle to the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.job import Assignment, Job
from jobs.manifest.journal import Journal
from jobs.manifest.rows import failed_row
from pipeline.errors import LeakFound

if TYPE_CHECKING:
    from jobs.planning.plan import Plan

MAX_TOLD = 20
"""Prompts that are told by name."""

_ROWS_AT_ONCE = 1_000


class RefusedPrompt(NamedTuple):
    """A refused prompt, by the first of its `images` jobs, and the reason."""

    job: Job
    images: int
    reason: str

    def __str__(self) -> str:
        images = "1 image" if self.images == 1 else f"{self.images:,} images"
        return f"{self.job.prompt_place}, {images}: {self.reason}"


def refused_prompts(plan: Plan) -> Iterator[RefusedPrompt]:
    """The refused prompts, in their order."""

    def prompt(refusal: tuple[Assignment, str]) -> tuple[object, ...]:
        job = refusal[0].job
        return job.config_index, job.prompt_index, refusal[1]

    for (*_, reason), alike in groupby(plan.refusals(), prompt):
        first, _ = next(alike)
        others = sum(1 for _ in alike)  # noqa: B031 the rest of the same
        yield RefusedPrompt(first.job, 1 + others, str(reason))


def refused_lines(plan: Plan) -> Iterator[str]:
    """A line for each of the first refused prompts, and one for the rest."""
    prompts = refused_prompts(plan)
    for prompt in islice(prompts, MAX_TOLD):
        yield f"refused: {prompt}"
    if more := sum(1 for _ in prompts):
        yield f"refused: {more:,} more prompts"


def record_refused(plan: Plan, output_dir: Path, run_id: str) -> None:
    """Record a failure row for each refused image. Raises `DiskFull`, or `RunStopped` if nothing can be written."""
    refusals = plan.refusals()
    with Journal(output_dir) as journal:
        while some := list(islice(refusals, _ROWS_AT_ONCE)):
            journal.fail([failed_row(one.job, one.attempt, run_id, LeakFound.kind, why) for one, why in some])
            journal.seal_if_due()
