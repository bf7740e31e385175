"""How fast a machine computes and copies: published rates of its card, or measured ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median_low
from typing import Literal

from pipeline.storage.sqlite_files import CacheFile
from pipeline.system.device import Device

Measured = Literal["compute", "copy"]

KEPT = 5
"""Last measurements of a rate that are kept; the median counts."""


@dataclass(frozen=True, slots=True)
class Rates:
    """`compute` in operations per second in 16 bits, as a denoiser reaches them, the others in bytes per second: `copy`
    from page-locked memory to the card, `memory` within the card, `disk` from a disk."""

    compute: float
    copy: float = 15e9
    memory: float = 0.9e12
    disk: float = 2e9


SLOW = Rates(45e12)
"""Stands for cards that nothing is known of: those that take long to compute also give copies time to hide."""

PUBLISHED: dict[str, Rates] = {
    "H200": Rates(300e12, 40e9, 4.8e12),
    "H100": Rates(300e12, 40e9, 3.3e12),
    "A100": Rates(110e12, memory=1.6e12),
    "4090": Rates(88e12, memory=1.0e12),
    "L20": Rates(89e12, memory=0.86e12),
    "3090": SLOW,
}
"""By a part of the card's name. Computing: FLUX.1-dev, 28 steps at 1024 x 1024, without compiling: 6.6 s (H100,
diffusers-torchao), 23.6 s (RTX 4090, diffusers' lora-fast), 23.4 s (L20, cache-dit); SDXL, 30 steps: 3.3 s (A100,
diffusers). Copying: cache-dit's offloading by layers copied 14 to 16 GB/s through PCIe 4.0; PCIe 5.0 has twice as much
and more. Memory: data sheets."""


class MeasuredRates:
    """Measured rates. In the user's cache folder; if that cannot be used, there are none."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = CacheFile(path, "rates (device TEXT, what TEXT, rate REAL)")

    def note(self, device: str, what: Measured, rate: float) -> None:
        """Record a measured rate of a device, by its name."""
        if not (math.isfinite(rate) and rate > 0):
            return
        forget = (
            "DELETE FROM rates WHERE device = ?1 AND what = ?2 AND rowid NOT IN "
            "(SELECT rowid FROM rates WHERE device = ?1 AND what = ?2 ORDER BY rowid DESC LIMIT ?3)"
        )
        self._file.change(("INSERT INTO rates VALUES (?, ?, ?)", (device, what, rate)), (forget, (device, what, KEPT)))

    def of(self, device: Device) -> Rates:
        """The rates of a device: published ones, replaced by those that were measured at least twice."""
        rates, name = published(device), device.name or device.kind
        for what in ("compute", "copy"):
            rows = self._file.rows("SELECT rate FROM rates WHERE device = ? AND what = ?", (name, what))
            found = [rate for (rate,) in rows if isinstance(rate, float) and math.isfinite(rate) and rate > 0]
            if len(found) > 1:
                rates = replace(rates, **{what: median_low(found)})
        return rates


def published(device: Device) -> Rates:
    """The published rates of a card, by its name."""
    return next((rates for part, rates in PUBLISHED.items() if part in (device.name or "")), SLOW)


@lru_cache(maxsize=8)
def rates_of(device: Device) -> Rates:
    """The rates of a device of this machine, read once per process, so that a plan uses one set."""
    return MeasuredRates().of(device)
