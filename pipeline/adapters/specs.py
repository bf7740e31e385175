"""Adapters as they are asked for, by paths and numbers: one definition of each, for YAML and for the Python API.

Entries of lists are dataclasses, so that Python may write `LoraSpec("style.safetensors", 0.8)`. Nothing is checked when
one is made: it is when a configuration or a request that holds it is validated, with everything else that is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.ranges import STRICT, InitStrength, PathText, Share, Strength, Text, Weight
from pipeline.request import Preprocess

_CHECKED_IN_PLACE = ConfigDict(**STRICT, revalidate_instances="always")


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A LoRA: the path of its file, and the weight that it acts with, -10 to 10. With weight 0 it is left out."""

    __pydantic_config__ = _CHECKED_IN_PLACE

    source: PathText
    weight: Weight = 1.0
    name: Text | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """A textual inversion: the path of its file, and what stands for it in prompts; None takes the file's name."""

    __pydantic_config__ = _CHECKED_IN_PLACE

    source: PathText
    token: Text | None = None
    name: Text | None = None


@dataclass(frozen=True, slots=True)
class ControlNetSpec:
    """A ControlNet's folder and its picture. `strength` 0 to 2; it acts from `start` to `end`, shares of the steps."""

    __pydantic_config__ = _CHECKED_IN_PLACE

    source: PathText
    image: PathText
    preprocess: Preprocess = "none"
    strength: Strength = 1.0
    start: Share = 0.0
    end: Share = 1.0
    name: Text | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ControlNetSpec:
        if self.start >= self.end:
            raise ValueError(f"start must lie before end (got {self.start:g} and {self.end:g})")
        return self


@dataclass(frozen=True, slots=True)
class IpAdapterSpec:
    """An IP-Adapter's file and its picture; `scale` 0 to 2.

    `encoder` is the folder of the image encoder that it was trained with; None takes `image_encoder/` beside the file.
    """

    __pydantic_config__ = _CHECKED_IN_PLACE

    source: PathText
    image: PathText
    scale: Strength = 1.0
    encoder: PathText | None = None
    name: Text | None = None


class AdapterSpecs(BaseModel):
    """All that is put on or beside the model."""

    model_config = STRICT

    loras: list[LoraSpec] = []
    embeddings: list[EmbeddingSpec] = []
    controlnets: list[ControlNetSpec] = []
    ip_adapters: list[IpAdapterSpec] = []


class InitSpec(BaseModel):
    """The picture to start from, None for none; `strength`, above 0 to 1, says how far to go from it."""

    model_config = STRICT

    image: PathText | None = None
    strength: InitStrength = 0.6
