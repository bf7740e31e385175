"""Removes compilation and step caches from a model, before its techniques change or it goes back to the pool."""

from __future__ import annotations

from typing import Any

from pipeline.memory.device.loaded_model import LoadedModel

COMPILED = "compiled"
"""The attribute of a module under which `pipeline.loading.compiling` notes how it is compiled, and for which LoRAs."""


def uncompile(module: Any) -> None:
    """Let a module run uncompiled again."""
    if module.__dict__.pop(COMPILED, None):
        for child in module.modules():
            child._compiled_call_impl = None


def disable_step_cache(model: LoadedModel) -> None:
    """Remove and empty the step cache, if one is on."""
    denoiser: Any = getattr(model.pipe, model.files.denoiser, None)
    if getattr(denoiser, "is_cache_enabled", False):
        denoiser._reset_stateful_cache()
        denoiser.disable_cache()
