"""Which adapters can be combined on a model."""

from __future__ import annotations

from collections import Counter

from pipeline.adapters.find_weights import family_label
from pipeline.request import Adapters
from pipeline.weights.inspection import ModelFiles

_NO_IP_ADAPTER_WITH = {("flux", "controlnet_img2img")}
"""Pipelines of a family with IP-Adapters that take none (read off their calls in diffusers 0.42)."""

_ALWAYS_ON = ("sana",)
"""Families whose ControlNet works on all steps: their pipelines know no start and end."""

_SINGLE_CONTROLNET = ("sana", "qwen_image")
_SINGLE_IP_ADAPTER = ("sd3",)


def check_adapters(adapters: Adapters, files: ModelFiles, steps: int | None = None) -> list[str]:
    """Impossible combinations, one sentence each. With `steps`, also whether an init image leaves any of them."""
    family, label = family_label(files)
    name = family.name if family else ""
    faults = []
    if adapters.init and adapters.controlnets and not (family and family.controlnet_img2img):
        faults.append(f"diffusers has no pipeline for {label} that takes an init image and a ControlNet; leave one out")
    task = "controlnet_img2img" if adapters.init and adapters.controlnets else ""
    if adapters.ip_adapters and (name, task) in _NO_IP_ADAPTER_WITH:
        faults.append(f"{label} takes no IP-Adapter beside an init image with a ControlNet; leave one out")
    if len(adapters.controlnets) > 1 and name in _SINGLE_CONTROLNET:
        faults.append(f"{label} takes one ControlNet, not {len(adapters.controlnets)}")
    if len(adapters.ip_adapters) > 1 and name in _SINGLE_IP_ADAPTER:
        faults.append(f"{label} takes one IP-Adapter, not {len(adapters.ip_adapters)}")
    for controlnet in adapters.controlnets:
        if name in _ALWAYS_ON and (controlnet.start, controlnet.end) != (0.0, 1.0):
            faults.append(f"controlnet {controlnet.name}: works on all steps of {label}; leave start at 0 and end at 1")
    tokens = Counter(embedding.token for embedding in adapters.embeddings)
    faults += [
        f"token {token!r} stands for {count} embeddings; give each its own"
        for token, count in tokens.items()
        if count > 1
    ]
    if adapters.init and steps is not None and int(steps * adapters.init.strength) < 1:
        faults.append(
            f"init image: strength {adapters.init.strength:g} of {steps} steps leaves none; raise strength or steps"
        )
    return faults
