"""Finds the adapters of specs, checks them against the model and hashes them; reads only headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.adapters.combinations import check_adapters
from pipeline.adapters.identify_controlnet import identify_controlnet
from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.init_image import identify_init
from pipeline.adapters.specs import AdapterSpecs, ControlNetSpec, EmbeddingSpec, InitSpec, IpAdapterSpec, LoraSpec
from pipeline.adapters.textual_inversion import identify_embedding
from pipeline.errors import ConfigError, DarkroomError
from pipeline.request import (
    Adapters,
    ControlNetWeights,
    EmbeddingWeights,
    InitImage,
    IpAdapterWeights,
    LoraWeights,
)

if TYPE_CHECKING:
    from pipeline.weights.inspection import ModelFiles

Spec = TypeVar("Spec")
Found = TypeVar("Found")


def identify_adapters(
    specs: AdapterSpecs, init: InitSpec, files: ModelFiles, *, steps: int | None = None, prefix: str = ""
) -> Adapters:
    """Find, check against the model and hash all adapters; reads only headers.

    Raises `ConfigError` with a line for each fault, those at fault named by their place behind `prefix`. With `steps`,
    also where an init image leaves none of them.
    """
    faults: list[str] = []

    def each(key: str, entries: Iterable[Spec], identify: Callable[[Spec], Found]) -> tuple[Found, ...]:
        found = []
        for place, entry in enumerate(entries):
            try:
                found.append(identify(entry))
            except DarkroomError as error:
                where = key if key == "init" else f"{prefix}{key}[{place}]"
                faults.extend(f"{where}: {line}" for line in str(error).splitlines())
        return tuple(found)

    def lora(one: LoraSpec) -> LoraWeights:
        return identify_lora(str(one.source), weight=one.weight, files=files, name=one.name)

    def embedding(one: EmbeddingSpec) -> EmbeddingWeights:
        token = one.token or Path(one.source).stem
        return identify_embedding(str(one.source), token=token, files=files, name=one.name)

    def controlnet(one: ControlNetSpec) -> ControlNetWeights:
        return identify_controlnet(
            str(one.source),
            image=str(one.image),
            preprocess=one.preprocess,
            strength=one.strength,
            start=one.start,
            end=one.end,
            files=files,
            name=one.name,
        )

    def ip_adapter(one: IpAdapterSpec) -> IpAdapterWeights:
        encoder = None if one.encoder is None else str(one.encoder)
        return identify_ip_adapter(
            str(one.source), image=str(one.image), scale=one.scale, encoder=encoder, files=files, name=one.name
        )

    def picture(image: str | Path) -> InitImage:
        return identify_init(str(image), strength=init.strength, files=files)

    loras = each("loras", specs.loras, lora)
    adapters = Adapters(
        # A LoRA of weight 0 is none: the picture is that without it, and is made once.
        loras=tuple(lora for lora in loras if lora.weight),
        embeddings=each("embeddings", specs.embeddings, embedding),
        controlnets=each("controlnets", specs.controlnets, controlnet),
        ip_adapters=each("ip_adapters", specs.ip_adapters, ip_adapter),
        init=next(iter(each("init", [] if init.image is None else [init.image], picture)), None),
    )
    faults = faults or check_adapters(adapters, files, steps)
    if faults:
        raise ConfigError(faults)
    return adapters
