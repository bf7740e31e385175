"""Chooses the techniques with which a model fits: of those plans the fastest, lossy ones with a handicap."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from pipeline.memory.planning.estimate import Estimate, Shape, estimate
from pipeline.memory.planning.predicted_time import seconds_per_image
from pipeline.memory.planning.rates import SLOW, Rates
from pipeline.memory.planning.sizes import Sizes
from pipeline.memory.planning.techniques import QUANTIZATIONS, STREAMING, TECHNIQUES, impossible, installed, ordered
from pipeline.request import MemorySettings
from pipeline.system.device import DeviceMemory
from pipeline.system.units import GIB, size_text
from pipeline.weights.families import FAMILIES

CLASSES: dict[str, int] = {"none": 24 * GIB, "balanced": 12 * GIB, "aggressive": 8 * GIB, "ultra": 4 * GIB}
"""The card that each level is for, in bytes."""

ALWAYS_ON: dict[str, tuple[str, ...]] = {"aggressive": ("staged",), "ultra": ("staged", "drop_encoders")}
"""What a level has on whatever the estimate says, for the Python API. A run reads it from the level's file in
`conf/memory`, which says the same unless a user changes it."""

MAX_BATCH_SIZE = 32
MAX_BATCH_PIXELS = {
    level: pictures * 512**2
    for level, pictures in {"auto": 8, "none": 8, "balanced": 4, "aggressive": 2, "ultra": 1}.items()
}
"""What is denoised together at most, pictures and their pixels by level, unless a level's file in `conf/memory` says
otherwise."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A memory plan: techniques in `memory`, the batch in `shape`, and the predictions for them.

    If not `fits`, it is the plan that comes closest. `least_bytes` is the smallest budget that any plan would need.
    """

    memory: MemorySettings
    shape: Shape
    estimate: Estimate
    budget_bytes: int
    fits: bool
    least_bytes: int


def reserve(available: int) -> int:
    """The bytes that stay unused if no budget is set: 5 % of the free memory, but at least 0.4 GiB.

    Working memory is estimated, so this is only for gaps between allocations (5 to 10 % on real cards) and for what
    the desktop takes meanwhile (ComfyUI keeps 0.4 GB on Linux for it).
    """
    return max(available // 20, 2 * GIB // 5)


def budget(asked: MemorySettings, device: DeviceMemory, device_kind: str) -> int:
    """The bytes that may be used: the requested budget, else what is free, but no more than the level's card has.

    Of a GPU never more than is free: nothing there could be put aside for it.
    """
    if asked.budget_bytes is not None:
        return min(asked.budget_bytes, device.free_bytes) if device_kind == "cuda" else asked.budget_bytes
    available = device.free_bytes
    if device_kind == "cuda":
        available = min(available, CLASSES.get(asked.level, available))
    return max(0, available - reserve(available))


def choose(
    asked: MemorySettings, sizes: Sizes, shape: Shape, device: DeviceMemory, device_kind: str, rates: Rates = SLOW
) -> MemoryPlan:
    """The best plan that fits. Requested techniques are on, forbidden ones stay off, the others are open.

    On a GPU that is the one with the least predicted time; lossy techniques must be faster by their cost in percent. On
    a CPU, and wherever device and host share their memory, only exact techniques are open, and the cheapest are taken.
    """
    room = budget(asked, device, device_kind)
    return _choose(asked, sizes, shape, room, device.host_free_bytes, device_kind, rates)


def batch_range(
    asked: MemorySettings,
    sizes: Sizes,
    shape: Shape,
    device: DeviceMemory,
    device_kind: str,
    most: int,
    rates: Rates = SLOW,
) -> tuple[int, int]:
    """The usual batch and the largest, neither above `most`: both need no costlier plan than one picture alone.

    The usual one has as many pictures as pay for the family by what others measured, on a large card.
    """
    alone = choose(asked, sizes, replace(shape, batch=1), device, device_kind, rates)
    memory = alone.memory
    if "vae_slicing" not in asked.off:
        memory = replace(memory, techniques=ordered((*memory.techniques, "vae_slicing")))
    largest = batch_limit(sizes, memory, shape, alone.budget_bytes, device_kind, most)
    family = FAMILIES.get(sizes.family) if sizes.family else None
    pays = max(1, family.batch * family.size**2 // (shape.width * shape.height)) if family else largest
    return min(pays, largest), largest


def batch_limit(
    sizes: Sizes, memory: MemorySettings, shape: Shape, budget_bytes: int, device_kind: str, most: int
) -> int:
    """The largest batch up to `most` that fits with these techniques; at least 1."""

    def peak_bytes(batch: int) -> int:
        return estimate(sizes, memory, replace(shape, batch=batch), device_kind).peak_bytes

    return max(1, bisect_right(range(1, most + 1), budget_bytes, key=peak_bytes))


def least_text(least_bytes: int) -> str:
    """The smallest sufficient budget as a setting; rounded up, so that it is enough."""
    return f"memory.budget_gb={math.ceil(least_bytes / GIB * 100) / 100:g}"


def shortage(name: str, width: int, height: int, budget_bytes: int, least_bytes: int) -> str:
    """The error message if no plan fits."""
    return (
        f"memory.budget_gb: {name} at {width} x {height} does not fit into {size_text(budget_bytes)} with any "
        f"allowed technique; the smallest that would do is {least_text(least_bytes)}"
    )


@lru_cache(maxsize=4096)
def _choose(
    asked: MemorySettings,
    sizes: Sizes,
    shape: Shape,
    budget_bytes: int,
    host_bytes: int,
    device_kind: str,
    rates: Rates,
) -> MemoryPlan:
    stored = frozenset(one.role for one in sizes.components if one.stored_bytes is not None)
    plans = [
        replace(asked, techniques=techniques, budget_bytes=budget_bytes)
        for techniques in plans_for(replace(asked, budget_bytes=None), device_kind, shape.batch > 1, stored)
    ]
    estimated = [(memory, estimate(sizes, memory, shape, device_kind)) for memory in plans]
    fitting = [(memory, found) for memory, found in estimated if found.peak_bytes <= budget_bytes]
    # What the host lacks by estimate may still do, since files can be read again: it only decides between plans that
    # fit the device.
    fitting = [(memory, found) for memory, found in fitting if found.host_bytes <= host_bytes] or fitting
    smallest = min(
        ((replace(memory, budget_bytes=0), memory) for memory in plans),
        key=lambda plan: estimate(sizes, plan[0], shape, device_kind).peak_bytes,
    )
    least = estimate(sizes, smallest[0], shape, device_kind)
    memory, found = (smallest[1], least)
    if fitting and device_kind == "cuda":
        memory, found = min(fitting, key=lambda plan: handicapped_seconds(sizes, plan[0], plan[1], shape, rates))
    elif fitting:
        memory, found = fitting[0]
    return MemoryPlan(memory, shape, found, budget_bytes, bool(fitting), least.peak_bytes)


def handicapped_seconds(sizes: Sizes, memory: MemorySettings, found: Estimate, shape: Shape, rates: Rates) -> float:
    """Predicted seconds per picture, increased by the cost in percent of every lossy technique."""
    handicap = sum(TECHNIQUES[name].cost for name in memory.techniques if TECHNIQUES[name].lossy) / 100
    return seconds_per_image(sizes, memory, shape, found, rates) * (1 + handicap)


@lru_cache(maxsize=256)
def plans_for(
    asked: MemorySettings, device_kind: str, several: bool, stored: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], ...]:
    """All sensible sets of techniques with the requested ones, the cheapest first, which wins among equally fast.

    `several`: batches of more than one picture. `stored`: roles whose weights come quantised, so that nothing more can
    be done about them.
    """
    on = {*asked.techniques} | ({"half_precision"} if asked.dtype != "float32" else set())
    usable = {name for name in TECHNIQUES if _open(name, asked, device_kind, stored)}
    plans = {
        ordered(on.union(*added))
        for added in product(*_slots(usable, several, device_kind))
        if _sensible(set().union(*added), usable)
    }
    valid = [plan for plan in plans if not any(impossible(plan, device_kind))] or [ordered(on)]
    return tuple(sorted(valid, key=lambda plan: (sum(TECHNIQUES[name].cost for name in plan), plan)))


def _open(name: str, asked: MemorySettings, device_kind: str, stored: frozenset[str]) -> bool:
    technique = TECHNIQUES[name]
    if name in asked.techniques or name in asked.off or device_kind not in technique.devices or not installed(name):
        return False
    if device_kind != "cuda" and (technique.lossy or name == "staged"):
        return False  # all stages are in the same memory
    if technique.lossy and asked.exact:
        return False
    if name == "tiny_vae" and asked.tiny_vae_source is None:
        return False
    if name == "fp8_storage":
        return False  # saves no more than int8, is less precise and slower
    return not any(name in kinds for role, kinds in QUANTIZATIONS.items() if role in stored)


_Slot = tuple[tuple[str, ...], ...]


def _slots(usable: set[str], several: bool, device_kind: str) -> Iterator[_Slot]:
    """What can be chosen independently, each with the choice of doing nothing."""
    slicing = ("vae_slicing",) if several and "vae_slicing" in usable else ()
    slots: list[_Slot] = [
        (slicing, (*slicing, "vae_tiling"), (*slicing, "tiny_vae"), (*slicing, "vae_tiling", "tiny_vae")),
        (("drop_encoders",),),
    ]
    if device_kind == "cuda":
        slots += [
            (("staged",),),
            # float8 saves no more than int8 and is less precise.
            (("denoiser_int8",), ("denoiser_int4",)),
            (("encoder_int8",), ("encoder_int4",)),
            (("model_offload",), *((name,) for name in reversed(STREAMING)), ("leaf_offload", "disk_offload")),
        ]
    elif device_kind == "cpu":
        slots.append((("leaf_offload", "disk_offload"),))
    for slot in slots:
        yield ((), *(choice for choice in slot if choice and usable.issuperset(choice)))


def _sensible(added: set[str], usable: set[str]) -> bool:
    """Whether the plan takes the cheap steps before the dear ones."""
    dear = added - {"vae_slicing", "vae_tiling", "tiny_vae", "drop_encoders", "staged"}
    if dear and "staged" in usable and "staged" not in added:
        return False
    return not ("block_offload" in added and "resident_blocks" in usable)  # which does the same, and better
