"""The requested memory settings, checked before a plan is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import ConfigError
from pipeline.memory.planning.techniques import conflicts, ordered
from pipeline.registry.resolve import resolve
from pipeline.request import DType, MemorySettings
from pipeline.system.units import GIB
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.hashes import identified
from pipeline.weights.inspection import ModelFiles
from pipeline.weights.vae_fit import check_vae


def requested_memory(
    level: str,
    dtype: DType,
    techniques: Mapping[str, object],
    device_kind: str,
    *,
    exact: bool = False,
    budget_gb: float | None = None,
    tiny_vae: str | None = None,
    files: ModelFiles | None = None,
) -> MemorySettings:
    """The memory settings of a request. A technique is True (on), False (never), or anything else: left open.

    `budget_gb` is in units of 2^30 bytes. `tiny_vae` is the folder of an AutoencoderTiny, checked against `files` where
    the model is known. Raises `ConfigError` with one line per forbidden combination, `ModelError` for a tiny VAE that
    does not fit.
    """
    on = [name for name, value in techniques.items() if value is True]
    faults = conflicts(on, device_kind, exact=exact, tiny_vae=tiny_vae is not None)
    if faults:
        raise ConfigError([f"memory.techniques: {line}" for line in faults])
    asked = MemorySettings(
        level=level,
        dtype=dtype,
        techniques=ordered(on),
        off=ordered(name for name, value in techniques.items() if value is False),
        exact=exact,
        budget_bytes=None if budget_gb is None else int(budget_gb * GIB),
    )
    return asked if tiny_vae is None else _with_tiny_vae(asked, tiny_vae, files)


def _with_tiny_vae(asked: MemorySettings, tiny_vae: str, files: ModelFiles | None) -> MemorySettings:
    folder = resolve(tiny_vae, "tiny VAE")
    facts = inspect_file(folder)
    if facts.class_name != "AutoencoderTiny" or not folder.is_dir():
        raise ConfigError(f"memory.tiny_vae: {folder.name} is {facts.label}; expected the folder of an AutoencoderTiny")
    if files is not None:
        check_vae(folder, files)
    return replace(asked, tiny_vae_source=str(folder), tiny_vae_sha256=identified(folder, facts.files))
