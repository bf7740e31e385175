"""The seeded drawing of postcards: the training data, borrowed from nobody.

A postcard is 64 x 64 pixels. The sky fills the upper part, the sun or the moon hangs in it left or right,
the land lies below, and an object stands in front, near the middle. Lengths are in pixels, with y pointing
down.
"""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_model.scenes import (
    COLOURS,
    GROUNDS,
    HALO,
    LIGHTS,
    SIZE,
    SKIES,
    SNOW,
    TIMES,
    WOOD,
    Colour,
    Scene,
    Side,
    lit,
    mix,
)

Points: TypeAlias = list[tuple[float, float]]

SUPERSAMPLING = 3
"""Postcards are drawn this much larger and averaged down, which smooths the edges."""
STARS: Points = [(6, 5), (22, 4), (32, 12), (42, 5), (59, 6), (27, 20), (38, 19)]


def draw(scene: Scene, rng: Random) -> Image.Image:
    """Draw `scene` as an RGB image of `SIZE` x `SIZE` pixels; `rng` moves things about a little."""
    canvas = Canvas(scene.time)
    if scene.side is not None:
        canvas.light(scene.side, rng)
    LANDS[scene.place](canvas, rng)
    if scene.object is not None and scene.colour is not None:
        THINGS[scene.object](canvas, COLOURS[scene.colour], rng)
    return canvas.finished()


class Canvas:
    """An enlarged picture that begins as a sky and is drawn upon in postcard pixels."""

    def __init__(self, time: str) -> None:
        self.time = time
        self.image = _sky(time).copy()
        self._draw = ImageDraw.Draw(self.image)
        if time == "night":
            for x, y in STARS:
                self.disc(x, y, 0.8, (214, 218, 240))

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill the polygon with these corners."""
        self._draw.polygon([(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle around (x, y)."""
        corners = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse([edge * SUPERSAMPLING for edge in corners], fill=colour)

    def light(self, side: Side, rng: Random) -> None:
        """Hang the sun, or at night the moon with its crescent shade, into the sky."""
        x = rng.uniform(11, 16) if side == "left" else rng.uniform(48, 53)
        y = rng.uniform(10, 14)
        colour, sky = LIGHTS[self.time], mix(*SKIES[self.time], 0.25)
        self.disc(x, y, 8, mix(sky, colour, 0.3))
        self.disc(x, y, 6, colour)
        if self.time == "night":
            self.disc(x + 2.6, y - 1.6, 4.4, mix(sky, colour, 0.3))

    def finished(self) -> Image.Image:
        """Return the picture at its proper size."""
        return self.image.reduce(SUPERSAMPLING)


@lru_cache(maxsize=len(TIMES))
def _sky(time: str) -> Image.Image:
    """Return an enlarged empty sky, a vertical gradient that ends at y = 40."""
    top, horizon = (np.asarray(colour, dtype=np.float32) for colour in SKIES[time])
    amount = np.clip(np.arange(SIZE * SUPERSAMPLING, dtype=np.float32) / (40 * SUPERSAMPLING), 0, 1)
    rows = top + (horizon - top) * amount[:, None]
    pixels = np.broadcast_to(rows[:, None, :], (len(rows), len(rows), 3))
    return Image.fromarray(np.ascontiguousarray(pixels.round().astype(np.uint8)))


def _wave(base: float, height: float, length: float, phase: float) -> Points:
    """Return the corners of a land whose upper edge is a sine wave around y = `base`."""
    edge: Points = []
    for x in range(0, SIZE + 2, 2):
        edge.append((x, base - height * math.sin(2 * math.pi * (x / length + phase))))
    return [*edge, (SIZE, SIZE), (0, SIZE)]


def sea(canvas: Canvas, rng: Random) -> None:
    """Water to the horizon, with a few crests of waves."""
    water, crest = (lit(colour, canvas.time) for colour in GROUNDS["sea"])
    canvas.box(0, 38, SIZE, SIZE, water)
    for row, y in enumerate((42, 48, 54, 60)):
        start = rng.uniform(0, 6) + (6 if row % 2 else 0)
        for x in (start, start + 24, start + 48):
            canvas.polygon([(x - 6, y), (x, y - 1), (x + 6, y), (x, y + 1)], crest)


