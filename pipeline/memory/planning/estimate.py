"""Estimates how much memory a model will need, stage by stage, before it is loaded.

stage     on the device                                        works with
encode    text encoders, and unless staged all the rest        one prompt
denoise   denoiser, and unless staged all the rest             a batch, twice with guidance in one pass
decode    VAE, and unless staged all the rest                  a batch, a picture, or a tile
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.memory.planning.sizes import BYTES, ComponentSize, Role
from pipeline.memory.planning.sizes import Sizes as Sizes
from pipeline.memory.planning.techniques import QUANTIZATIONS, STREAMING
from pipeline.memory.planning.working_memory import ENCODING, decode_elements, denoise_elements, encode_elements, tiled
from pipeline.request import MemorySettings
from pipeline.system.units import GIB
from pipeline.weights.families import FAMILIES

Stage = Literal["encode", "denoise", "decode"]
STAGES: dict[Stage, Role] = {"encode": "encoder", "denoise": "denoiser", "decode": "vae"}
"""Each stage and whose turn it is."""

OVERHEAD: dict[str, int] = {"cuda": 17 * GIB // 20, "mps": GIB // 2, "cpu": GIB // 2}
"""What lies on the device besides tensors: CUDA's context and libraries (0.3 to 0.8 GiB) and cuBLAS' workspace, or a
Python process with torch and diffusers (0.4 GiB measured before, 0.5 after the first run). Checked against the peaks
that others published for Qwen-Image."""

_HOST_PROCESS = 3 * GIB // 2
"""The same on the host of a GPU, with CUDA's libraries loaded."""

