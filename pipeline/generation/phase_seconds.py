"""How long the phases of generating took: what a worker tells its parent, which generates nothing itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PhaseSeconds:
    """Wall-clock seconds spent in each phase; summed over a run."""

    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0

    def add(self, other: PhaseSeconds) -> None:
        """Sum in place."""
        self.encode += other.encode
        self.denoise += other.denoise
        self.decode += other.decode
