"""What postcards show and in which colours: the vocabulary, the palette, and every scene that there is.

`postcards.py` draws a scene, `captions.py` puts it into words, `check.py` recognises it again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

Colour: TypeAlias = tuple[int, int, int]
Side: TypeAlias = Literal["left", "right"]

SIZE = 64
"""Width and height of a postcard, in pixels."""

PLACES = ("sea", "mountains", "hills", "desert", "forest")
TIMES = ("day", "dawn", "sunset", "night")
SIDES: tuple[Side, ...] = ("left", "right")
OBJECTS = ("house", "boat", "tree")
COLOURS: dict[str, Colour] = {
    "red": (214, 30, 38),
    "orange": (250, 130, 10),
    "yellow": (252, 222, 30),
    "green": (20, 190, 80),
    "blue": (30, 70, 225),
    "purple": (130, 40, 180),
    "pink": (255, 120, 195),
    "white": (250, 250, 250),
}
"""The colours of objects, far from one another and from every land; they are the same at any time of day."""

SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((92, 172, 240), (196, 230, 250)),
    "dawn": ((150, 128, 205), (252, 200, 205)),
    "sunset": ((186, 52, 72), (255, 172, 74)),
    "night": ((10, 14, 48), (44, 50, 104)),
}
"""The sky's colour at its top and at the horizon."""
LIGHTS: dict[str, Colour] = {
    "day": (255, 246, 130),
    "dawn": (255, 244, 200),
    "sunset": (255, 240, 120),
    "night": (242, 242, 226),
}
GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "sea": ((18, 126, 180), (70, 172, 212)),
    "mountains": ((112, 102, 140), (146, 138, 168)),
    "hills": ((128, 190, 76), (100, 164, 66)),
    "desert": ((232, 196, 132), (206, 160, 96)),
    "forest": ((56, 104, 58), (24, 74, 50)),
}
"""Each land by day: the colour of its foreground, and that of its waves, slopes or trees."""
SNOW: Colour = (238, 240, 248)
HALO: Colour = (255, 250, 236)
WOOD: Colour = (84, 54, 46)


@dataclass(frozen=True)
class Scene:
    """What a postcard shows.

    `side` is where the sun stands, at night the moon; `None` means that there is none.
    `object` and `colour` are both given or both `None`.
    """

    place: str
    time: str
    side: Side | None = None
    object: str | None = None
    colour: str | None = None


@lru_cache(maxsize=1)
def all_scenes() -> tuple[Scene, ...]:
    """Return the 1,500 scenes that there are, in a fixed order."""
    things: list[tuple[str | None, str | None]] = [(None, None), *itertools.product(OBJECTS, COLOURS)]
    sides: list[Side | None] = [None, *SIDES]
    return tuple(
        Scene(place, time, side, thing, colour)
        for place, time, side, (thing, colour) in itertools.product(PLACES, TIMES, sides, things)
    )


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Return the colour `amount` of the way (0 to 1) from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lit(colour: Colour, time: str) -> Colour:
    """Return how a land's daylight `colour` looks at `time`."""
    if time == "dawn":
        return mix(colour, (236, 176, 206), 0.22)
    if time == "sunset":
        return mix(colour, (214, 84, 36), 0.2)
    if time == "night":
        return mix(mix(colour, (0, 0, 0), 0.45), (24, 28, 80), 0.2)
    return colour
