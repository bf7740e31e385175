"""What one rated picture says about its causes: how many stars above what was expected, and who gets the credit.

Method and constants: docs/feedback.md, "How it is counted".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NEUTRAL_STARS = 3.0
FLOOR = 5
"""A rater's mean counts as if so many ratings were there at least, the missing ones neutral."""

PICK_STARS = 0.5
"""A pick is worth so many stars above the mean of its group, a lost comparison and a rejection as many below."""

MAX_PRIOR = 1.5
"""Rules are believed to tell pictures apart by so many stars at most, up and down."""

MODEL, LORA, SCHEDULER, GUIDANCE = "model", "lora", "scheduler", "guidance"
KINDS = (MODEL, LORA, SCHEDULER, GUIDANCE)

_GUIDANCE_EDGES = (1.5, 3.0, 5.0, 7.0, 9.0)


@dataclass(frozen=True, slots=True)
class RatedPicture:
    """The last word on one picture, and what it was made with.

    `stars`: 1 to 5, None for a picture that was only compared. `verdict`: 1 picked, -1 rejected, 0 neither; minus the
    share of one comparison for a picture of a group in which another was picked. `group_mean`: of the stars in that
    group, None where there are none. `look`: `main_look` of its prompt. `score`: what the rules gave its model, without
    what was learned; None where they did not choose it. `shares`: of model and LoRAs in the credit, by kind and name.
    """

    stars: int | None
    verdict: float
    group_mean: float | None
    look: str
    shares: tuple[tuple[str, str, float], ...]
    scheduler: str
    guidance_scale: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """So many stars above what was expected of one cause in one look; `weight` is the share of an observation."""

    kind: str
    name: str
    look: str
    weight: float
    stars: float


def observations(pictures: Iterable[RatedPicture]) -> Iterator[tuple[Observation, ...]]:
    """What each picture, in the order of time, says of its causes.

    Stars count from the rater's running mean, for people use 3 to 5; the rules' score from its own running mean.
    """
    stars_sum, stars_count = 0.0, 0
    score_sum, score_count = 0.0, 0
    for picture in pictures:
        if picture.stars is not None:
            stars_sum, stars_count = stars_sum + picture.stars, stars_count + 1
        missing = max(FLOOR - stars_count, 0)
        usual = (stars_sum + missing * NEUTRAL_STARS) / (stars_count + missing)
        prior = 0.0
        if picture.score is not None:
            score_sum, score_count = score_sum + picture.score, score_count + 1
            prior = min(max(picture.score - score_sum / score_count, -MAX_PRIOR), MAX_PRIOR)
        if picture.stars is not None:
            weight, stars = 1.0, picture.stars + PICK_STARS * picture.verdict
        else:
            base = usual if picture.group_mean is None else picture.group_mean
            weight = abs(picture.verdict)
            stars = base + (PICK_STARS if picture.verdict > 0 else -PICK_STARS)
        sampling = ((SCHEDULER, picture.scheduler, 1.0), (GUIDANCE, guidance_band(picture.guidance_scale), 1.0))
        yield tuple(
            Observation(kind, name, picture.look, weight * share, stars - usual - prior)
            for kind, name, share in (*picture.shares, *sampling)
            if weight * share > 0
        )


def credit(model: str, model_part: float, loras: Sequence[tuple[str, float]]) -> tuple[tuple[str, str, float], ...]:
    """Model and LoRAs with their shares in a picture's credit, by their parts: scores, or else weights.

    Parts below zero are none; where there is none at all, the model has all.
    """
    parts = [(MODEL, model, max(model_part, 0.0)), *((LORA, name, max(part, 0.0)) for name, part in loras)]
    total = sum(part for _, _, part in parts)
    if total <= 0:
        return ((MODEL, model, 1.0),)
    return tuple((kind, name, part / total) for kind, name, part in parts)


def guidance_band(guidance_scale: float) -> str:
    """The band that a guidance scale is in, such as `3 to 5`; the lower bound belongs to it."""
    edges = [edge for edge in _GUIDANCE_EDGES if edge <= guidance_scale]
    if not edges:
        return f"below {_GUIDANCE_EDGES[0]:g}"
    if edges[-1] == _GUIDANCE_EDGES[-1]:
        return f"{edges[-1]:g} and more"
    return f"{edges[-1]:g} to {_GUIDANCE_EDGES[len(edges)]:g}"
