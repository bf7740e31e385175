"""The Python API: a picture in three lines, with its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import ConfigError, ModelError, Picture, Pipeline, read_record
from pipeline.weights.references import EMBEDDED_DEFAULTS

PROMPT = "a red house in hills at sunset"


@pytest.fixture(scope="module")
def picture() -> Picture:
    with Pipeline(model="demo", device="cpu") as pipeline:
        return pipeline.generate(PROMPT, seed=7, steps=4)


def test_a_picture_is_saved_with_the_recipe_that_made_it(picture: Picture, tmp_path: Path) -> None:
    path = picture.save(tmp_path, naming="descriptive")
    record = read_record(path)
    assert path.parent == tmp_path
    assert "a-red-house-in-hills-at-sunset" in path.name
    assert (record.prompt, record.seed, record.steps) == (PROMPT, 7, 4)
    assert record.guidance_scale == EMBEDDED_DEFAULTS["demo"][1]
    assert (record.width, record.height) == picture.to_pil().size


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_every_format_gives_the_record_back(picture: Picture, tmp_path: Path, image_format: str) -> None:
    path = picture.save(tmp_path, format=image_format, tags=("first",))  # type: ignore[arg-type]
    record = read_record(path)
    assert path.suffix == f".{image_format}"
    assert (record.prompt, record.job.tags, record.output.format) == (PROMPT, ["first"], image_format)


def test_saving_twice_keeps_both_files(picture: Picture, tmp_path: Path) -> None:
    assert picture.save(tmp_path) != picture.save(tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    with Pipeline(device="cpu") as pipeline:
        first, again, other = (pipeline.generate(PROMPT, seed=seed, steps=2).image.pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_missing_model_is_named_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"no such folder.*model_index\.json"):
        Pipeline(model="/nowhere/at/all")


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"engine\.device=cpu"):
        Pipeline(device="cuda")


def test_weights_are_named_by_texts_and_paths_and_nothing_else() -> None:
    demo = Path(__file__).parents[3] / "pipeline" / "demo"
    for name in ("demo", demo, str(demo)):
        with Pipeline(name, device="cpu") as pipeline:
            assert isinstance(pipeline.generate(PROMPT, steps=1), Picture)
    for arguments in ({"model": None}, {"vae": 3}, {"tiny_vae": 3.5}):
        with pytest.raises(ConfigError, match=f"{next(iter(arguments))}: must be a path or a name"):
            Pipeline(**{"device": "cpu", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"seed": -1}, "seed: must be a whole number from 0"),
        ({"seed": None}, "seed: must be a whole number"),
        ({"seed": 2**60}, r"seed: .* \(got 1152921504606846976\)"),
        ({"steps": 0}, "steps: must be a whole number from 1 to 1000"),
        ({"steps": 2.5}, r"steps: .* \(got 2.5\)"),
        ({"guidance_scale": -3}, "guidance_scale: must be a number from 0 to 100"),
        ({"guidance_scale": float("nan")}, "guidance_scale: "),
        ({"width": 0}, "width: must be a whole number from 16 to 4096"),
        ({"height": 100}, "height: must be a multiple of 8"),
        ({"negative_prompt": None}, "negative_prompt: must be text"),
        ({"strength": 0}, "strength: must be a number above 0"),
        ({"clip_skip": 3}, "clip_skip: must be a whole number from 1 to 2"),
        ({"scheduler": "nope"}, "scheduler: is no known scheduler"),
        ({"scheduler": "FlowMatch Euler"}, "scheduler: FlowMatch Euler does not suit demo, no flow-matching model"),
        ({"scheduler": "LCM", "steps": 51}, r"steps: LCM cannot take 51 steps .*; take 50$"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_made(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Pipeline(device="cpu").generate(PROMPT, **arguments)


def test_all_bad_arguments_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(device="cpu").generate("a\0b", seed=-1, steps=0)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["prompt", "seed", "steps"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": 3}, r"^name: .*\(got 3\)"),
        ({"name": "a\0"}, "^name: "),
        ({"tags": [3]}, r"^tags\[0\]: .*\(got 3\)"),
        ({"tags": ["\ud800"]}, "^tags"),
        ({"tags": None}, "^tags: must be several texts"),
        ({"directory": None}, "^directory: must be a path"),
        ({"directory": __file__}, "^directory: .* cannot be written"),
    ],
)
def test_what_a_file_cannot_say_and_where_it_cannot_be_is_named(
    picture: Picture, tmp_path: Path, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        picture.save(**{"directory": tmp_path, **arguments})
    assert not [*tmp_path.iterdir()]


def test_tags_are_texts_and_not_letters(picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tags: must be several texts"):
        picture.save(tmp_path, tags="abc")