def mountains(canvas: Canvas, rng: Random) -> None:
    """Three peaks with snow on them, behind bare ground."""
    ground, slope = (lit(colour, canvas.time) for colour in GROUNDS["mountains"])
    shade, snow = mix(slope, (40, 36, 70), 0.35), mix(lit(SNOW, canvas.time), SNOW, 0.3)
    for middle, top in ((10, 27), (54, 26), (32, 25)):
        x, y = middle + rng.uniform(-3, 3), top + rng.uniform(-2, 2)
        drop = 48 - y
        canvas.polygon([(x - 20, 48), (x, y), (x + 20, 48)], slope)
        canvas.polygon([(x + 2, 48), (x, y), (x + 20, 48)], shade)
        edge = 7 / drop * 20
        canvas.polygon([(x, y), (x + edge, y + 7), (x + 1, y + 5), (x - edge, y + 7)], snow)
    canvas.polygon(_wave(47, 1.0, 50, rng.random()), ground)


def hills(canvas: Canvas, rng: Random) -> None:
    """Two rows of round green hills."""
    near, far = (lit(colour, canvas.time) for colour in GROUNDS["hills"])
    canvas.polygon(_wave(36, 4, 34, rng.random()), far)
    canvas.polygon(_wave(46, 2.5, 52, rng.random()), near)


def desert(canvas: Canvas, rng: Random) -> None:
    """Dunes, each with a bright and a shaded flank."""
    sand, shade = (lit(colour, canvas.time) for colour in GROUNDS["desert"])
    canvas.box(0, 42, SIZE, SIZE, sand)
    for middle, top in ((13, 34), (48, 35)):
        x, y = middle + rng.uniform(-4, 4), top + rng.uniform(-1.5, 1.5)
        canvas.polygon([(x - 26, 46), (x - 8, y + 3), (x, y), (x + 8, y + 4), (x + 26, 46)], sand)
        canvas.polygon([(x, y), (x + 8, y + 4), (x + 26, 46), (x + 6, 46), (x + 3, y + 6)], shade)
    canvas.polygon(_wave(48, 1.2, 60, rng.random()), sand)


def forest(canvas: Canvas, rng: Random) -> None:
    """A row of firs across the whole postcard, behind mossy ground."""
    ground, fir = (lit(colour, canvas.time) for colour in GROUNDS["forest"])
    dark = mix(fir, (6, 20, 24), 0.45)
    for tint, start, base in ((dark, 0, 26), (fir, 4, 29)):
        for x in range(start, SIZE + 4, 8):
            y = base + rng.uniform(-1.5, 1.5)
            canvas.polygon([(x - 5.5, 48), (x, y), (x + 5.5, 48)], tint)
    canvas.box(0, 47, SIZE, SIZE, ground)


def house(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Walls in `colour`, under a dark roof."""
    x, y, half = rng.uniform(26, 38), rng.uniform(56, 58), rng.uniform(10.5, 12)
    canvas.box(x - half - 1.3, y - 14, x + half + 1.3, y + 1.3, HALO)
    canvas.polygon([(x - half - 5, y - 12), (x, y - 26), (x + half + 5, y - 12)], HALO)
    canvas.box(x - half, y - 14, x + half, y, colour)
    canvas.polygon([(x - half - 2.5, y - 13.2), (x, y - 24), (x + half + 2.5, y - 13.2)], WOOD)
    canvas.box(x - 2.5, y - 8, x + 2.5, y, WOOD)


def boat(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Hull and two sails in `colour`, with a dark mast."""
    x, y, half = rng.uniform(26, 38), rng.uniform(56, 58), rng.uniform(13, 14.5)
    canvas.polygon(
        [
            (x - half - 2.5, y - 9.3),
            (x + half + 2.5, y - 9.3),
            (x + half - 4, y + 1.3),
            (x - half + 4, y + 1.3),
        ],
        HALO,
    )
    canvas.polygon([(x - 13, y - 9), (x - 0.5, y - 31), (x + 13, y - 9)], HALO)
    canvas.polygon([(x - 10.5, y - 10.5), (x - 1.2, y - 27), (x - 1.2, y - 10.5)], colour)
    canvas.polygon([(x + 1.2, y - 27), (x + 10.5, y - 10.5), (x + 1.2, y - 10.5)], colour)
    canvas.box(x - 0.9, y - 29, x + 0.9, y - 8, WOOD)
    canvas.polygon([(x - half, y - 8), (x + half, y - 8), (x + half - 5, y), (x - half + 5, y)], colour)


def tree(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """A round crown in `colour`, on a trunk."""
    x, y, radius = rng.uniform(26, 38), rng.uniform(56, 58), rng.uniform(10, 11)
    canvas.box(x - 3.3, y - 12, x + 3.3, y + 1.3, HALO)
    canvas.disc(x, y - 17, radius + 1.3, HALO)
    canvas.box(x - 2, y - 12, x + 2, y, WOOD)
    canvas.disc(x, y - 17, radius, colour)


LANDS = {"sea": sea, "mountains": mountains, "hills": hills, "desert": desert, "forest": forest}
THINGS = {"house": house, "boat": boat, "tree": tree}
