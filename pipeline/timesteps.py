"""Which numbers of steps a scheduler finds among the timesteps that a model was trained on.

The rules are those of diffusers' `set_timesteps` and `step`, by class: beyond them a scheduler raises an error in the
midst of a picture, or divides by the distance of two equal steps. Nothing here imports diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.scheduler_classes import scheduler_classes
from pipeline.schedulers import SAMPLERS, Sampler, name_of_class

_OWN_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas")
"""Options with which multistep schedulers take their steps along a curve, not from the trained timesteps."""


@dataclass(frozen=True, slots=True)
class _Timesteps:
    """What decides the timesteps: `trained` is `num_train_timesteps`, `distilled` `original_inference_steps`."""

    trained: int
    spacing: str
    offset: int
    distilled: int
    own_sigmas: bool


def _from_table(steps: int, used: int, of: _Timesteps) -> bool:
    """Each timestep is looked up in a table; `used` of the steps are taken, the last ones."""
    return steps <= of.trained and _from_table_of_any_length(steps, used, of)


def _from_table_of_any_length(steps: int, used: int, of: _Timesteps) -> bool:
    return of.spacing != "leading" or (used - 1) * (of.trained // steps) + of.offset < of.trained


def _interpolated(steps: int, used: int, of: _Timesteps) -> bool:
    return of.spacing != "leading" or steps <= of.trained or used < steps


def _multistep(steps: int, used: int, of: _Timesteps) -> bool:
    """These divide by the distance of neighbouring steps: two at the end of what was trained, or beyond, are one."""
    if of.own_sigmas or used < steps:
        return True
    if of.spacing == "leading":
        second = (steps - 1) * (of.trained // (steps + 1)) + of.offset
        return steps < of.trained and (steps == 1 or second < of.trained - 1)
    return steps < of.trained if of.spacing == "linspace" else steps <= of.trained


def _distilled(steps: int, used: int, of: _Timesteps) -> bool:
    return steps <= of.distilled <= of.trained


_RULES: dict[str, tuple[Callable[[int, int, _Timesteps], bool], str]] = {
    **dict.fromkeys(
        ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"), (_from_table, "leading")
    ),
    "PNDMScheduler": (_from_table_of_any_length, "leading"),
    **dict.fromkeys(
        (
            *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
            *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
        ),
        (_interpolated, "linspace"),
    ),
    **dict.fromkeys(
        ("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
        (_multistep, "linspace"),
    ),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), (_distilled, "leading")),
}
"""By class: whether it can take so many steps, and the spacing that it has where none is said."""


def steps_fault(
    name: str,
    steps: int,
    own_class: str,
    own_config: Mapping[str, Any],
    options: Mapping[str, Any],
    strength: float = 1.0,
    *,
    takes_options: bool = True,
) -> str | None:
    """Why a sampler cannot take so many steps, with what can be done; None where it can, or where no rule is known.

    `own_class` and `own_config` are the scheduler that came with the weights, `strength` is that of an init image.
    `takes_options`: whether setting options of the scheduler can be what to do.
    """
    is_own = name in (own_class, name_of_class(own_class, own_config))
    sampler = Sampler(own_class) if is_own else SAMPLERS.get(name) or Sampler(name)
    if sampler.class_name not in _RULES:
        return None
    can_take, spacing = _RULES[sampler.class_name]
    known = scheduler_classes().get(sampler.class_name, ())
    own = own_config if is_own else {key: value for key, value in own_config.items() if key not in _OWN_SIGMAS}
    config = {**{key: value for key, value in own.items() if key in known}, **sampler.options, **options}

    def can(number: int, **changed: Any) -> bool:
        try:
            of = _timesteps({**config, **changed}, spacing)
        except (TypeError, ValueError):
            return True  # a stranger's configuration: diffusers will say what is wrong with it
        return number < 1 or can_take(number, min(int(number * strength), number), of)

    if can(steps):
        return None
    of = _timesteps(config, spacing)
    fewer = next((number for number in range(steps - 1, 0, -1) if can(number)), None)
    ways = [f"take {fewer}"] if fewer else []
    if can_take is _distilled:
        said = f"original_inference_steps {of.distilled}"
        others: dict[str, Any] = {"original_inference_steps": min(max(steps, of.distilled), of.trained)}
    else:
        said = f"timestep_spacing {of.spacing}" + (f", steps_offset {of.offset}" if of.spacing == "leading" else "")
        others = {"timestep_spacing": "trailing"}
    if takes_options and can(steps, **others):
        words = ", ".join(f"{key}: {value}" for key, value in others.items())
        ways.append(f"sampling.scheduler_options={{{words}}}")
    return (
        f"{name} cannot take {steps:,} steps of the {of.trained:,} timesteps that the model was trained on ({said}); "
        f"{', or '.join(ways) or 'choose another scheduler'}"
    )


def _timesteps(config: Mapping[str, Any], spacing: str) -> _Timesteps:
    """Of a scheduler's whole configuration. Raises `TypeError` and `ValueError` for values that are none."""
    return _Timesteps(
        trained=int(config.get("num_train_timesteps", 1000)),
        spacing=str(config.get("timestep_spacing", spacing)),
        offset=int(config.get("steps_offset", 0)),
        distilled=int(config.get("original_inference_steps", 50)),
        own_sigmas=any(config.get(key) for key in _OWN_SIGMAS),
    )
