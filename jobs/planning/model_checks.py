"""Finds settings that the weights or the memory do not support, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jobs.planning.known_models import KnownModel
from jobs.planning.plan import Plan
from pipeline.adapters.identify import check_adapters
from pipeline.loading.requirements import requirement_faults
from pipeline.loading.sampling_faults import sampling_faults
from pipeline.loading.speed_options import STEP_CACHES
from pipeline.memory.planning.choose_techniques import shortage
from pipeline.request import Adapters, Likeness, MemorySettings, ModelSettings
from pipeline.schedulers import is_scheduler


def unsuitable(plan: Plan, models: Mapping[ModelSettings, KnownModel]) -> list[str]:
    """The settings that the weights do not support: one line each, without repetitions."""
    faults: dict[str, None] = {}
    for group, _ in plan.groups():
        found = settings_faults(group.likeness, group.adapters, group.fit.held, models[group.model])
        faults.update(dict.fromkeys(found))
    return list(faults)


def too_small(plan: Plan) -> list[str]:
    """One line per model and size that fits into the budget with no choice of techniques."""
    lines: dict[str, None] = {}
    for group, _ in plan.groups():
        fit, like = group.fit, group.likeness
        if not fit.fits and fit.budget_bytes is not None:
            lines[shortage(group.model.name, like.width, like.height, fit.budget_bytes, fit.least_bytes)] = None
    return list(lines)


def notes(plan: Plan, models: Mapping[ModelSettings, KnownModel]) -> list[str]:
    """Models whose sizes are not known from their files; no reason not to start."""
    absent = dict.fromkeys(group.model.name for group, _ in plan.groups() if models[group.model].files is None)
    return [f"{name} is not on this machine; its sizes are those published" for name in absent]


def settings_faults(like: Likeness, adapters: Adapters, held: MemorySettings, known: KnownModel) -> Iterator[str]:
    """What these weights do not support of a picture's sampling and adapters, one line each."""
    name, family = known.settings.name, known.family
    if not is_scheduler(like.scheduler) and like.scheduler != known.fallback.scheduler:
        yield f"sampling.scheduler: {like.scheduler!r} is no scheduler of this version of diffusers"
    if like.clip_skip and known.max_clip_skip is not None and like.clip_skip > known.max_clip_skip:
        yield (
            f"sampling.clip_skip: must be at most {known.max_clip_skip} for {name}, whose text encoders have no more "
            f"layers to leave out (got {like.clip_skip})"
        )
    strength = adapters.init.strength if adapters.init else 1.0
    given = (like, known.settings, known.files, family)
    for key, fault in sampling_faults(*given, flow_matching=known.flow_matching, strength=strength):
        yield f"sampling.{key}: {fault}"
    wanted = known.profile.sampling.guidance_scale
    if known.profile.distilled and wanted is not None and like.guidance_scale != wanted:
        yield (
            f"sampling.guidance_scale: {name} is distilled and works with {wanted:g} alone (got "
            f"{like.guidance_scale:g}); leave it out, or set model.distilled=false if these weights are not"
        )
    if known.files is not None:
        yield from requirement_faults(known.files, known.settings, held)
        for fault in check_adapters(adapters, known.files, like.steps):
            yield f"adapters: {fault}"
    cached = STEP_CACHES[like.step_cache] if like.step_cache else None
    if cached is not None and (family is None or family.name not in cached):
        label = family.label if family else known.settings.architecture
        yield (
            f"sampling.step_cache: {like.step_cache} is not available for {label}; diffusers has it for "
            f"{', '.join(sorted(cached))}"
        )
