"""Samplers by the names people know, and the diffusers scheduler and options behind each.

The correspondence between A1111 sampler names and diffusers classes is the table in diffusers' documentation,
`api/schedulers/overview`. Any other scheduler class of diffusers goes by its own name.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator

from pipeline.scheduler_classes import is_diffusion, is_flow, scheduler_classes


@dataclass(frozen=True, slots=True)
class Sampler:
    """A diffusers scheduler class and the options that make it the named sampler."""

    class_name: str
    options: dict[str, Any] = field(default_factory=dict)


_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")

_DEFINING: dict[str, Any] = {
    **dict.fromkeys(_SIGMAS, False),
    "use_lu_lambdas": False,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "skip_prk_steps": False,
}
"""Options that make one sampler another, with their plain values; classes know them or not."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "DPMSolverMultistepScheduler": {"solver_type": "midpoint"},
    "DEISMultistepScheduler": {"algorithm_type": "deis"},
}
"""Where a class has another plain value, or one more."""

_DPM = "DPMSolverMultistepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}

_PLAIN: dict[str, Sampler] = {
    "Euler": Sampler("EulerDiscreteScheduler"),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler"),
    "LMS": Sampler("LMSDiscreteScheduler"),
    "DPM2": Sampler("KDPM2DiscreteScheduler"),
    "DPM2 a": Sampler("KDPM2AncestralDiscreteScheduler"),
    "DPM++ 2M": Sampler(_DPM),
    "DPM++ 2M SDE": Sampler(_DPM, _SDE),
    "DPM++ 2M SDE Heun": Sampler(_DPM, {**_SDE, "solver_type": "heun"}),
    "DPM++ 3M SDE": Sampler(_DPM, {**_SDE, "solver_order": 3}),
    "DPM++ SDE": Sampler("DPMSolverSinglestepScheduler", _SDE),
    "DDIM": Sampler("DDIMScheduler"),
    "DDPM": Sampler("DDPMScheduler"),
    "PLMS": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": Sampler("UniPCMultistepScheduler"),
    "DEIS": Sampler("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "LCM": Sampler("LCMScheduler"),
    "TCD": Sampler("TCDScheduler"),
    "FlowMatch Euler": Sampler("FlowMatchEulerDiscreteScheduler"),
    "FlowMatch Heun": Sampler("FlowMatchHeunDiscreteScheduler"),
    "FlowMatch LCM": Sampler("FlowMatchLCMScheduler"),
}

_SPACED = {
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Beta": {"use_beta_sigmas": True},
}
"""A1111's schedule types that are options of diffusers, by the word that follows the sampler's name."""

_TAKES_SPACING = ("Euler", "Heun", "LMS", "DPM2", "DPM2 a", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun",
                  "DPM++ 3M SDE", "DPM++ SDE", "UniPC")  # fmt: skip

SAMPLERS: dict[str, Sampler] = {
    name: sampler
    for plain, one in _PLAIN.items()
    for name, sampler in (
        (plain, one),
        *(
            (f"{plain} {word}", Sampler(one.class_name, {**one.options, **options}))
            for word, options in (_SPACED.items() if plain in _TAKES_SPACING else ())
        ),
    )
}
"""Every sampler that has a name of its own."""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_BY_LETTERS = {_letters(name): name for name in SAMPLERS}
_BY_CLASS = {sampler.class_name: name for name, sampler in reversed(SAMPLERS.items())}


def scheduler_name(name: str) -> str:
    """The usual name of a sampler given in any spelling (`euler_a`, `dpmpp_2m_karras`, a diffusers class name).

    A class that makes no named sampler keeps its name. Raises ValueError with the nearest known name.
    """
    found = _BY_LETTERS.get(_letters(name)) or (name_of_class(name) if name in _BY_CLASS else None)
    if found:
        return found
    if name.endswith("Scheduler") and name in scheduler_classes():
        return name
    known = {**_BY_LETTERS, **{_letters(one): one for one in scheduler_classes() if name.endswith("Scheduler")}}
    near = difflib.get_close_matches(_letters(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {known[near[0]]!r}?" if near else f"known are {', '.join(_PLAIN)}"
    raise ValueError(f"is no known scheduler; {hint}")


SchedulerName = Annotated[
    str, BeforeValidator(lambda value: scheduler_name(value) if isinstance(value, str) else value)
]
"""A sampler in any spelling, for pydantic; what is validated is its usual name."""


def name_of_class(class_name: str, config: Mapping[str, Any] | None = None) -> str:
    """The usual name for a model's own scheduler; the class name itself where its settings have none."""
    plain = {**_DEFINING, **_DEFAULTS.get(class_name, {})}
    own = {**plain, **(config or {})}
    if config is None and class_name == "PNDMScheduler":
        return "PLMS"
    for name, sampler in SAMPLERS.items():
        wanted = {**plain, **sampler.options}
        if sampler.class_name == class_name and all(own[key] == value for key, value in wanted.items()):
            return name
    return class_name


def is_scheduler(name: str) -> bool:
    """Whether this is a sampler's name, or that of a scheduler class of the installed diffusers."""
    return name in SAMPLERS or name in scheduler_classes()


def fits(name: str, flow_matching: bool) -> bool:
    """Whether a sampler can drive a model that was trained on a flow, or one that was not."""
    sampler = SAMPLERS.get(name) or Sampler(name)
    options = scheduler_classes().get(sampler.class_name)
    if options is None:
        return True  # a class of another version of diffusers, or the model's own
    if not flow_matching:
        return is_diffusion(options)
    spaced = any(sampler.options.get(key) for key in _SIGMAS)  # of a noise schedule, which a flow has none of
    return is_flow(sampler.class_name, options) and (not spaced or sampler.class_name.startswith("FlowMatch"))


def scheduler_faults(name: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """What a sampler lacks: options that its class does not have, packages that it needs."""
    sampler = SAMPLERS.get(name) or Sampler(name)
    known = scheduler_classes().get(sampler.class_name)
    faults = []
    for option in options or {}:
        if known is not None and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            faults.append(f"{name} takes no option {option!r}; {hint}")
    wanted = {**sampler.options, **(options or {})}
    package = "scipy" if sampler.class_name == "LMSDiscreteScheduler" or wanted.get("use_beta_sigmas") else ""
    package = "torchsde" if sampler.class_name == "DPMSolverSDEScheduler" else package
    if package and importlib.util.find_spec(package) is None:
        faults.append(f"{name} needs the package {package}: pip install {package}")
    return faults


def make_scheduler(name: str, own: Any, options: Mapping[str, Any] | None = None) -> Any:
    """A fresh scheduler for one batch (they keep state): the named one, or the model's own, untouched, by its name.

    `own` is the scheduler that came with the weights; its betas, prediction type and timestep spacing are kept, but not
    what would make the named sampler another one. `options` come last.
    """
    import diffusers

    own_class, options = type(own), dict(options or {})
    if name in (own_class.__name__, name_of_class(own_class.__name__, own.config)):
        return _lenient(own_class.from_config(own.config, **options))
    if not is_scheduler(name):  # it may come from a file, and would name anything in the module
        raise ValueError(f"{name!r} is no known scheduler")
    sampler = SAMPLERS.get(name) or Sampler(name)
    scheduler_class = getattr(diffusers, sampler.class_name)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    wanted = {**_DEFINING, **_DEFAULTS.get(sampler.class_name, {}), **sampler.options} if name in SAMPLERS else {}
    if own.config.get("prediction_type") == "flow_prediction" or own_class.__name__.startswith("FlowMatch"):
        shift = own.config.get("shift", own.config.get("flow_shift", 1.0))
        wanted |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift, "shift": shift}
    chosen = {**{key: value for key, value in wanted.items() if key in accepted}, **options}
    return _lenient(scheduler_class.from_config(own.config, **chosen))


def _lenient(scheduler: Any) -> Any:
    """Let flow pipelines hand sigmas and a shift to schedulers that make their own.

    They pass both to whatever scheduler they have, as they would to FlowMatch Euler, and many fail on what they get.
    """
    config = scheduler.config
    if not config.get("use_flow_sigmas") and type(scheduler).__name__ != "FlowMatchHeunDiscreteScheduler":
        return scheduler
    set_timesteps = scheduler.set_timesteps
    accepted = inspect.signature(set_timesteps).parameters

    def set_own_timesteps(
        num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        import numpy as np

        passed: dict[str, Any] = {}
        if sigmas is not None and "sigmas" in accepted:
            passed["sigmas"] = np.asarray(sigmas)
        if mu is not None and config.get("use_dynamic_shifting"):
            if "mu" in accepted:
                passed["mu"] = mu
            else:  # the same curve by another name: FlowMatch Euler's exponential shift
                scheduler.register_to_config(shift=float(np.exp(mu)))
        set_timesteps(len(sigmas) if sigmas is not None else num_inference_steps, device=device, **passed)

    scheduler.set_timesteps = set_own_timesteps
    return scheduler
