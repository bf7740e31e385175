"""Whether a model that might be chosen can be loaded on this machine: headers are read, never weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import DarkroomError, ModelError
from pipeline.memory.planning.choose_techniques import choose
from pipeline.memory.planning.estimate import Shape
from pipeline.memory.planning.rates import rates_of
from pipeline.memory.planning.sizes import Sizes
from pipeline.registry.resolve import is_remote, resolve
from pipeline.request import DEFAULT_GUIDANCE, MemorySettings
from pipeline.selection.filters import INCOMPLETE, TOO_LARGE
from pipeline.system.device import Device, DeviceMemory
from pipeline.weights.families import FAMILIES
from pipeline.weights.inspection import inspect_model


@dataclass(frozen=True, slots=True)
class Measures:
    """The sizes of a model's components, and the width and height of its own pictures in pixels."""

    sizes: Sizes
    width: int
    height: int


def measures_of(
    source: str, *, family: str | None = None, config: str | None = None, has_vae: bool = False
) -> Measures:
    """The measures of a model by its reference; published ones of its `family` where it is still on a hub.

    `config` is the folder that completes a single file; with `has_vae` it gets another VAE. Raises `ModelError` for
    an incomplete one.
    """
    if is_remote(source):
        known = FAMILIES.get(family or "")
        if known is None:
            raise ModelError(f"model {source}: is not on this machine, and nothing says its family")
        return Measures(Sizes.published(known, {}), known.size, known.size)
    folder = resolve(config, "model.config") if config else None
    files = inspect_model(resolve(source), folder, ("vae",) if has_vae else ())
    return Measures(Sizes.from_files(files), files.width, files.height)


def memory_fault(
    measures: Callable[[], Measures],
    requested: Callable[[str | None], MemorySettings],
    device: Device,
    memory: DeviceMemory,
    *,
    width: int | None = None,
    height: int | None = None,
    guidance_scale: float | None = None,
) -> str | None:
    """Why a model cannot be loaded here (`INCOMPLETE`, `TOO_LARGE`), None if it can.

    `requested` gives the memory settings for a model of a family; both functions may raise `DarkroomError`. `memory` is
    what there is before anything is loaded. Of width, height and guidance scale, None stands for the usual.
    """
    try:
        found = measures()
        asked = requested(found.sizes.family)
    except DarkroomError:
        return INCOMPLETE
    guided = (DEFAULT_GUIDANCE if guidance_scale is None else guidance_scale) > 1
    shape = Shape(width or found.width, height or found.height, 1, guided)
    return None if choose(asked, found.sizes, shape, memory, device.kind, rates_of(device)).fits else TOO_LARGE
