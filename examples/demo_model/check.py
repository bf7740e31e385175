"""Says what a postcard shows from its pixels alone: colours and regions, no model.

This is the measure behind the figures in the model card. It knows the palette that the postcards are drawn
with and where on a card things stand, and it is itself measured on drawn cards, where the truth is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.demo_model.scenes import (
    COLOURS,
    GROUNDS,
    HALO,
    SIZE,
    SKIES,
    SNOW,
    WOOD,
    Colour,
    Scene,
    Side,
    lit,
    mix,
)

SKY_ROWS = slice(2, 22)
"""Rows that no land reaches: sky, and the sun or the moon."""
LAND_ROWS = slice(26, SIZE)
LAND_COLUMNS = [*range(12), *range(52, SIZE)]
"""Columns at the sides, clear of the object."""
OBJECT_BOX = (slice(30, 58), slice(18, 46))
"""Rows and columns where an object stands."""
LIGHT_CONTRAST = 60.0
"""A pixel belongs to the sun or the moon when it is so far from its row's median colour (0 to 441)."""
LIGHT_PIXELS = 24
"""Fewer pixels than this are stars; a sun has about 110, a crescent 60."""
OBJECT_PIXELS = 30
OBJECT_DISTANCE = 75.0
"""A pixel has an object's colour when it is nearer to it than this, and than to any other colour around."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What was found; `side` and `colour` are `None` where there is no light or no object."""

    place: str
    time: str
    side: Side | None
    colour: str | None


def look(image: Image.Image) -> Seen:
    """Return what `image` shows; other sizes than a postcard's are brought to it first."""
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    pixels: Pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    time = find_time(pixels)
    return Seen(find_place(pixels, time), time, find_side(pixels), find_colour(pixels, time))


def find_time(pixels: Pixels) -> str:
    """Return the time whose sky is nearest to the median colour of each row of the upper sky."""
    rows = np.median(pixels[SKY_ROWS], axis=1)
    heights = np.arange(SIZE)[SKY_ROWS]

    def distance(time: str) -> float:
        sky = np.array([mix(*SKIES[time], float(y) / 40) for y in heights], dtype=np.float32)
        return float(np.linalg.norm(rows - sky, axis=1).mean())

    return min(SKIES, key=distance)


def find_side(pixels: Pixels) -> Side | None:
    """Return the half of the sky with the brighter disc in it."""
    sky = pixels[SKY_ROWS]
    light = np.linalg.norm(sky - np.median(sky, axis=1, keepdims=True), axis=2) > LIGHT_CONTRAST
    left, right = int(light[:, : SIZE // 2].sum()), int(light[:, SIZE // 2 :].sum())
    if max(left, right) < LIGHT_PIXELS:
        return None
    return "left" if left > right else "right"


def find_place(pixels: Pixels, time: str) -> str:
    """Return the land to whose colours most pixels at the sides are nearest, those of the sky left out."""
    owners: list[str | None] = []
    palette: list[Colour] = []
    for place in GROUNDS:
        shades = land_colours(place, time)
        owners += [place] * len(shades)
        palette += shades
    skies = sky_colours(time)
    nearest, _ = nearest_colours(pixels[LAND_ROWS][:, LAND_COLUMNS], [*palette, *skies])
    votes = dict.fromkeys(GROUNDS, 0)
    for index, owner in enumerate(owners):
        if owner is not None:
            votes[owner] += int((nearest == index).sum())
    return max(votes, key=lambda place: votes[place])


def find_colour(pixels: Pixels, time: str) -> str | None:
    """Return the colour of the object in the middle, by a count of its pixels."""
    around = [shade for place in GROUNDS for shade in land_colours(place, time)]
    names = list(COLOURS)
    nearest, distance = nearest_colours(
        pixels[OBJECT_BOX], [*COLOURS.values(), *around, *sky_colours(time), HALO, SNOW, WOOD]
    )
    counts = {name: int(((nearest == i) & (distance < OBJECT_DISTANCE)).sum()) for i, name in enumerate(names)}
    white = counts.pop("white")  # every object has a pale outline, so white has to win by default
    best = max(counts, key=lambda name: counts[name])
    if counts[best] >= OBJECT_PIXELS:
        return best
    return "white" if white >= OBJECT_PIXELS else None


def land_colours(place: str, time: str) -> list[Colour]:
    """Return the colours that `place` is drawn in at `time`."""
    return [lit(colour, time) for colour in GROUNDS[place]]


def sky_colours(time: str) -> list[Colour]:
    """Return colours along the sky of `time`."""
    return [mix(*SKIES[time], amount) for amount in (0.5, 0.75, 1.0)]


def nearest_colours(pixels: Pixels, palette: Sequence[Colour]) -> tuple[npt.NDArray[np.intp], Pixels]:
    """Return the index of the `palette` colour nearest to each of `pixels` (h, w, 3), and the distance."""
    distances = np.linalg.norm(pixels[:, :, None, :] - np.asarray(palette, dtype=np.float32), axis=3)
    nearest = distances.argmin(axis=2)
    return nearest, distances.min(axis=2).astype(np.float32)


def accuracy(scenes: Sequence[Scene], images: Iterable[Image.Image]) -> dict[str, float]:
    """Return the share of `images` (0 to 1) that show what their scenes ask for, per attribute.

    Time and place count everywhere; the side where a sun or moon is asked for, the colour where an object is.
    """
    hits: dict[str, list[bool]] = {"time": [], "place": [], "side": [], "colour": []}
    for scene, image in zip(scenes, images, strict=True):
        seen = look(image)
        hits["time"].append(seen.time == scene.time)
        hits["place"].append(seen.place == scene.place)
        if scene.side is not None:
            hits["side"].append(seen.side == scene.side)
        if scene.colour is not None:
            hits["colour"].append(seen.colour == scene.colour)
    return {name: sum(right) / len(right) for name, right in hits.items() if right}
