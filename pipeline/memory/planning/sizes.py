"""The sizes of a model: counted from its files' headers, or published ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pipeline.memory.planning.techniques import QUANTIZATIONS
from pipeline.memory.planning.working_memory import ComponentParts, denoiser_parts, encoder_parts
from pipeline.request import Adapters, DType, LoraWeights, MemorySettings
from pipeline.weights.families import ENCODES_CONTROL_IMAGES, Family
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.model_files import Component, ModelFiles

Role = Literal["encoder", "denoiser", "vae", "other"]

BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "bfloat16": 2}

_STORED = {"int8": 1.0, "float8": 1.0, "int4": 0.5625, "storage": 1.0}
"""Bytes per parameter that is stored smaller: int8 and float8 with one scale per row, NF4 with four bytes per 64
parameters, fp8_storage without any."""

_TINY_VAE = 2_450_000
"""Parameters of AutoencoderTiny."""

IDLE_LORA_BYTES = 2**28
"""Of LoRAs that are switched off, what may stay on a model for the next picture that wants them. To load one again
takes a second; to leave no room for it would cost every picture."""


@dataclass(frozen=True)
class ComponentSize:
    """One component. `stored_bytes` is set where the file's weights are quantised and stay so.

    `file_dtype` is the type that its file has, None where there is no file yet; published weights have 16 bits.
    `added` counts the numbers that LoRAs and IP-Adapters put into it, `idle` those of LoRAs that may be there without
    being wanted. They are never quantised, but stream with the component.
    """

    name: str
    role: Role
    parameters: int
    family: str | None = None
    stored_bytes: int | None = None
    file_dtype: str | None = None
    tiny: bool = False
    added: int = 0
    idle: int = 0

    @cached_property
    def parts(self) -> ComponentParts:
        """How the component's parameters are spread over its parts."""
        return denoiser_parts(self.family) if self.role == "denoiser" else encoder_parts(self.parameters)

    def element_bytes(self, dtype: DType) -> int:
        """Bytes per element of its weights and activations.

        The VAEs of SDXL and Sana overflow in float16 and use float32 instead (`pipeline/loading/precision.py`).
        """
        upcast = self.role == "vae" and self.family in ("sdxl", "sana") and dtype == "float16" and not self.tiny
        return 4 if upcast else BYTES[dtype]

    def held_bytes(self, memory: MemorySettings) -> int:
        """Bytes of its weights with these settings, on whatever device."""
        each: float = self.element_bytes(memory.dtype)
        return self._own_bytes(memory) + int(self.added * each + min(self.idle * each, IDLE_LORA_BYTES))

    def is_mapped(self, dtype: DType) -> bool:
        """Whether its weights are used unchanged from their file, which then takes no memory until it is read."""
        return dtype == (self.file_dtype or "float16") or (self.file_dtype is None and dtype == "bfloat16")

    def _own_bytes(self, memory: MemorySettings) -> int:
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
    """The components of one model. `encodes_pictures`: the VAE is needed while denoising, to encode an init image or a
    control picture.
    """

    family: str | None
    components: tuple[ComponentSize, ...]
    encodes_pictures: bool = False

    @classmethod
    def from_files(cls, files: ModelFiles) -> Sizes:
        """The sizes counted from the headers of a model's files."""
        found = (_component(one, files) for one in files.components)
        return cls(files.family, tuple(one for one in found if one.parameters))

    @classmethod
    def published(cls, family: Family, parameters: Mapping[str, float] | None = None) -> Sizes:
        """The published sizes; `parameters` per component replace the family's, for variants of another size."""
        counts = {**family.parameters, **(parameters or {})}
        return cls(
            family.name,
            tuple(
                ComponentSize(name, _role(name, family.denoiser), int(count), family.name)
                for name, count in counts.items()
            ),
        )

    def beside(self, name: str, parameters: int) -> Sizes:
        """These sizes with a further component that runs with the denoiser: a ControlNet, an image encoder."""
        return replace(self, components=(*self.components, ComponentSize(name, "other", parameters, self.family)))

    def with_adapters(self, adapters: Adapters, others: Collection[LoraWeights] = ()) -> Sizes:
        """These sizes with those of adapters, from the headers of their files; those of one hash are read once.

        `others` are LoRAs that other pictures of the same model are made with: some of them stay on it, switched off.
        """
        sizes = self
        for source, sha256 in dict.fromkeys(_models_beside(adapters)):
            sizes = sizes.beside(source, _parameters(sha256, source))
        steered = bool(adapters.controlnets) and self.family in ENCODES_CONTROL_IMAGES
        sizes = replace(sizes, encodes_pictures=steered or adapters.init is not None)
        wanted = {one.sha256: one for one in adapters.loras}
        idle = {one.sha256: one for one in others if one.sha256 not in wanted}
        into_denoiser = sum(_lora_numbers(one.sha256, one.source)[0] for one in wanted.values())
        into_denoiser += sum(_parameters(one.sha256, one.source) for one in adapters.ip_adapters)
        into_encoders = sum(_lora_numbers(one.sha256, one.source)[1] for one in wanted.values())
        switched_off = (sum(_lora_numbers(one.sha256, one.source)) for one in idle.values())
        small = sum(numbers for numbers in switched_off if numbers * BYTES["bfloat16"] <= IDLE_LORA_BYTES)
        sizes = sizes._with("denoiser", added=into_denoiser, idle=small)
        return sizes._with("encoder", added=into_encoders)

    def _with(self, role: Role, **numbers: int) -> Sizes:
        largest = self.largest(role)
        if largest is None or not any(numbers.values()):
            return self
        changed = replace(largest, **numbers)  # type: ignore[arg-type]
        return replace(self, components=tuple(changed if one is largest else one for one in self.components))

    def largest(self, role: Role) -> ComponentSize | None:
        """The component of this role with the most parameters."""
        found = [component for component in self.components if component.role == role]
        return max(found, key=lambda component: component.parameters, default=None)


def _models_beside(adapters: Adapters) -> Iterator[tuple[str, str]]:
    """Path and hash of what works beside the denoiser: ControlNets and the image encoders of IP-Adapters."""
    yield from ((one.source, one.sha256) for one in adapters.controlnets)
    encoders = ((one.encoder_source, one.encoder_sha256) for one in adapters.ip_adapters)
    yield from ((source, sha256) for source, sha256 in encoders if source and sha256)


@lru_cache(maxsize=1024)
def _parameters(sha256: str, source: str) -> int:
    return inspect_file(Path(source)).parameters


@lru_cache(maxsize=1024)
def _lora_numbers(sha256: str, source: str) -> tuple[int, int]:
    """What a LoRA, known by its hash, adds to the denoiser and to the text encoders."""
    facts = inspect_file(Path(source))
    return facts.for_denoiser, facts.for_encoders


def _component(component: Component, files: ModelFiles) -> ComponentSize:
    return ComponentSize(
        component.name,
        _role(component.name, files.denoiser),
        component.parameters,
        files.family,
        component.file_bytes if component.stays_quantized else None,
        component.dtype,
        tiny=component.class_name == "AutoencoderTiny",
    )


def _role(name: str, denoiser: str) -> Role:
    if name.startswith("text_encoder"):
        return "encoder"
    if name.startswith((denoiser, "unet", "transformer", "prior")):
        return "denoiser"
    return "vae" if name in ("vae", "movq", "vqvae") else "other"
