"""The history of fallbacks that worked when memory ran out, kept from run to run, so that each is found only once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.memory.planning.techniques import TECHNIQUES, ordered
from pipeline.request import Adapters, MemorySettings
from pipeline.storage.sqlite_files import CacheFile

TOLERANCE = 0.1
"""Share by which the memory may differ and still count as the same: what is free is never twice the same number."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that decides how much memory a stage needs, before any fallback.

    `stage` is "load", "encode", or "make" for denoising and decoding, on which alone size and guidance bear. `memory`
    is as planned. `adapters` says which kinds are on, see `kinds`. `device_bytes` is the device's whole memory.
    """

    stage: Literal["load", "encode", "make"]
    model_sha256: str
    memory: MemorySettings
    device_bytes: int
    width: int = 0
    height: int = 0
    guided: bool = False
    adapters: str = ""

    def key(self) -> str:
        """The situation without the amount of memory: other weights, sizes and requests are other situations."""
        memory = self.memory
        held = [memory.dtype, ordered(memory.techniques), sorted(memory.off), memory.exact, memory.tiny_vae_sha256]
        return json.dumps(
            [self.stage, self.model_sha256, held, self.width, self.height, self.guided, self.adapters],
        )

    def room(self) -> list[int | None]:
        """The amount of memory, total and usable; if it changes, the history does not apply."""
        return [self.device_bytes, self.memory.budget_bytes]


@dataclass(frozen=True, slots=True)
class Worked:
    """What worked in a situation: techniques, the largest batches that were denoised and decoded, and the share of the
    possible resident blocks that stayed.

    None if their number did not have to be reduced.
    """

    techniques: tuple[str, ...]
    batch: int | None = None
    decoded: int | None = None
    resident_share: float = 1.0


def kinds(adapters: Adapters) -> str:
    """How many adapters there are of each kind that needs memory; their names are not stored, for privacy."""
    counts = {
        "loras": len(adapters.loras),
        "controlnets": len(adapters.controlnets),
        "ip_adapters": len(adapters.ip_adapters),
        "init": int(adapters.init is not None),
    }
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


class FallbackHistory:
    """The stored history. In the user's cache folder; if that cannot be used, only for this process."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = CacheFile(path, "situations (situation TEXT PRIMARY KEY, room TEXT, worked TEXT)")
        self._known: dict[str, tuple[str, str]] = {}

    def recall(self, situation: Situation) -> Worked | None:
        """What worked in a situation; None if no fallback was needed, or the memory has changed."""
        row = self._known.get(situation.key()) or self._read(situation.key())
        if row is None:
            return None
        try:
            room, (techniques, batch, decoded, *more) = json.loads(row[0]), json.loads(row[1])
            share = more[0] if more else 1.0  # earlier versions had none
            worked = Worked(tuple(name for name in techniques if name in TECHNIQUES), batch, decoded, share)
            sensible = all(one is None or one > 0 for one in (batch, decoded)) and 0 < share <= 1
            usable = sensible and all(map(_alike, room, situation.room()))
        except (ValueError, TypeError):  # damaged, or of another version
            usable = False
        if not usable:
            self.forget(situation)
            return None
        return worked

    def remember(self, situation: Situation, worked: Worked) -> None:
        """Store what worked in a situation."""
        how = [ordered(worked.techniques), worked.batch, worked.decoded, worked.resident_share]
        row = json.dumps(situation.room()), json.dumps(how)
        self._known[situation.key()] = row
        self._file.change(("INSERT OR REPLACE INTO situations VALUES (?, ?, ?)", (situation.key(), *row)))

    def forget(self, situation: Situation) -> None:
        """Delete what is stored for a situation."""
        self._known.pop(situation.key(), None)
        self._file.change(("DELETE FROM situations WHERE situation = ?", (situation.key(),)))

    def _read(self, key: str) -> tuple[str, str] | None:
        rows = self._file.rows("SELECT room, worked FROM situations WHERE situation = ?", (key,))
        return (str(rows[0][0]), str(rows[0][1])) if rows else None


def _alike(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= TOLERANCE * max(one, other)
