"""Compiles denoisers by torch where it saves time, for one set of LoRAs; `auto` falls back to uncompiled code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.loading.speed_options import FULL_BREAK_EVEN, REGIONAL_BREAK_EVEN
from pipeline.memory.device.loaded_components import COMPILED, uncompile
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.quantization import quantized_as
from pipeline.request import lora_weights

Result = TypeVar("Result")

_FAILED = "cannot_be_compiled"


def compiled(denoiser: Any, model: LoadedModel, images_alike: int) -> str:
    """Compile a denoiser if that is wanted and not done: `no`, `blocks` (its repeated ones) or `whole`.

    `images_alike`: how many images of this model, size and LoRAs are still to be made.
    """
    loras = _loras(model)
    done, made_for = denoiser.__dict__.get(COMPILED, ("no", loras))
    if done != "no" and made_for != loras:
        _forget(denoiser)
        done = "no"
    if done != "no" or not _is_wanted(denoiser, model, images_alike):
        return str(done)
    import torch

    # Beyond the limit torch goes on uncompiled and says nothing; where nobody asked by name, that is noticed instead.
    torch._dynamo.config.fail_on_recompile_limit_hit = model.speed.compile == "auto"
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
        done = "blocks"
    else:
        denoiser.compile()
        done = "whole"
    denoiser.__dict__[COMPILED] = done, loras
    return str(done)


def as_compiled(model: LoadedModel, facts: dict[str, Any], run: Callable[[], Result]) -> Result:
    """The result of `run`. torch compiles while it runs: if `auto` cannot compile, `run` is called again uncompiled.

    `facts` are those of `pipeline.loading.speed.prepare` and are put right. What was asked for by name fails instead.
    """
    try:
        return run()
    except Exception as error:
        if facts["compile"] == "no" or model.speed.compile != "auto" or not _is_of_compiler(error):
            raise
    # Outside of the except block, whose traceback would keep what half a run has made.
    denoiser = getattr(model.pipe, model.files.denoiser)
    denoiser.__dict__[_FAILED] = True
    _forget(denoiser)
    if getattr(denoiser, "is_cache_enabled", False):
        denoiser._reset_stateful_cache()
    facts["compile"] = "no"
    return run()


def _is_wanted(denoiser: Any, model: LoadedModel, images_alike: int) -> bool:
    if model.speed.compile != "auto":
        return model.speed.compile == "on"
    enough = images_alike >= (REGIONAL_BREAK_EVEN if getattr(denoiser, "_repeated_blocks", None) else FULL_BREAK_EVEN)
    able = quantized_as(denoiser) is None and _FAILED not in denoiser.__dict__
    return enough and able and model.device.type == "cuda" and importlib.util.find_spec("triton") is not None


def _loras(model: LoadedModel) -> tuple[tuple[str, float], ...]:
    """What of LoRAs is compiled in: which they are, and each one's weight."""
    return tuple(lora_weights(model.applied.loras).items())


def _forget(denoiser: Any) -> None:
    """Uncompile, and let torch forget what it compiled: it counts, and keeps, all variants that it ever made."""
    import torch

    uncompile(denoiser)
    torch._dynamo.reset()


def _is_of_compiler(error: BaseException) -> bool:
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)
