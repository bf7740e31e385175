"""Preferences: sufficient statistics of ratings, and what they add to the score of a model, LoRA, scheduler, guidance.

Two levels: a cause has a mean over all looks, and each look a difference from it; both are shrunk towards what the
rules expect, as if three neutral ratings had been given. What was rated little gets half a standard deviation for being
unknown. docs/feedback.md, "How it is counted", has the formulas and the simulation behind the constants.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import ReadError
from pipeline.learning.rated_pictures import KINDS, RatedPicture, observations

POLICY = 1
"""Changes when the same statistics would have other effects."""

PRIOR_RATINGS = 3
"""So many neutral ratings are assumed of everything."""

NOISE_STARS = 0.7
"""Standard deviation of one person's ratings of alike pictures."""

BONUS = 0.5
"""Standard deviations that an estimate is raised by for being uncertain."""

HALF_LIFE = 500
"""After so many later ratings, one counts half. Not after time: a plan made tomorrow must not differ."""

MAX_EFFECT = 1.5
"""Points of a score that can be learned, up and down."""

_MAX_STATISTICS = 100_000


@dataclass(frozen=True, slots=True, order=True)
class Statistic:
    """How often a cause was rated in one look, and the sum of stars above what was expected; both in tenths."""

    kind: str
    name: str
    look: str
    count: int
    stars: int


@dataclass(frozen=True, slots=True)
class Preferences:
    """What was learned. Equal statistics have the same `hash` and the same effects, whatever order they come in."""

    statistics: tuple[Statistic, ...] = ()
    _cells: dict[tuple[str, str], dict[str, tuple[float, float]]] = field(init=False, repr=False, compare=False)
    _effects: dict[tuple[str, str, str], float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cells: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        for one in self.statistics:
            cells.setdefault((one.kind, one.name), {})[one.look] = (one.count / 10, one.stars / 10)
        object.__setattr__(self, "statistics", tuple(sorted(self.statistics)))
        object.__setattr__(self, "_cells", cells)
        object.__setattr__(self, "_effects", {})

    @property
    def hash(self) -> str:
        """SHA-256 of `to_json`, in hex: what a plan calls these preferences."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self.statistics)

    def effect(self, kind: str, name: str, cell: str) -> float:
        """Points that are added to the score of one of `KINDS` for a prompt of this look, -1.5 to 1.5.

        0 for what was never rated: the bonus for uncertainty is counted from there, so that only differences matter.
        """
        key = (kind, name, cell)
        known = self._effects.get(key)
        if known is None:
            known = self._effects[key] = self._computed(kind, name, cell)
        return known

    def ratings(self, kind: str, name: str, cell: str | None = None) -> float:
        """How many ratings an effect comes from, old ones counting less: of one look, or of all together."""
        cells = self._cells.get((kind, name), {})
        return sum(count for look, (count, _) in cells.items() if cell in (None, look))

    def _computed(self, kind: str, name: str, cell: str) -> float:
        cells = self._cells.get((kind, name))
        if cells is None:
            return 0.0
        count, stars = sum(count for count, _ in cells.values()), sum(stars for _, stars in cells.values())
        cell_count, cell_stars = cells.get(cell, (0.0, 0.0))
        mean = stars / (count + PRIOR_RATINGS)
        difference = (cell_stars - cell_count * mean) / (cell_count + PRIOR_RATINGS)
        bonus = BONUS * (_deviation(count, cell_count) - _deviation(0, 0))
        return min(max(mean + difference + bonus, -MAX_EFFECT), MAX_EFFECT)

    def to_json(self) -> str:
        """The canonical text: policy, and statistics sorted."""
        rows = [[one.kind, one.name, one.look, one.count, one.stars] for one in self.statistics]
        return json.dumps({"policy": POLICY, "statistics": rows}, ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Preferences:
        """The inverse of `to_json`. Raises `ReadError` for anything else."""
        try:
            content = json.loads(text)
            policy, rows = content["policy"], content["statistics"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ReadError(
                "not what was learned from ratings; expected the JSON of darkroom learned --export"
            ) from None
        if policy != POLICY:
            raise ReadError(f"learned by policy {policy!r:.20}, this version has {POLICY}")
        if not isinstance(rows, list) or len(rows) > _MAX_STATISTICS:
            raise ReadError("not what was learned from ratings; its statistics are no list, or too many")
        return cls(tuple(map(_statistic, rows)))


NO_PREFERENCES = Preferences()


def learn(pictures: Sequence[RatedPicture]) -> Preferences:
    """The preferences of a rater. `pictures` in the order in which the last word on them was said."""
    counts: dict[tuple[str, str, str], list[float]] = {}
    for place, seen in enumerate(observations(pictures)):
        weight = 0.5 ** ((len(pictures) - 1 - place) / HALF_LIFE)
        for one in seen:
            sums = counts.setdefault((one.kind, one.name, one.look), [0.0, 0.0])
            sums[0] += weight * one.weight
            sums[1] += weight * one.weight * one.stars
    in_tenths = (Statistic(*key, round(10 * count), round(10 * stars)) for key, (count, stars) in counts.items())
    return Preferences(tuple(one for one in in_tenths if one.count))


def _deviation(count: float, cell_count: float) -> float:
    """The standard deviation of an estimate, in stars."""
    return NOISE_STARS * math.sqrt(1 / (cell_count + PRIOR_RATINGS) + 1 / (count + PRIOR_RATINGS))


def _statistic(row: object) -> Statistic:
    match row:
        case [str(kind), str(name), str(look), int(count), int(stars)] if kind in KINDS and 0 < count < 10**9:
            if abs(stars) < 10**9 and len(name) <= 1_000 and len(look) <= 100:
                return Statistic(kind, name, look, count, stars)
    raise ReadError(f"not what was learned from ratings: {row!r:.80}")
