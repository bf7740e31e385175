"""Samplers by the names people know, and the diffusers scheduler and options behind each.

The correspondence between A1111 sampler names and diffusers classes is the table in diffusers' documentation,
`api/schedulers/overview`.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampler:
    """A diffusers scheduler class and the options that make it the named sampler."""

    class_name: str
    options: dict[str, Any] = field(default_factory=dict)


_DEFINING: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
}
"""Options that make one sampler another, with their plain values; classes know them or not."""

_KARRAS = {"use_karras_sigmas": True}
_DPM = "DPMSolverMultistepScheduler"

SAMPLERS: dict[str, Sampler] = {
    "Euler": Sampler("EulerDiscreteScheduler"),
    "Euler Karras": Sampler("EulerDiscreteScheduler", _KARRAS),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler"),
    "DPM2": Sampler("KDPM2DiscreteScheduler"),
    "DPM2 Karras": Sampler("KDPM2DiscreteScheduler", _KARRAS),
    "DPM2 a": Sampler("KDPM2AncestralDiscreteScheduler"),
    "DPM++ 2M": Sampler(_DPM),
    "DPM++ 2M Karras": Sampler(_DPM, _KARRAS),
    "DPM++ 2M SDE": Sampler(_DPM, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": Sampler(_DPM, {"algorithm_type": "sde-dpmsolver++", **_KARRAS}),
    "DDIM": Sampler("DDIMScheduler"),
    "DDPM": Sampler("DDPMScheduler"),
    "PLMS": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": Sampler("UniPCMultistepScheduler"),
    "DEIS": Sampler("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "LCM": Sampler("LCMScheduler"),
    "FlowMatch Euler": Sampler("FlowMatchEulerDiscreteScheduler"),
}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_BY_PLAIN_NAME = {_plain(name): name for name in SAMPLERS}
_BY_CLASS = {sampler.class_name: name for name, sampler in reversed(SAMPLERS.items())}


def scheduler_name(name: str) -> str:
    """The usual name of a sampler given in any spelling (`euler_a`, `dpmpp_2m_karras`, a diffusers class name).

    Raises ValueError with the nearest known name.
    """
    found = _BY_PLAIN_NAME.get(_plain(name)) or _BY_CLASS.get(name)
    if found:
        return found
    near = difflib.get_close_matches(_plain(name), _BY_PLAIN_NAME, n=1, cutoff=0.5)
    hint = f"did you mean {_BY_PLAIN_NAME[near[0]]!r}?" if near else f"known are {', '.join(SAMPLERS)}"
    raise ValueError(f"is no known scheduler; {hint}")


def name_of_class(class_name: str, config: Mapping[str, Any] | None = None) -> str:
    """The usual name for a model's own scheduler; the class name itself where its settings have none."""
    if class_name not in _BY_CLASS:
        return class_name
    absent = {**_DEFINING, **SAMPLERS[_BY_CLASS[class_name]].options, "skip_prk_steps": False}
    own = {**absent, **(config or {})}
    for name, sampler in SAMPLERS.items():
        wanted = {**absent, "skip_prk_steps": own["skip_prk_steps"], **sampler.options}
        if sampler.class_name == class_name and all(own[key] == value for key, value in wanted.items()):
            return name
    return class_name


def make_scheduler(name: str, own: Any) -> Any:
    """A fresh scheduler for one bundle (they keep state): the named one, or the model's own, untouched, by its name.

    `own` is the scheduler that came with the weights; its betas, prediction type and timestep spacing are kept, but not
    what would make the named sampler another one.
    """
    import diffusers

    own_class = type(own)
    if name in (own_class.__name__, name_of_class(own_class.__name__, own.config)):
        return own_class.from_config(own.config)
    sampler = SAMPLERS[name]
    scheduler_class = getattr(diffusers, sampler.class_name)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    defining = {key: value for key, value in {**_DEFINING, **sampler.options}.items() if key in accepted}
    return scheduler_class.from_config(own.config, **defining)
