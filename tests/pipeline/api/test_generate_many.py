"""Many pictures from Python: batched as a run batches, in the order asked for, and each as if made by itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import ConfigError, JobFailure, Picture, Pipeline, read_record
from pipeline.api import pipeline as api
from pipeline.generation.generate import generate_bundle
from pipeline.memory.planning.predicted_time import BUNDLE_IMAGES
from pipeline.request import ImageRequest

PROMPTS = ["a red house", "a blue boat", "a green tree"]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with Pipeline(device="cpu") as pipeline:
        yield pipeline


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the batches of each bundle that is made from now on."""
    seen: list[list[int]] = []

    def noted(model: Any, batches: Sequence[Sequence[ImageRequest]], **options: Any) -> Any:
        seen.append([len(batch) for batch in batches])
        return generate_bundle(model, batches, **options)

    monkeypatch.setattr(api, "generate_bundle", noted)
    return seen


def pictures(outcomes: Iterator[Picture | JobFailure]) -> list[Picture]:
    found = list(outcomes)
    assert all(isinstance(one, Picture) for one in found)
    return found  # type: ignore[return-value]


def test_every_prompt_is_made_with_every_seed_in_order(pipeline: Pipeline, bundles: list[list[int]]) -> None:
    made = pictures(pipeline.generate_many(PROMPTS, seeds=range(2), steps=2))
    asked = [(one.image.request.prompt, one.image.request.seed) for one in made]
    assert asked == list(itertools.product(PROMPTS, (0, 1)))
    assert bundles == [[6]]


def test_a_picture_is_that_of_generate_and_its_record_says_how_it_was_batched(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 2, "guidance_scale": 3.0, "negative_prompt": "a boat"}
    many = pictures(pipeline.generate_many(PROMPTS, seeds=[7], **settings))
    for one, prompt in zip(many, PROMPTS, strict=True):
        alone = pipeline.generate(prompt, seed=7, **settings)
        difference = one.image.pixels.astype(int) - alone.image.pixels.astype(int)
        assert np.abs(difference).max() <= 2  # other batches, other last bits
        record = read_record(one.save(tmp_path))
        other = alone.record()
        assert (record.prompt, record.seed, record.negative_prompt) == (prompt, 7, "a boat")
        assert (record.model, record.job.id, record.scheduler) == (other.model, other.job.id, other.scheduler)
        assert (record.batch.size, record.batch.index) == (3, PROMPTS.index(prompt))


@pytest.mark.slow
def test_batches_and_bundles_are_those_of_a_run(pipeline: Pipeline, bundles: list[list[int]]) -> None:
    made = pipeline.generate_many(["a house"], seeds=range(BUNDLE_IMAGES + 2), steps=1, batch_size=20)
    assert not bundles, "nothing is made before it is asked for"
    assert len(pictures(made)) == BUNDLE_IMAGES + 2
    assert bundles == [[20, 12], [2]]


def test_what_fails_is_told_in_its_place_and_the_others_are_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = JobFailure("no luck")

    def poisoned(model: Any, batches: Sequence[Sequence[ImageRequest]], **options: Any) -> Iterator[Any]:
        yield 1, failure
        for place, outcome in generate_bundle(model, batches, **options):
            if place != 1:
                yield place, outcome

    monkeypatch.setattr(api, "generate_bundle", poisoned)
    first, second, third = pipeline.generate_many(PROMPTS, steps=1)
    assert isinstance(first, Picture) and isinstance(third, Picture)
    assert second is failure and third.image.request.prompt == PROMPTS[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"prompts": "a house"}, "prompts: must be a list, also of one"),
        ({"prompts": ["a house", 3]}, r"prompts\[1\]: must be text"),
        ({"seeds": [0, -1]}, r"seeds\[1\]: must be a whole number from 0"),
        ({"batch_size": 0}, "batch_size: must be a whole number from 1 to 256"),
        ({"steps": 0}, "steps: must be a whole number from 1 to 1000"),
    ],
)
def test_what_is_wrong_is_said_at_once(pipeline: Pipeline, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        pipeline.generate_many(**{"prompts": ["a house"], **arguments})


def test_nothing_asked_is_nothing_made(pipeline: Pipeline) -> None:
    assert list(pipeline.generate_many([])) == []


def test_others_wait_until_all_are_taken_or_the_iterator_is_closed(pipeline: Pipeline) -> None:
    made = pipeline.generate_many(PROMPTS, steps=1, batch_size=1)
    next(made)
    with pytest.raises(ConfigError, match=r"take them all, or close\(\)"):
        pipeline.generate("a boat", steps=1)
    made.close()  # type: ignore[attr-defined]
    pipeline.generate("a boat", steps=1)
    for _ in pipeline.generate_many(PROMPTS, steps=1):
        break
    pipeline.generate("a boat", steps=1)


@pytest.mark.slow
def test_a_closed_pipeline_makes_no_more() -> None:
    pipeline = Pipeline(device="cpu")
    made = pipeline.generate_many(PROMPTS, steps=1, batch_size=1)
    next(made)
    pipeline.close()
    with pytest.raises(ConfigError, match="was closed"):
        next(made)
    assert isinstance(pipeline.generate("a boat", steps=1), Picture)


def test_loras_hold_for_all_of_them(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    from build_tiny_models import write_lora

    model = tiny("sd15")
    write_lora(model / "unet", tmp_path / "style.safetensors", 0)
    with Pipeline(str(model), device="cpu") as pipeline:
        settings: dict[str, Any] = {"steps": 1, "width": 32, "height": 32, "loras": [tmp_path / "style.safetensors"]}
        for one in pictures(pipeline.generate_many(PROMPTS[:2], **settings)):
            assert [lora.name for lora in one.record().loras] == ["style"]


def test_a_notebook_shows_a_picture_without_its_recipe(pipeline: Pipeline) -> None:
    import io

    from PIL import Image

    picture = pipeline.generate("a red house", steps=1)
    shown = Image.open(io.BytesIO(picture._repr_png_()))
    assert shown.format == "PNG" and not shown.info
    assert np.array_equal(np.asarray(shown), picture.image.pixels)
