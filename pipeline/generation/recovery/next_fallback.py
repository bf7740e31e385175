"""What to try after an out-of-memory error: the next fallback of a list, cheapest first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.memory.planning.techniques import STREAMING, conflicts, ordered
from pipeline.request import MemorySettings

Where = Literal["load", "encode", "denoise", "decode"]
"""The stage that failed; "load" is before the first one, when weights are read or brought to the device."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next fallback. `what` names it in one word: `batch`, `resident_share`, or the techniques applied."""

    batch: int
    memory: MemorySettings
    what: str


@dataclass(frozen=True, slots=True)
class _Fallback:
    """Techniques to apply, the stages at which that helps, those that they replace, those that they need besides, and
    one after which it is too late for them."""

    on: tuple[str, ...]
    helps: tuple[Where, ...]
    instead_of: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unless: str = ""


_EIGHT_BIT_DENOISER = ("denoiser_int8", "denoiser_float8", "fp8_storage")
_EIGHT_BIT_ENCODER = ("encoder_int8", "encoder_float8")
_QUANTISED = ("denoiser_int8", "denoiser_float8", "denoiser_int4", *_EIGHT_BIT_ENCODER, "encoder_int4")

LEAST_RESIDENT = 0.7
"""Share of the blocks that could stay by estimate, below which something else is the matter."""

_FALLBACKS = (
    # Slicing decodes one picture at a time: for the decoder it is the smaller batch, and nothing is denoised again.
    _Fallback(("vae_slicing",), ("decode",)),
    _Fallback(("vae_tiling",), ("decode",)),
    _Fallback(("staged", "drop_encoders"), ("load", "encode", "denoise", "decode")),
    _Fallback(("denoiser_int8",), ("load", "denoise")),
    # Where int8 is switched off; with it on, this is no legal combination.
    _Fallback(("fp8_storage",), ("load", "denoise"), unless="disk_offload"),
    _Fallback(("encoder_int8",), ("load", "encode")),
    _Fallback(("resident_blocks",), ("load", "denoise"), ("model_offload", "block_offload")),
    _Fallback(("leaf_offload",), ("load", "encode", "denoise"), ("model_offload", "block_offload", "resident_blocks")),
    _Fallback(("denoiser_int4",), ("load", "denoise"), (*_EIGHT_BIT_DENOISER, *STREAMING)),
    _Fallback(("encoder_int4",), ("load", "encode"), (*_EIGHT_BIT_ENCODER, *STREAMING)),
    _Fallback(
        ("disk_offload",),
        ("load", "encode", "denoise"),
        (*_QUANTISED, "model_offload", "block_offload", "resident_blocks"),
        ("leaf_offload",),
    ),
    _Fallback(("tiny_vae",), ("decode",)),
)


def next_fallback(
    asked: MemorySettings,
    held: MemorySettings,
    stage: Where,
    batch: int,
    failed: Collection[str] = (),
    *,
    device_kind: str = "cuda",
) -> Step | None:
    """The next fallback after memory ran out in a stage, or None if there is none left.

    `asked` is what the user wants: never a technique that is switched off there, none that changes pixels with `exact`,
    and the quantisations asked for by name stay. `held` has the techniques with which it failed; `failed` are the
    `what` of steps that could not be applied. What is returned is a legal combination. Following it ends: what a
    fallback removes, no later one applies again.
    """
    # They fill what there is with a batch of any size: half of it would leave no more free.
    fewer = round(held.resident_share - 0.1, 1)
    fills = stage == "denoise" and held.uses("resident_blocks") and "resident_share" not in failed
    if fills and fewer >= LEAST_RESIDENT:
        return Step(batch, replace(held, resident_share=fewer), "resident_share")
    if stage == "denoise" and batch > 1:
        return Step(batch // 2, held, "batch")
    for fallback in _FALLBACKS:
        new = tuple(name for name in fallback.on if not held.uses(name) and name not in asked.off)
        what = "+".join(new)
        insisted = {*asked.techniques} & {*fallback.instead_of} & {*_QUANTISED, "fp8_storage"}
        if stage not in fallback.helps or not new or what in failed or insisted:
            continue
        if {*asked.off} & {*fallback.needs} or held.uses(fallback.unless):
            continue
        techniques = ordered({*held.techniques, *new, *fallback.needs} - {*fallback.instead_of})
        has_tiny_vae = held.tiny_vae_source is not None
        if not conflicts(techniques, device_kind, exact=asked.exact, tiny_vae=has_tiny_vae):
            return Step(batch, replace(held, techniques=techniques), what)
    return None
