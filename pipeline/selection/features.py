"""The features of a score and their weights: what `features.toml` says, as typed values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LOOKS = ("medium", "style")
"""The axes that say how a picture looks; `subject` says what it shows."""

SCORED = (*LOOKS, "subject")
"""The axes of which each value is a share of a feature of the same name."""


@dataclass(frozen=True, slots=True)
class Features:
    """Weights in points by feature, and the tables behind them. `camp_of` is the camp of a look.

    `akin` and `opposed` hold both orders of each pair. `needs` is the share by need and family.
    """

    weights: Mapping[str, float]
    trust: Mapping[str, float]
    limits: Mapping[str, float]
    lora_weights: Mapping[str, float]
    camp_of: Mapping[str, str]
    opposed: Mapping[tuple[str, str], float]
    akin: Mapping[tuple[str, str], float]
    needs: Mapping[str, Mapping[str, float]]


@lru_cache(maxsize=1)
def features() -> Features:
    """What the file beside this module says."""
    said = tomllib.loads((Path(__file__).parent / "features.toml").read_text(encoding="utf-8"))
    return Features(
        weights=said["weights"],
        trust=said["trust"],
        limits=said["limits"],
        lora_weights=said["lora_weights"],
        camp_of={look: camp for camp, looks in said["camps"].items() for look in looks},
        opposed=_both_ways(said["opposed"]),
        akin=_both_ways(said["akin"]),
        needs=said["needs"],
    )


def _both_ways(pairs: Mapping[str, float]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for pair, share in pairs.items():
        one, other = pair.split()
        found[one, other] = found[other, one] = share
    return found