_PINNED_TWICE = 2
"""diffusers' group offloading keeps a page-locked copy of what it streams ("2x the model size", its documentation)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a batch: pictures of one size in pixels. `guided`: with classifier-free guidance."""

    width: int
    height: int
    batch: int = 1
    guided: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted memory in bytes. `peak_bytes` is the process's share of the device, as `nvidia-smi` shows it.

    `stage_bytes` are tensors alone, to be compared with what torch says it has allocated. `loading_bytes` are weights
    in main memory, before any stage, at most. There, and in `host_bytes`, pages of mapped files do not count, which the
    system can take back. On a CPU the device is the host.

    What comes to the device: `passing_bytes` in every pass through the denoiser, `encoder_passing_bytes` for every
    text, `moved_bytes` once a bundle; `read_bytes` are read from a disk once a bundle.
    """

    peak_bytes: int
    stage_bytes: dict[str, int]
    loading_bytes: int
    host_bytes: int
    passing_bytes: int = 0
    encoder_passing_bytes: int = 0
    moved_bytes: int = 0
    read_bytes: int = 0


def estimate(sizes: Sizes, memory: MemorySettings, shape: Shape, device_kind: str) -> Estimate:
    """The peak of each stage with these techniques. `resident_blocks` fill up `memory.budget_bytes`."""
    model = _Held(sizes, memory, shape, device_kind)
    stages: dict[str, int] = {stage: model.weights(stage) + model.working(stage) for stage in STAGES}
    loading = model.loading()
    peak = max(*stages.values(), loading if model.on_host else 0) + OVERHEAD[device_kind]
    return Estimate(peak, stages, loading, peak if model.on_host else model.host(), *model.traffic())


def resident_bytes(sizes: Sizes, memory: MemorySettings, shape: Shape, device_kind: str, role: Role) -> int:
    """With `resident_blocks`: bytes of blocks of the largest component of this role that may stay on the device.

    What is in no block and the two blocks that pass through are beside it. The bytes of the whole component, if all of
    it can stay; 0 without a budget.
    """
    component = sizes.largest(role)
    if component is None:
        return 0
    return _Held(sizes, memory, shape, device_kind).resident(component)


class _Held:
    """A model under some techniques, for pictures of one shape."""

    def __init__(self, sizes: Sizes, memory: MemorySettings, shape: Shape, device_kind: str) -> None:
        self.sizes, self.memory, self.shape, self.kind = sizes, memory, shape, device_kind
        self.on_host = device_kind != "cuda"
        on = set(memory.techniques)
        self.dropped = "drop_encoders" in on
        self.one_by_one = "model_offload" in on and not self.on_host
        self.from_disk = "disk_offload" in on
        # On a host without a device of its own, what waits there is in memory all the same; only a disk is elsewhere.
        self.streamed = not on.isdisjoint(STREAMING) and (not self.on_host or self.from_disk)
        self.resident_blocks = "resident_blocks" in on
        self.by_block = "block_offload" in on
        self.staged = "staged" in on and not self.on_host
        self.held = {component.name: component.held_bytes(memory) for component in sizes.components}

    def weights(self, stage: Stage) -> int:
        """Bytes of weights on the device."""
        there = [one for one in self.sizes.components if self._is_there(one, stage)]
        if self.one_by_one:  # but for what works beside the denoiser
            beside = sum(self._on_device(one) for one in there if one.role == "other")
            return beside + max((self._on_device(one) for one in there if one.role != "other"), default=0)
        return sum(self._on_device(one) for one in there)

    def working(self, stage: Stage) -> int:
        """Bytes that the stage needs beside weights."""
        sizes, shape, dtype = self.sizes, self.shape, self.memory.dtype
        component = sizes.largest(STAGES[stage])
        if component is None:
            return 0
        each = component.element_bytes(dtype)
        # A layer that is stored in fewer bits has 16 while it computes.
        is_packed = component.stored_bytes is not None or self._quantised(component)
        unpacked = component.parts.unpacked * component.parameters * each if is_packed else 0
        if stage == "encode":
            return int(encode_elements(component.parameters) * each + unpacked)
        if stage == "denoise":
            family = FAMILIES.get(sizes.family) if sizes.family else None
            passes = shape.batch * (2 if shape.guided and (family is None or family.doubles_batch) else 1)
            elements = denoise_elements(
                sizes.family, component.parameters, shape.width, shape.height, with_loras=component.added > 0
            )
            encoding = self._decoding(1) * ENCODING if sizes.encodes_pictures else 0
            return int(max(elements * passes * each + unpacked, encoding))
        return self._decoding(1 if self.memory.uses("vae_slicing") else shape.batch)

    def _decoding(self, count: int) -> int:
        """Bytes that the VAE needs for so many pictures at once."""
        sizes, shape, dtype = self.sizes, self.shape, self.memory.dtype
        component = sizes.largest("vae")
        if component is None:
            return 0
        each = component.element_bytes(dtype)
        tiny = component.tiny or self.memory.uses("tiny_vae")
        pixels: float = shape.width * shape.height
        if self.memory.uses("vae_tiling"):
            pixels = tiled(pixels)
        elements = decode_elements(sizes.family, component.parameters, pixels, tiny=tiny, on_cpu=self.kind == "cpu")
        return int(elements * count * (BYTES[dtype] if tiny else each))

    def loading(self) -> int:
        """Bytes of weights in main memory while the components come out of their files, one after the other.

        What is to be stored in fewer bits is there in its full precision first, unless it is mapped from a file that
        has it so. What is streamed from disk goes there in pieces (`pipeline/loading/conversion.py`).
        """
        most = there = 0
        plain = MemorySettings(dtype=self.memory.dtype)
        # In the order of model_index.json, which is that of their names; what works beside the model comes last.
        for component in sorted(self.sizes.components, key=lambda one: (one.role == "other", one.name)):
            held, whole = self.held[component.name], component.held_bytes(plain)
            smaller = self._quantised(component)
            mapped = component.is_mapped(self.memory.dtype)
            if self._passes(component) and self.from_disk:
                continue
            if not smaller:
                stays = comes = 0 if mapped else held
            elif smaller == ["fp8_storage"]:  # only when all components are there
                stays = comes = whole
            else:
                stays, comes = held, held if mapped else whole
            most = max(most, there + comes)
            there += stays
        return most

    def host(self) -> int:
        """Bytes on the host of a GPU: what waits there, or what is there while components are loaded."""
        waits = sum(
            self._waiting(component)
            for component in self.sizes.components
            if self.staged or self.one_by_one or self.streamed
            if not (self.dropped and component.role == "encoder")
        )
        return _HOST_PROCESS + max(waits, self.loading())

    def _waiting(self, component: ComponentSize) -> int:
        """Bytes of host memory that it cannot do without while pictures are made: what is mapped from a file as it is
        needs none, and is read again once a bundle where memory is short, but for what passes in every step."""
        held = self.held[component.name]
        is_mapped = component.is_mapped(self.memory.dtype) and not self._quantised(component)
        if not self._passes(component):
            return 0 if is_mapped else held
        if self.from_disk:
            return 0
        if not self.resident_blocks:
            return _PINNED_TWICE * held
        return self._passing_bytes(component) if is_mapped else held

    def _passing_bytes(self, component: ComponentSize) -> int:
        """Bytes of it that come to the device whenever it runs."""
        held = self.held[component.name]
        if not self._passes(component):
            return 0
        stays = int(held * component.parts.fixed) + self.resident(component) if self.resident_blocks else 0
        return max(0, held - stays)

    def traffic(self) -> tuple[int, int, int, int]:
        """See `Estimate`: bytes that pass in every pass and for every text, are moved, and are read."""
        passing: dict[Role, int] = {"denoiser": 0, "encoder": 0}
        moved = read = 0
        for component in self.sizes.components:
            held = self.held[component.name]
            passes = self._passing_bytes(component)
            passing[component.role] = passing.get(component.role, 0) + passes
            if (self.staged or self.one_by_one or self.streamed) and not self.on_host:
                # accelerate's hooks also bring it back to the host
                moved += (held - passes) * (2 if self.one_by_one else 1)
            if component.role == "encoder" and self.dropped:
                read += 2 * held  # to build them again takes about as long as to read them
        return passing["denoiser"], passing["encoder"], moved, read

    def resident(self, component: ComponentSize) -> int:
        """Bytes of a component's blocks that may stay, beside its fixed part and two passing blocks."""
        if self.memory.budget_bytes is None:
            return 0
        stage = next(stage for stage, role in STAGES.items() if role == component.role)
        held = self.held[component.name]
        room = self.memory.budget_bytes - OVERHEAD[self.kind] - self._beside(component, stage)
        least = int(held * (component.parts.fixed + component.parts.passing))
        return int((held if room >= held else max(0, room - least)) * self.memory.resident_share)

    def _beside(self, component: ComponentSize, stage: Stage) -> int:
        others = (
            self.held[other.name]
            for other in self.sizes.components
            if other is not component and self._is_there(other, stage)
        )
        return sum(others) + self.working(stage)

    def _passes(self, component: ComponentSize) -> bool:
        """Whether it comes to the device in parts; of several encoders, streaming by blocks takes the largest."""
        if component.role not in ("denoiser", "encoder") or not self.streamed:
            return False
        return not self.resident_blocks or component is self.sizes.largest(component.role)

    def _is_there(self, component: ComponentSize, stage: Stage) -> bool:
        role = STAGES[stage]
        if component.role == role or (component.role == "vae" and stage == "denoise" and self.sizes.encodes_pictures):
            return True
        if component.role == "other":
            return stage != "decode" or not self.staged
        if component.role == "encoder" and self.dropped and stage != "encode":
            return False
        if self.on_host:
            return not self._passes(component)  # there is nowhere else to wait
        # What is streamed shares the device with nothing: the rest comes for its own stage, as when staged.
        return not (self.staged or self.one_by_one or self.streamed)

    def _on_device(self, component: ComponentSize) -> int:
        held = self.held[component.name]
        if not self._passes(component):
            return held
        parts = component.parts
        if self.resident_blocks:
            least = int(held * (parts.fixed + parts.passing))
            return min(held, least + self.resident(component))
        if self.by_block and component.role == "denoiser":
            fixed = parts.fixed if parts.coarse_fixed is None else parts.coarse_fixed
            passing = parts.passing if parts.coarse_passing is None else parts.coarse_passing
            return int(held * min(1.0, fixed + passing))
        return int(held * parts.leaves)

    def _quantised(self, component: ComponentSize) -> list[str]:
        return [name for name in QUANTIZATIONS.get(component.role, ()) if self.memory.uses(name)]
