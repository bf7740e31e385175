"""The memory part of a dry run: for each model and size the predicted peak and the chosen techniques."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs.planning.groups import Group
from jobs.planning.plan import Plan
from pipeline.memory.planning.choose_techniques import least_text
from pipeline.memory.planning.timings import described
from pipeline.system.units import size_text


def memory_lines(plan: Plan, where: str) -> Iterator[str]:
    """One line per kind of picture to make, in order, and one per batch size that will be tried."""
    kinds = dict.fromkeys(_text(group) for group, _ in plan.groups())
    if kinds:
        yield f"memory, by estimate, {where}:"
        yield from (f"  {line}" for line in kinds)
        for group in plan.trials():
            if trial := group.fit.trial:
                what = f"{group.model.name}  {group.likeness.width}x{group.likeness.height}"
                yield f"  {what}  {trial.images} images in batches of {trial.fit.batch_size}, to measure them"


def memory_values(plan: Plan) -> list[dict[str, Any]]:
    """The same for a script."""
    values: dict[str, dict[str, Any]] = {}
    for group, count in plan.groups():
        fit, like = group.fit, group.likeness
        entry = values.setdefault(
            _text(group),
            {
                "model": group.model.name,
                "width": like.width,
                "height": like.height,
                "batch_size": fit.batch_size,
                "seconds_per_image": {str(size): round(seconds, 6) for size, seconds in fit.seconds or ()},
                "tried_batch_sizes": {},
                "images": 0,
                "memory": fit.held.level,
                "techniques": list(fit.held.techniques),
                "predicted_peak_bytes": fit.predicted_peak_bytes,
                "budget_bytes": fit.budget_bytes,
                "fits": fit.fits,
                "least_budget_bytes": fit.least_bytes,
            },
        )
        entry["images"] += count
    for group in plan.trials():
        if trial := group.fit.trial:
            values[_text(group)]["tried_batch_sizes"][str(trial.fit.batch_size)] = trial.images
    return list(values.values())


def _text(group: Group) -> str:
    fit, like = group.fit, group.likeness
    peak = "unknown" if fit.predicted_peak_bytes is None else f"about {size_text(fit.predicted_peak_bytes)}"
    budget = "" if fit.budget_bytes is None else f" of {size_text(fit.budget_bytes)}"
    verdict = "" if fit.fits else f"  does not fit: {least_text(fit.least_bytes)} would do"
    techniques = ", ".join(fit.held.techniques) or "everything resident"
    batch = str(fit.batch_size)
    if fit.seconds is not None:
        batch += f" ({described(fit.seconds, fit.batch_size, like.steps)})"
    return (
        f"{group.model.name}  {like.width}x{like.height}  batch {batch}  {fit.held.dtype}  peak {peak}{budget}"
        f"  {techniques}{verdict}"
    )
