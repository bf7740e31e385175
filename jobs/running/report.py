"""The printed report of a plan and a run."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.job import Job
from jobs.manifest.job_states import MeasuredSeconds
from jobs.manifest.layout import command
from jobs.planning.refused_prompts import refused_prompts
from jobs.running.memory_report import memory_values
from jobs.terminal import print_line
from pipeline.system.units import duration_text, size_text

if TYPE_CHECKING:
    from jobs.planning.plan import Plan
    from jobs.running.loop import Result

FIRST_JOBS = 5
MAX_PLACES = 3
BYTES_PER_PIXEL = 1.6
"""A PNG of a photographic picture takes 1.3 to 1.9 bytes per pixel; jpeg and webp take a tenth."""

METADATA_BYTES = 12_000

_TOLD = ("prompt", "negative_prompt", "seed", "steps", "guidance_scale", "width", "height", "scheduler", "clip_skip")
"""What a plan for a script tells of a job's request."""


def estimate(plan: Plan, timings: MeasuredSeconds) -> tuple[float, int, int]:
    """Seconds for the jobs whose kind was measured before, the number of these jobs, and bytes for all jobs."""
    seconds, covered, size = 0.0, 0, 0
    for group, count in plan.groups():
        like = group.likeness
        per_image = timings.get((group.model.sha256, like.width, like.height, like.steps))
        if per_image is not None:
            seconds += per_image * count
            covered += count
        size += count * int(like.width * like.height * BYTES_PER_PIXEL + METADATA_BYTES)
    return seconds, covered, size


def disk_warning(plan: Plan, output_dir: Path) -> str | None:
    """A warning if the images will probably not fit; the run starts all the same, since a full disk loses nothing."""
    _, _, size = estimate(plan, {})
    free = shutil.disk_usage(output_dir).free
    if size <= free:
        return None
    return f"about {size_text(size)} are needed and {size_text(free)} free in {output_dir}; the run may stop early"


def print_plan(plan: Plan, timings: MeasuredSeconds, output_dir: Path, *, verbose: bool) -> None:
    """The plan as a table of counts and the first jobs; all of them when `verbose`."""
    seconds, covered, size = estimate(plan, timings)
    print_line(f"requested     {plan.requested:,}")
    print_line(f"duplicates    {plan.duplicates:,}")
    print_line(f"already done  {plan.done:,}{_places(plan, output_dir)}")
    if plan.failed_before:
        print_line(f"failed before {plan.failed_before:,} (retry_failed=true tries them again)")
    if plan.refused:
        print_line(f"refused       {plan.refused:,} (their prompts are named below)")
    print_line(f"to make       {plan.to_make:,}")
    for made in plan.characters.values():
        print_line(f"characters    {made.coverage}")
    print_line(f"model loads   {plan.loads} (minimum {plan.minimum_loads})")
    print_line(f"time          {_time_text(seconds, covered, plan.to_make)}")
    print_line(f"disk          about {size_text(size)} in {output_dir}")
    shown = None if verbose else FIRST_JOBS
    for job in islice(plan.jobs(), shown):
        print_line(f"  {_job_text(job)}")
    if shown is not None and plan.to_make > shown:
        print_line(f"  ... and {plan.to_make - shown:,} more (verbose=true lists all)")


def plan_values(plan: Plan, timings: MeasuredSeconds, *, verbose: bool) -> dict[str, Any]:
    """The same for a script; `seconds` is null when not every kind of job was measured before."""
    seconds, covered, size = estimate(plan, timings)
    return {
        "requested": plan.requested,
        "duplicates": plan.duplicates,
        "already_done": plan.done,
        "already_done_in": dict(plan.done_in.most_common()),
        "failed_before": plan.failed_before,
        "refused": plan.refused,
        "refused_prompts": [
            {
                "prompt_set": one.job.prompt_set,
                "prompt_index": one.job.prompt_index,
                "images": one.images,
                "why": one.reason,
            }
            for one in refused_prompts(plan)
        ],
        "to_make": plan.to_make,
        "characters": [
            {"prompt_set": name, "rows": len(made.rows), "pairs": made.pairs, "pairs_covered": made.covered}
            for name, made in plan.characters.items()
        ],
        "model_loads": plan.loads,
        "model_loads_minimum": plan.minimum_loads,
        "seconds": round(seconds, 1) if covered == plan.to_make else None,
        "disk_bytes": size,
        "memory": memory_values(plan),
        "jobs": [_job_values(job) for job in islice(plan.jobs(), None if verbose else FIRST_JOBS)],
    }


def print_result(plan: Plan, result: Result, output_dir: Path) -> None:
    """One paragraph after a run: what was made, what was not, and what to do about it."""
    parts = [f"{result.made:,} made"]
    if plan.done + result.made_elsewhere:
        places = _places(plan, output_dir) if plan.to_make else ""
        parts.append(f"{plan.done + result.made_elsewhere:,} were there already{places}")
    if plan.duplicates:
        parts.append(f"{plan.duplicates:,} duplicates")
    failed = sum(result.failed.values())
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.failed.items())
        parts.append(f"{failed:,} failed ({kinds})")
    if plan.failed_before:
        parts.append(f"{plan.failed_before:,} failed before and were skipped (retry_failed=true)")
    print_line(f"{plan.requested:,} requested: {', '.join(parts)}; model loads: {result.loads}")
    if plan.to_make == 0 and not plan.failed_before:
        print_line(f"nothing to make: every requested image exists{_places(plan, output_dir)}")
    if result.stopped:
        print_line(f"{result.stopped}\neverything finished is kept; {result.way_on}")
    if failed or plan.failed_before:
        why = command(output_dir, """search --where "status <> 'done'" --columns prompt,error_message""")
        print_line(f"why images failed: {why}")
    print_line(f"images and manifest: {output_dir}")


def _job_values(job: Job) -> dict[str, Any]:
    request = job.request
    return {
        "job_id": job.id,
        "name": job.name,
        **{name: getattr(request, name) for name in _TOLD},
        "model": request.model.name,
        "memory": request.memory.level,
        "dtype": request.memory.dtype,
        "tags": list(job.tags),
    }


def _job_text(job: Job) -> str:
    request = job.request
    prompt = request.prompt.replace("\n", " ")
    prompt = prompt if len(prompt) <= 60 else prompt[:57] + "..."
    return (
        f"{job.id[:12]}  {request.model.name}  {request.width}x{request.height}  {request.steps} steps  "
        f"guidance {request.guidance_scale:g}  {request.scheduler}  seed {request.seed}  {prompt}"
    )


def _places(plan: Plan, output_dir: Path) -> str:
    """In which folders the images are that need not be made; a batch of another name may have made them."""
    folders = [str(output_dir / folder) for folder, _ in plan.done_in.most_common()]
    more = f" and {len(folders) - MAX_PLACES} more folders" if len(folders) > MAX_PLACES else ""
    return f" in {', '.join(folders[:MAX_PLACES])}{more}" if folders else ""


def _time_text(seconds: float, covered: int, total: int) -> str:
    if total == 0:
        return "none"
    if covered == 0:
        return "unknown (nothing like it was made here before)"
    text = f"about {duration_text(seconds)}"
    return text if covered == total else f"{text} for {covered:,} of the images, unknown for {total - covered:,}"
