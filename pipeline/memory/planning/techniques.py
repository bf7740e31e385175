"""The memory techniques by name: the cost and requirements of each, and which exclude each other.

The functions that apply them are in `pipeline/memory/device/technique_functions.py`, under the same names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from pipeline.request import MemorySettings

ANY_DEVICE = ("cuda", "cpu", "mps")
STREAMABLE = ("cuda", "cpu")
"""Where weights can wait elsewhere: on a CPU only on disk, though all works there too; on Apple all memory is one."""

BITSANDBYTES = ("bitsandbytes", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Technique:
    """`lossy`: pictures change. `needs` is a package and the extra of ours that installs it.

    `cost` of a lossy one is the percentage of time that it must save to be chosen. Of plans that are equally fast, and
    on processors of all that fit, the one with the smaller sum is taken: what is free in batches, then int8, then
    streaming, then four bits, then the disk, then another decoder.
    """

    name: str
    label: str
    cost: int
    lossy: bool = False
    devices: tuple[str, ...] = ANY_DEVICE
    needs: tuple[str, str] | None = None


TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        Technique("half_precision", "half precision", 0),
        Technique("denoiser_int8", "denoiser int8", 24, lossy=True),
        Technique("denoiser_float8", "denoiser float8", 30, lossy=True),
        Technique("denoiser_int4", "denoiser 4-bit", 240, lossy=True, devices=("cuda",), needs=BITSANDBYTES),
        Technique("encoder_int8", "encoders int8", 12, lossy=True),
        Technique("encoder_float8", "encoders float8", 15, lossy=True),
        Technique("encoder_int4", "encoders 4-bit", 200, lossy=True, devices=("cuda",), needs=BITSANDBYTES),
        Technique("fp8_storage", "denoiser fp8 storage", 28, lossy=True),
        Technique("staged", "staged", 2),
        Technique("drop_encoders", "encoders dropped", 3),
        Technique("vae_slicing", "VAE slicing", 1),
        Technique("vae_tiling", "VAE tiling", 8, lossy=True),
        Technique("tiny_vae", "tiny VAE", 1000, lossy=True),
        Technique("model_offload", "model offload", 6, devices=STREAMABLE),
        Technique("block_offload", "block offload", 80, devices=STREAMABLE),
        Technique("leaf_offload", "leaf offload", 100, devices=STREAMABLE),
        Technique("disk_offload", "disk offload", 400, devices=STREAMABLE),
        Technique("resident_blocks", "resident blocks, rest streamed", 50, devices=STREAMABLE),
    )
}  # fmt: skip
"""Every technique by its name, in the order in which they can safely be applied."""

SWITCHES = tuple(name for name in TECHNIQUES if name != "half_precision")
"""Those that can be asked for or forbidden by name; half precision is a matter of the dtype."""

QUANTIZATIONS = {
    "denoiser": ("denoiser_int8", "denoiser_float8", "denoiser_int4", "fp8_storage"),
    "encoder": ("encoder_int8", "encoder_float8", "encoder_int4"),
}
"""What stores the weights of a component in fewer bits, by the component's role."""

Quantization = Literal["int8", "float8", "int4"]
"""What weights are quantised to while they are loaded."""

STREAMING = ("block_offload", "leaf_offload", "resident_blocks")
"""Ways in which a component larger than the device passes through it."""


def quantization_for(memory: MemorySettings, role: str) -> Quantization | None:
    """What the weights of a role, `denoiser` or `encoder`, are quantised to with these settings; None if to nothing."""
    kinds: tuple[Quantization, ...] = get_args(Quantization)
    return next((kind for kind in kinds if memory.uses(f"{role}_{kind}")), None)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, in the order in which they are applied."""
    wanted = set(names)
    return tuple(name for name in TECHNIQUES if name in wanted)


@lru_cache(maxsize=len(TECHNIQUES))
def installed(name: str) -> bool:
    """Whether the package that a technique needs is installed; checked without importing it."""
    needs = TECHNIQUES[name].needs
    return needs is None or importlib.util.find_spec(needs[0]) is not None


def conflicts(
    on: Iterable[str], device_kind: str = "cuda", *, exact: bool = False, tiny_vae: bool = False
) -> list[str]:
    """Why these techniques cannot be combined on this kind of device: one line for each fault, none if they can.

    `exact`: nothing may change pixels. `tiny_vae`: the weights of one were given.
    """
    names = ordered(on)
    faults = list(impossible(names, device_kind))
    if exact:
        faults += [
            f"{name} changes pixels, which memory.quality=exact forbids; switch one of them off"
            for name in names
            if TECHNIQUES[name].lossy
        ]
    if "tiny_vae" in names and not tiny_vae:
        faults.append("tiny_vae needs the folder of one that fits the model; give memory.tiny_vae=FOLDER")
    for name in names:
        needs = TECHNIQUES[name].needs
        if needs and not installed(name):
            faults.append(f"{name} needs the package {needs[0]}: pip install 'darkroom[{needs[1]}]'")
    return faults


def impossible(names: tuple[str, ...], device_kind: str) -> Iterator[str]:
    """Faults that no quality setting, folder or package could fix; one line each."""
    on = set(names)
    for name in names:
        if device_kind not in TECHNIQUES[name].devices:
            where = " or ".join(TECHNIQUES[name].devices)
            yield f"{name} works on {where}, not on {device_kind}; switch it off"
    for role, kinds in QUANTIZATIONS.items():
        yield from _only_one(on, kinds, f"store the {role}'s weights in two ways at once")
    yield from _only_one(on, ("model_offload", *STREAMING), "both decide what is offloaded")
    if "disk_offload" in on:
        if on & {"model_offload", "resident_blocks"}:
            other = "model_offload" if "model_offload" in on else "resident_blocks"
            yield f"disk_offload and {other}: only parts streamed by block_offload or leaf_offload can wait on disk"
        elif not on & {"block_offload", "leaf_offload"}:
            yield "disk_offload needs streamed parts; also switch on leaf_offload or block_offload"
        for name in ("denoiser_int8", "denoiser_float8", "encoder_int8", "encoder_float8"):
            if name in on:
                yield f"disk_offload and {name}: quantised weights cannot be streamed from disk; switch one off"
    for name in ("denoiser_int4", "encoder_int4"):
        for other in (*STREAMING, "disk_offload"):
            if {name, other} <= on:
                yield f"{name} and {other}: 4-bit weights cannot be streamed; take int8, staged or model_offload"


def _only_one(on: set[str], kinds: tuple[str, ...], what: str) -> Iterator[str]:
    found = [name for name in kinds if name in on]
    if len(found) > 1:
        yield f"{' and '.join(found)} {what}; keep one of them"
