"""How large a model is: counted from the headers of its files, or known from what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from pipeline.memory.techniques import QUANTIZATIONS
from pipeline.memory.working_memory import Parts, denoiser_parts, encoder_parts
from pipeline.models.families import Family
from pipeline.models.model_files import Component, ModelFiles
from pipeline.request import DType, MemorySettings

Role = Literal["encoder", "denoiser", "vae", "other"]

BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "bfloat16": 2}

_STORED = {"int8": 1.0, "float8": 1.0, "int4": 0.5625, "storage": 1.0}
"""Bytes per parameter that is stored smaller: int8 and float8 with one scale per row, NF4 with four bytes per 64
parameters, fp8_storage without any."""

_TINY_VAE = 2_450_000
"""Parameters of AutoencoderTiny."""


@dataclass(frozen=True)
class ComponentSize:
    """One component. `stored_bytes` is set where the file's weights are quantised and stay so."""

    name: str
    role: Role
    parameters: int
    family: str | None = None
    stored_bytes: int | None = None
    tiny: bool = False

    @cached_property
    def parts(self) -> Parts:
        """How its parameters are spread."""
        return denoiser_parts(self.family) if self.role == "denoiser" else encoder_parts(self.parameters)

    def element_bytes(self, dtype: DType) -> int:
        """Bytes per element of its weights and activations.

        SDXL's VAE overflows in float16 and is held as float32 instead (`pipeline/models/precision.py`).
        """
        upcast = self.role == "vae" and self.family == "sdxl" and dtype == "float16" and not self.tiny
        return 4 if upcast else BYTES[dtype]

    def held_bytes(self, memory: MemorySettings) -> int:
        """Bytes of its weights under these settings, wherever they lie."""
        if self.role == "vae" and memory.uses("tiny_vae"):
            return _TINY_VAE * BYTES[memory.dtype]
        if self.stored_bytes is not None:
            return self.stored_bytes
        each: float = self.element_bytes(memory.dtype)
        for name in QUANTIZATIONS.get(self.role, ()):
            if memory.uses(name):
                share = self.parts.cast if name == "fp8_storage" else self.parts.linear
                each = share * _STORED[name.partition("_")[2]] + (1 - share) * each
        return int(self.parameters * each)


@dataclass(frozen=True)
class Sizes:
    """The components of one model."""

    family: str | None
    components: tuple[ComponentSize, ...]

    @classmethod
    def from_files(cls, files: ModelFiles) -> Sizes:
        """As counted in the headers of a model's files."""
        found = (_component(one, files) for one in files.components)
        return cls(files.family, tuple(one for one in found if one.parameters))

    @classmethod
    def published(cls, family: Family, parameters: Mapping[str, float] | None = None) -> Sizes:
        """As published; `parameters` per component replace the family's, for variants of another size."""
        counts = {**family.parameters, **(parameters or {})}
        return cls(
            family.name,
            tuple(
                ComponentSize(name, _role(name, family.denoiser), int(count), family.name)
                for name, count in counts.items()
            ),
        )

    def beside(self, name: str, parameters: int) -> Sizes:
        """With something that works beside the denoiser: a ControlNet, an image encoder."""
        return replace(self, components=(*self.components, ComponentSize(name, "other", parameters, self.family)))

    def largest(self, role: Role) -> ComponentSize | None:
        """The component of this role with the most parameters."""
        found = [component for component in self.components if component.role == role]
        return max(found, key=lambda component: component.parameters, default=None)


def _component(component: Component, files: ModelFiles) -> ComponentSize:
    quantized = component.quantization is not None
    return ComponentSize(
        component.name,
        _role(component.name, files.denoiser),
        component.parameters,
        files.family,
        component.file_bytes if quantized else None,
        tiny=component.class_name == "AutoencoderTiny",
    )


def _role(name: str, denoiser: str) -> Role:
    if name.startswith("text_encoder"):
        return "encoder"
    if name.startswith((denoiser, "unet", "transformer", "prior")):
        return "denoiser"
    return "vae" if name in ("vae", "movq", "vqvae") else "other"
