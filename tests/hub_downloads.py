"""Fetches what is not here as a run does: planned first, then fetched."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError
from pipeline.hubs.fetch_model import fetch
from pipeline.hubs.find_or_fetch import plan_download
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry


def ensure_downloaded(reference: str, registry: Registry, transport: Transport, *, noun: str = "model") -> Path:
    """The file or folder for a reference. Raises `ModelError` with what the hub said where it cannot be had."""
    planned = plan_download(reference, transport, noun=noun)
    if isinstance(planned, Ok):
        if isinstance(planned.value, Path):
            return planned.value
        stored = fetch(planned.value.model, registry, transport)
        if isinstance(stored, Ok):
            return stored.value.path
        raise ModelError(f"{noun} {stored.say()}")
    raise ModelError(f"{noun} {planned.say()}")
