"""Samplers by the names people know, and the diffusers scheduler and options behind each.

The correspondence between A1111 sampler names and diffusers classes is the table in diffusers' documentation,
`api/schedulers/overview`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampler:
    """A diffusers scheduler class and the options that make it the named sampler."""

    class_name: str
    options: dict[str, Any] = field(default_factory=dict)


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
    "PLMS": Sampler("PNDMScheduler"),
    "UniPC": Sampler("UniPCMultistepScheduler"),
    "DEIS": Sampler("DEISMultistepScheduler"),
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


def name_of_class(class_name: str) -> str:
    """The usual name for a model's own scheduler class; the class name itself where there is none."""
    return _BY_CLASS.get(class_name, class_name)


def make_scheduler(name: str, own: Any) -> Any:
    """A fresh scheduler for one bundle (they keep state): the model's own, or another one on the same noise schedule.

    `own` is the scheduler that came with the weights; its betas, prediction type and timestep spacing are kept.
    """
    import diffusers

    sampler = SAMPLERS.get(name)
    if sampler is None or (type(own).__name__ == sampler.class_name and not sampler.options):
        return type(own).from_config(own.config)
    return getattr(diffusers, sampler.class_name).from_config(own.config, **sampler.options)
