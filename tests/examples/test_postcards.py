"""The demo model's data: drawing, captions, the held-out scenes, and the check that judges pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from examples.demo_model.captions import (
    canonical,
    caption,
    held_out,
    held_out_scenes,
    light_of,
    training_scene,
    wordings,
)
from examples.demo_model.check import accuracy, look
from examples.demo_model.postcards import draw
from examples.demo_model.scenes import COLOURS, OBJECTS, PLACES, SIDES, SIZE, TIMES, Scene, all_scenes
from examples.demo_model.words import learn_merges

RED_HOUSE = Scene("hills", "sunset", "left", "house", "red")


def test_same_seed_draws_the_same_pixels() -> None:
    first, second = (np.asarray(draw(RED_HOUSE, Random(7))) for _ in range(2))
    assert first.shape == (SIZE, SIZE, 3)
    assert np.array_equal(first, second)


def test_other_seeds_draw_other_pixels() -> None:
    assert not np.array_equal(draw(RED_HOUSE, Random(7)), draw(RED_HOUSE, Random(8)))


def test_scenes_are_all_combinations() -> None:
    scenes = all_scenes()
    assert len(scenes) == len(set(scenes)) == 5 * 4 * 3 * (1 + 3 * 8)


def test_canonical_captions() -> None:
    assert canonical(RED_HOUSE) == "a red house in hills at sunset with a sun on the left"
    assert canonical(Scene("sea", "night", "right")) == "sea at night with a moon on the right"
    assert canonical(Scene("desert", "day", None, "boat", "orange")) == "an orange boat in desert at day"
    assert len({canonical(scene) for scene in all_scenes()}) == len(all_scenes())


def test_wordings_vary_and_name_nothing_false() -> None:
    rng = Random(1)
    for scene in all_scenes()[::7]:
        texts = {caption(scene, rng) for _ in range(40)}
        assert len(texts) > 8
        for words in (set(re.findall("[a-z]+", text)) for text in texts):
            assert words & set(COLOURS) <= {scene.colour, "green"}, "hills may be called green"
            assert words & set(OBJECTS) <= {scene.object}
            assert words & set(SIDES) <= {scene.side}
            assert words & {"sun", "moon"} <= {light_of(scene)}
            assert words & set(PLACES) <= {scene.place}
            assert words & set(TIMES) <= {scene.time}


def test_held_out_scenes_are_fixed_and_never_trained_on() -> None:
    kept = held_out_scenes(10_000)
    assert 200 <= len(kept) <= 260
    assert held_out_scenes(200) == held_out_scenes(200)
    rng = Random(3)
    assert not any(held_out(training_scene(rng)) for _ in range(3000))
    for values, name in ((PLACES, "place"), (TIMES, "time"), (SIDES, "side"), (COLOURS, "colour")):
        assert {getattr(scene, name) for scene in kept} >= set(values)


def test_merges_make_every_word_one_token() -> None:
    words = {word for text in wordings() for word in re.findall("[a-z]+", text)}
    made = {"".join(pair) for pair in learn_merges(words)}
    assert all(word + "</w>" in made for word in words if len(word) > 1)


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    rng = Random(11)
    return [draw(scene, rng) for scene in all_scenes()]


@pytest.mark.slow
def test_check_is_right_on_drawn_postcards(drawn: list[Image.Image]) -> None:
    for name, share in accuracy(all_scenes(), drawn).items():
        assert share >= 0.97, name


@pytest.mark.slow
def test_check_sees_when_nothing_is_there(drawn: list[Image.Image]) -> None:
    seen = [look(image) for image in drawn]
    for name in ("side", "colour"):
        bare = [got for got, scene in zip(seen, all_scenes(), strict=True) if getattr(scene, name) is None]
        assert sum(getattr(got, name) is None for got in bare) >= 0.97 * len(bare), name


def test_check_forgives_soft_and_enlarged_pictures(drawn: list[Image.Image]) -> None:
    soft = [image.filter(ImageFilter.GaussianBlur(1)).resize((128, 128)) for image in drawn[::5]]
    for name, share in accuracy(all_scenes()[::5], soft).items():
        assert share >= 0.95, name


def test_check_is_not_fooled_by_grey() -> None:
    grey = [Image.new("RGB", (SIZE, SIZE), (128, 128, 128))] * 100
    scenes = held_out_scenes(100)
    shares = accuracy(scenes, grey)
    assert shares["side"] == shares["colour"] == 0
    assert shares["time"] < 0.5 and shares["place"] < 0.5


def test_check_needs_no_model() -> None:
    code = "import sys, examples.demo_model.check; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
