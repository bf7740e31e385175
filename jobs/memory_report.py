"""What a dry run says about memory: for each model and size the predicted peak and the techniques chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs.plan import Group, Plan
from pipeline.memory.working_memory import GIB


def memory_lines(plan: Plan, where: str) -> Iterator[str]:
    """One line per kind of picture that is to be made, in order."""
    kinds = dict.fromkeys(_text(group) for group, _ in plan.groups())
    if kinds:
        yield f"memory, by estimate, {where}:"
        yield from (f"  {line}" for line in kinds)


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
    return list(values.values())


def _text(group: Group) -> str:
    fit, like = group.fit, group.likeness
    peak = "unknown" if fit.predicted_peak_bytes is None else f"about {fit.predicted_peak_bytes / GIB:.1f} GB"
    budget = "" if fit.budget_bytes is None else f" of {fit.budget_bytes / GIB:.1f} GB"
    verdict = "" if fit.fits else f"  does not fit: {fit.least_bytes / GIB:.1f} GB would do"
    techniques = ", ".join(fit.held.techniques) or "everything resident"
    return (
        f"{group.model.name}  {like.width}x{like.height}  batch {fit.batch_size}  {fit.held.dtype}  peak {peak}{budget}"
        f"  {techniques}{verdict}"
    )
