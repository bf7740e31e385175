"""Gives the LLM's memory back before anything else needs it: unloaded, gone from the server, free on the device."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.errors import OllamaUnavailable

if TYPE_CHECKING:
    from pipeline.selection.ollama.client import OllamaClient

GONE_S = 30.0
"""How long the server may take until a model is no longer in its list."""

STEADY_S = 10.0
"""How long the driver may take after that."""

_LISTED_EVERY_S = 0.2
_READ_EVERY_S = 0.25
_READINGS = 4
"""That must agree: the server forgets a model before the driver has its memory back, typically within a second."""

_AGREE_BYTES = 16 * 2**20
"""Other programs' windows come and go."""


def unload(client: OllamaClient, model: str, *, on_this_machine: bool) -> None:
    """Unload a model and wait until its memory is free. Raises `OllamaUnavailable` if it stays."""
    client.unload(model)
    end = time.monotonic() + GONE_S
    while model in client.loaded():
        if time.monotonic() > end:
            text = f"Ollama has not unloaded {model} within {GONE_S:g} s; its memory is missing (ollama stop {model})"
            raise OllamaUnavailable(text, f"Ollama has not unloaded {model}")
        time.sleep(_LISTED_EVERY_S)
    if on_this_machine:
        _wait_until_steady()


def _wait_until_steady() -> None:
    """Until readings of every card's free memory agree; returns at once where there is no card."""
    end = time.monotonic() + STEADY_S
    readings = [_free_bytes()]
    while readings[0] and time.monotonic() < end:
        time.sleep(_READ_EVERY_S)
        readings = [*readings, _free_bytes()][-_READINGS:]
        spreads = [max(card) - min(card) for card in zip(*readings, strict=False)]
        if len(readings) == _READINGS and max(spreads, default=0) <= _AGREE_BYTES:
            return


def _free_bytes() -> tuple[int, ...]:
    from pipeline.system.device import gpus

    return tuple(gpu.free_bytes for gpu in gpus())
