"""What was learned from ratings, for people and programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.archive.made_files import write_made
from jobs.manifest.layout import Layout
from jobs.manifest.preferences import read_rated
from pipeline.learning.preferences import POLICY, Preferences, learn
from pipeline.learning.rated_pictures import KINDS


@dataclass(frozen=True, slots=True)
class Effect:
    """What is added to the score of something in one look, and from how many ratings; old ones count less."""

    kind: str
    name: str
    look: str
    ratings: float
    effect: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned, from how many `pictures`, and each effect: by kind, the strongest first."""

    preferences: Preferences
    pictures: int
    effects: tuple[Effect, ...]


def learned(output_dir: Path) -> Learned:
    """What the ratings of an output folder come to. Raises `ReadError` without a manifest."""
    Layout(output_dir).check_there()
    pictures = read_rated(output_dir)
    found = learn(pictures)
    effects = [
        Effect(one.kind, one.name, one.look, one.count / 10, found.effect(one.kind, one.name, one.look))
        for one in found.statistics
    ]
    effects.sort(key=lambda one: (KINDS.index(one.kind), -one.effect, one.name, one.look))
    return Learned(found, len(pictures), tuple(effects))


def as_json(found: Learned) -> dict[str, Any]:
    """As plain values; effects are rounded to 3 digits, as scores are."""
    effects = [{**asdict(one), "effect": round(one.effect, 3)} for one in found.effects]
    return {"hash": found.preferences.hash, "policy": POLICY, "images": found.pictures, "learned": effects}


def export(found: Learned, file: Path) -> None:
    """Write the statistics, from which the same effects follow anywhere. Raises `ConfigError`."""
    write_made(file, found.preferences.to_json().encode())
