"""How a scene is put into words, and which scenes are kept out of training.

Training sees many wordings of each scene, so that users' own phrasing works: other orders, commas, fillers,
parts left out. The measured accuracy is over canonical captions of held-out scenes: combinations that no
training picture shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from examples.demo_model.scenes import COLOURS, OBJECTS, PLACES, SIDES, TIMES, Scene, all_scenes

HELD_OUT_SHARE = 0.15
NAMED_SIDE_SHARE = 0.6
PLAIN_SHARE = 0.15
"""Shares of drawn scenes: with a sun or moon, and without an object."""

_PLACES = {
    "sea": ("in sea", "at sea", "by the sea", "on the sea", "in the sea", "on the ocean"),
    "mountains": ("in mountains", "in the mountains", "by the mountains", "near mountains"),
    "hills": ("in hills", "in the hills", "on green hills", "among hills"),
    "desert": ("in desert", "in the desert", "in a desert", "in a sandy desert"),
    "forest": ("in forest", "in the forest", "in a forest", "in the woods"),
}
_BARE_PLACES = {
    "sea": ("sea", "the sea", "a sea", "ocean"),
    "mountains": ("mountains", "the mountains", "snowy mountains", "mountain landscape"),
    "hills": ("hills", "the hills", "green hills", "rolling hills"),
    "desert": ("desert", "the desert", "a desert", "desert dunes"),
    "forest": ("forest", "the forest", "a forest", "forest landscape"),
}
_TIMES = {
    "day": ("at day", "by day", "during the day", "in daylight", "at noon"),
    "dawn": ("at dawn", "at dawn", "at sunrise", "in the morning", "in the early morning"),
    "sunset": ("at sunset", "at sunset", "at dusk", "in the evening"),
    "night": ("at night", "at night", "by night", "at midnight"),
}
_BARE_TIMES = {
    "day": ("day", "daylight", "noon"),
    "dawn": ("dawn", "sunrise", "morning"),
    "sunset": ("sunset", "dusk", "evening"),
    "night": ("night", "night sky", "starry night"),
}
_OPENINGS = (
    "a postcard of",
    "a painting of",
    "a picture of",
    "a beautiful postcard of",
    "a small postcard of",
    "an illustration of",
    "a beautiful painting of",
    "postcard,",
    "a drawing of",
    "a photo of",
)
_CLOSINGS = (
    ", beautiful",
    ", detailed",
    ", high quality",
    ", vector art",
    ", flat colours",
    ", masterpiece",
    ", best quality",
    ", calm",
    ", simple",
    ", minimal",
)


@lru_cache(maxsize=2048)
def held_out(scene: Scene) -> bool:
    """Tell whether `scene` is kept out of training: a share of all scenes, chosen by hash."""
    digest = hashlib.sha256(canonical(scene).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def canonical(scene: Scene) -> str:
    """Return the plain caption, such as `a red house in hills at sunset with a sun on the left`."""
    article = "an" if scene.colour == "orange" else "a"
    subject = f"{article} {scene.colour} {scene.object} in {scene.place}" if scene.object else scene.place
    light = f" with a {light_of(scene)} on the {scene.side}" if scene.side else ""
    return f"{subject} at {scene.time}{light}"


def light_of(scene: Scene) -> str:
    """Return what shines on the scene, by its time: `sun` or `moon`."""
    return "moon" if scene.time == "night" else "sun"


def training_scene(rng: Random) -> Scene:
    """Return a random scene that is not held out; most have an object, and more than half a sun or moon."""
    while True:
        thing, colour = rng.choice(OBJECTS), rng.choice(list(COLOURS))
        plain = rng.random() < PLAIN_SHARE
        side = rng.choice(SIDES) if rng.random() < NAMED_SIDE_SHARE else None
        scene = Scene(rng.choice(PLACES), rng.choice(TIMES), side, None if plain else thing, None if plain else colour)
        if not held_out(scene):
            return scene


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Return `count` different held-out scenes, shuffled; at most about 220 exist."""
    scenes = [scene for scene in all_scenes() if held_out(scene)]
    Random(seed).shuffle(scenes)
    return scenes[:count]


def caption(scene: Scene, rng: Random) -> str:
    """Return one wording of `scene`: canonical four times in ten, at times with parts left out."""
    if rng.random() < 0.4:
        return canonical(scene)
    parts = _parts(scene, rng)
    form = rng.random()
    if form < 0.5:
        words = " ".join(part for part, _ in parts)
    elif form < 0.8:
        rng.shuffle(parts)
        words = ", ".join(bare for _, bare in parts)
    else:
        rng.shuffle(parts)
        words = " ".join([parts[0][1], *(part for part, _ in parts[1:])])
    if rng.random() < 0.25:
        words = f"{rng.choice(_OPENINGS)} {words}"
    if rng.random() < 0.2:
        words += rng.choice(_CLOSINGS)
    return words


def _parts(scene: Scene, rng: Random) -> list[tuple[str, str]]:
    """Return the things that a caption names, each as it stands in a sentence and as it stands alone."""
    parts = []
    article = rng.choice(("a ", "a ", "the ", "one ", ""))
    if scene.object is not None and rng.random() < 0.96:
        colour = f"{scene.colour} " if rng.random() < 0.95 else ""
        if article == "a " and colour == "orange ":
            article = "an "
        start = rng.choice(("with ", "")) if rng.random() < 0.3 else ""
        parts.append((f"{start}{article}{colour}{scene.object}", f"{article}{colour}{scene.object}"))
    if rng.random() < 0.94 or not parts:
        parts.append((rng.choice(_PLACES[scene.place]), rng.choice(_BARE_PLACES[scene.place])))
    if rng.random() < 0.94:
        parts.append((rng.choice(_TIMES[scene.time]), rng.choice(_BARE_TIMES[scene.time])))
    if scene.side is not None and rng.random() < 0.95:
        light, joint = light_of(scene), rng.choice(("on the", "on the", "at the", "to the", "in the top"))
        article = rng.choice(("a ", "the ", "", "one "))
        parts.append((f"with {article}{light} {joint} {scene.side}", f"{article}{light} {joint} {scene.side}"))
    return parts


def wordings() -> Sequence[str]:
    """Return captions that together use every word of the vocabulary, for the tokenizer."""
    rng = Random(0)
    tables = (_PLACES, _BARE_PLACES, _TIMES, _BARE_TIMES)
    phrases = [text for table in tables for row in table.values() for text in row]
    return [*phrases, *_OPENINGS, *_CLOSINGS, *(caption(scene, rng) for scene in all_scenes())]
