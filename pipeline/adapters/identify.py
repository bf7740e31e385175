"""Finds the adapters of specs, checks them against the model and hashes them; reads only headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pipeline.adapters.find_weights import family_label
from pipeline.adapters.identify_controlnet import identify_controlnet
from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.reference_images import identify_init
from pipeline.adapters.specs import AdapterSpecs, InitSpec
from pipeline.adapters.textual_inversion import identify_embedding
from pipeline.errors import ConfigError, DarkroomError
from pipeline.request import Adapters, InitImage
from pipeline.weights.inspection import ModelFiles

Spec = TypeVar("Spec")
Found = TypeVar("Found")

_NO_IP_ADAPTER_WITH_BOTH = ("flux",)
"""Families whose pipeline for an init image with a ControlNet takes no IP-Adapter (its call in diffusers 0.42)."""

_ALWAYS_ON = ("sana",)
"""Families whose ControlNet works on all steps: their pipelines know no start and end."""

_SINGLE_CONTROLNET = ("sana", "qwen_image")
_SINGLE_IP_ADAPTER = ("sd3",)


def identify_adapters(
    specs: AdapterSpecs, init: InitSpec, files: ModelFiles, *, steps: int | None = None, prefix: str = ""
) -> Adapters:
    """Find, check against the model and hash all adapters; reads only headers.

    Raises `ConfigError` with a line for each fault, those at fault named by their place behind `prefix`. With `steps`,
    also where an init image leaves none of them.
    """
    faults: list[str] = []

    def each(key: str, entries: Iterable[Spec], identify: Callable[[Spec, ModelFiles], Found]) -> tuple[Found, ...]:
        found = []
        for place, entry in enumerate(entries):
            try:
                found.append(identify(entry, files))
            except DarkroomError as error:
                where = key if key == "init" else f"{prefix}{key}[{place}]"
                faults.extend(f"{where}: {line}" for line in str(error).splitlines())
        return tuple(found)

    def start(image: str | Path, files: ModelFiles) -> InitImage:
        return identify_init(str(image), init.strength, files)

    loras = each("loras", specs.loras, identify_lora)
    adapters = Adapters(
        # A LoRA of weight 0 is none: the picture is that without it, and is made once.
        loras=tuple(lora for lora in loras if lora.weight),
        embeddings=each("embeddings", specs.embeddings, identify_embedding),
        controlnets=each("controlnets", specs.controlnets, identify_controlnet),
        ip_adapters=each("ip_adapters", specs.ip_adapters, identify_ip_adapter),
        init=next(iter(each("init", [] if init.image is None else [init.image], start)), None),
    )
    faults = faults or check_adapters(adapters, files, steps)
    if faults:
        raise ConfigError(faults)
    return adapters


def check_adapters(adapters: Adapters, files: ModelFiles, steps: int | None = None) -> list[str]:
    """Impossible combinations, one sentence each. With `steps`, also whether an init image leaves any of them."""
    family, label = family_label(files)
    name = family.name if family else ""
    faults = []
    both = adapters.init and adapters.controlnets
    if both and not (family and family.controlnet_img2img):
        faults.append(f"diffusers has no pipeline for {label} that takes an init image and a ControlNet; leave one out")
    if both and adapters.ip_adapters and name in _NO_IP_ADAPTER_WITH_BOTH:
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
