"""What a record keeps of a choice: its key, by which later runs find it, and its reasons without anything private."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pipeline.metadata.leaks import refusal, scrub
from pipeline.metadata.record import SelectionRecord, canonical_json

KEY_VERSION = 1
"""Raised when equal prompts and settings should no longer take over what was chosen before."""


def selection_key(prompt: str, negative_prompt: str, settings: Mapping[str, Any]) -> str:
    """The hash of what a choice is made for: the user's texts, and the settings under which it is taken over."""
    return sha256(canonical_json([KEY_VERSION, prompt, negative_prompt, dict(settings)]).encode()).hexdigest()


def kept_selection(values: Mapping[str, Any], *, private: bool = False) -> SelectionRecord:
    """The record of `key`, `statistics`, `analysis` and `choice` (`Choice.to_json`).

    Cards and names are strangers' words, so that what may not be written is taken out; of a `private` prompt nothing is
    kept that tells why.
    """
    if private:
        values = {**values, "analysis": None, "choice": _without_reasons(values["choice"])}
    record = SelectionRecord.model_validate(values)
    return record if refusal([record.text]) is None else SelectionRecord.model_validate(_scrubbed(dict(values)))


def _without_reasons(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": {"chosen": choice["model"]["chosen"]},
        "loras": [{"chosen": one["chosen"], "weight": one["weight"]} for one in choice["loras"]],
        "vae": choice["vae"] and {"chosen": choice["vae"]["chosen"]},
        "sampling": choice["sampling"],
        "prompt": {"text": choice["prompt"]["text"]},
        "negative_prompt": {"text": choice["negative_prompt"]["text"]},
    }


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _scrubbed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    return scrub(value) if isinstance(value, str) else value
