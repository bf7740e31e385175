"""Settings of sampling that a model does not support, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.loading.components import scheduler_config
from pipeline.request import Likeness, ModelSettings
from pipeline.schedulers import fits, scheduler_faults
from pipeline.timesteps import steps_fault
from pipeline.weights.families import Family
from pipeline.weights.inspection import ModelFiles


def sampling_faults(
    like: Likeness,
    settings: ModelSettings,
    files: ModelFiles | None,
    family: Family | None,
    *,
    flow_matching: bool,
    strength: float = 1.0,
    takes_options: bool = True,
) -> Iterator[tuple[str, str]]:
    """The name of each setting at fault, with what is wrong with it and what can be done.

    `files` is None for weights that are not here, of which less is known; `strength` is that of an init image.
    `takes_options`: whether who asks can set options of the scheduler, as the way out of a fault.
    """
    if not fits(like.scheduler, flow_matching):
        kind = "a flow-matching" if flow_matching else "no flow-matching"
        yield "scheduler", f"{like.scheduler} does not suit {settings.name}, {kind} model"
    for fault in scheduler_faults(like.scheduler, dict(like.scheduler_options)):
        yield "scheduler_options" if takes_options else "scheduler", fault
    if files is not None:
        own, options = (files.scheduler_class, scheduler_config(files, settings)), dict(like.scheduler_options)
        if too_many := steps_fault(like.scheduler, like.steps, *own, options, strength, takes_options=takes_options):
            yield "steps", too_many
    if family is None:
        return
    for name, side in (("width", like.width), ("height", like.height)):
        if side % family.size_multiple:
            below = max(family.size_multiple, side // family.size_multiple * family.size_multiple)
            yield (
                name,
                f"must be a multiple of {family.size_multiple} for {family.label}, for instance "
                f"{below} or {below + family.size_multiple} (got {side})",
            )
