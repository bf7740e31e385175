"""Adapters as they are asked for: by places and numbers, not yet looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pipeline.adapters.combinations import check_adapters
from pipeline.adapters.controlnet import identify_controlnet
from pipeline.adapters.init_image import identify_init
from pipeline.adapters.ip_adapter import identify_ip_adapter
from pipeline.adapters.lora import identify_lora
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

Asked = TypeVar("Asked")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA: the path of its file, and the weight that it acts with, -10 to 10. With weight 0 it is left out."""

    source: str | Path
    weight: float = 1.0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """A textual inversion: the path of its file, and what stands for it in prompts; None takes the file's name."""

    source: str | Path
    token: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ControlNet:
    """A ControlNet's folder and its picture. `strength` 0 to 2; it acts from `start` to `end`, shares of the steps."""

    source: str | Path
    image: str | Path
    preprocess: Literal["none", "canny"] = "none"
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class IpAdapter:
    """An IP-Adapter's file and its picture; `scale` 0 to 2.

    `encoder` is the folder of the image encoder that it was trained with; None takes `image_encoder/` beside the file.
    """

    source: str | Path
    image: str | Path
    scale: float = 1.0
    encoder: str | Path | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Init:
    """The picture to start from; `strength`, above 0 to 1, says how far to go from it."""

    image: str | Path
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class AdapterSpecs:
    """All that is asked for beside the model for a picture."""

    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    controlnets: tuple[ControlNet, ...] = ()
    ip_adapters: tuple[IpAdapter, ...] = ()
    init: Init | None = None


def identify_adapters(
    asked: AdapterSpecs, files: ModelFiles, *, steps: int | None = None, prefix: str = ""
) -> Adapters:
    """Find, check against the model and hash them all; headers alone are read.

    Raises `ConfigError` with a line for each fault, those at fault named by their place behind `prefix`. With `steps`,
    also where an init image leaves none of them.
    """
    faults: list[str] = []

    def each(key: str, entries: Iterable[Asked], identify: Callable[[Asked], Found]) -> tuple[Found, ...]:
        found = []
        for place, entry in enumerate(entries):
            try:
                found.append(identify(entry))
            except DarkroomError as error:
                where = key if key == "init" else f"{prefix}{key}[{place}]"
                faults.extend(f"{where}: {line}" for line in str(error).splitlines())
        return tuple(found)

    def lora(one: Lora) -> LoraWeights:
        return identify_lora(str(one.source), weight=one.weight, files=files, name=one.name)

    def embedding(one: Embedding) -> EmbeddingWeights:
        token = one.token or Path(one.source).stem
        return identify_embedding(str(one.source), token=token, files=files, name=one.name)

    def controlnet(one: ControlNet) -> ControlNetWeights:
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

    def ip_adapter(one: IpAdapter) -> IpAdapterWeights:
        encoder = None if one.encoder is None else str(one.encoder)
        return identify_ip_adapter(
            str(one.source), image=str(one.image), scale=one.scale, encoder=encoder, files=files, name=one.name
        )

    def start(one: Init) -> InitImage:
        return identify_init(str(one.image), strength=one.strength, files=files)

    loras = each("loras", asked.loras, lora)
    adapters = Adapters(
        # A LoRA of weight 0 is none: the picture is that without it, and is made once.
        loras=tuple(lora for lora in loras if lora.weight),
        embeddings=each("embeddings", asked.embeddings, embedding),
        controlnets=each("controlnets", asked.controlnets, controlnet),
        ip_adapters=each("ip_adapters", asked.ip_adapters, ip_adapter),
        init=next(iter(each("init", [asked.init] if asked.init else [], start)), None),
    )
    faults = faults or check_adapters(adapters, files, steps)
    if faults:
        raise ConfigError(faults)
    return adapters
