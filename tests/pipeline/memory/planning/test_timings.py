"""How long batches took is remembered, and the size that a plan takes follows from it alone."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.memory.planning.history import FallbackHistory, Situation, Worked
from pipeline.memory.planning.timings import (
    GAIN,
    KEPT,
    TimingKind,
    Timings,
    comparable,
    described,
    kind_of,
    passes,
    preferred,
    untried,
)
from pipeline.request import (
    NO_ADAPTERS,
    Adapters,
    ImageRequest,
    InitImage,
    Likeness,
    LoraWeights,
    MemorySettings,
    ModelSettings,
    ReferenceImage,
    SpeedSettings,
)

MODEL = ModelSettings("one", "one", "ab" * 32, "StableDiffusionPipeline")
HELD = MemorySettings(dtype="float16", techniques=("half_precision", "staged", "vae_slicing"))
LIKE = Likeness(20, 5.0, 512, 512, "DDIM", None)


def kind(
    held: MemorySettings = HELD, like: Likeness = LIKE, adapters: Adapters = NO_ADAPTERS, **changes: Any
) -> TimingKind:
    made = kind_of(MODEL, held, like, adapters, SpeedSettings(), "Card 24", compiled=False)
    return replace(made, **changes)


HERE = kind()


def noted(
    path: Path, *batches: tuple[int, float], of: TimingKind = HERE, decode_s: float = 0.0, steps: int = 10
) -> Timings:
    """A store that was told of batches: their size, and seconds per picture and step."""
    timings = Timings(path)
    for batch, seconds in batches:
        timings.note(of, steps, batch, seconds * batch * steps, decode_s * batch)
    timings.save()
    return timings


def test_remembered_from_run_to_run_for_any_number_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "memory.sqlite"
    assert Timings(path).seconds(HERE, 10) == {}
    noted(path, *[(4, 0.02)] * 2, *[(8, 0.01)] * 2, decode_s=0.5)
    assert Timings(path).seconds(HERE, 10) == pytest.approx({4: 0.7, 8: 0.6})
    assert Timings(path).seconds(HERE, 1) == pytest.approx({4: 0.52, 8: 0.51})


def test_nothing_is_written_before_it_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    timings = Timings(path)
    timings.note(HERE, 10, 4, 1.0, 1.0)
    assert not path.exists()
    timings.save()
    timings.save()
    assert _count(path) == 1, "once only"


def test_one_measurement_is_none_and_the_last_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    assert noted(path, (4, 0.5)).seconds(HERE, 1) == {}
    assert noted(path, (4, 0.1)).seconds(HERE, 1) == pytest.approx({4: 0.1}), "what disturbs makes it longer"
    assert noted(path, *[(4, 0.3)] * KEPT, (8, 0.2)).seconds(HERE, 1) == pytest.approx({4: 0.3})
    assert _count(path) == KEPT + 1


def test_a_disturbed_measurement_does_not_count(tmp_path: Path) -> None:
    found = noted(tmp_path / "memory.sqlite", (4, 0.1), (4, 0.1), (4, 9.0), (4, 0.1), (4, 0.001)).seconds(HERE, 1)
    assert found == pytest.approx({4: 0.1})


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "cd" * 32},
        {"vae_sha256": "cd" * 32},
        {"dtype": "bfloat16"},
        {"techniques": ("denoiser_int8",)},
        {"width": 768},
        {"height": 768},
        {"guided": False},
        {"step_cache": "taylor_seer"},
        {"adapters": "loras 1"},
        {"attention": "flash"},
        {"channels_last": False},
        {"device": "Card 12"},
        {"compiled": True},
        {"budget_gib": 8},
    ],
)
def test_what_changes_the_speed_is_another_kind(change: dict[str, Any], tmp_path: Path) -> None:
    timings = noted(tmp_path / "memory.sqlite", (4, 0.1), (4, 0.1))
    assert timings.seconds(replace(HERE, **change), 1) == {}


def test_a_kind_is_what_plan_and_worker_both_see() -> None:
    """The plan has a likeness and what it means to do, the worker a request and what it did."""
    request = ImageRequest(
        "a house", "", 3, 20, 5.0, 512, 512, "DDIM", None, MODEL, MemorySettings(dtype="float16", techniques=())
    )
    made = kind_of(MODEL, HELD, request, request.adapters, SpeedSettings(), "Card 24", compiled=False)
    assert made == HERE and made.key() == HERE.key() != replace(HERE, width=64).key()
    assert kind(like=LIKE._replace(steps=4, guidance_scale=9.0, scheduler="Heun")) == HERE
    assert kind(like=LIKE._replace(guidance_scale=1.0)) != HERE


def test_only_techniques_that_change_the_speed_count_and_a_budget_where_it_decides_what_is_streamed() -> None:
    assert HERE.techniques == () and kind(replace(HELD, techniques=("drop_encoders", "encoder_int8"))) == HERE
    assert kind(replace(HELD, techniques=("vae_tiling", "denoiser_int8"))).techniques == ("denoiser_int8", "vae_tiling")
    roomy, tight = (replace(HELD, budget_bytes=size * 2**30) for size in (20, 8))
    assert kind(roomy) == kind(tight) == HERE
    roomy, tight = (replace(one, techniques=("resident_blocks",)) for one in (roomy, tight))
    assert kind(roomy) != kind(tight)


def test_passes_through_the_denoiser() -> None:
    picture = ReferenceImage("portrait", "portrait.png", "12" * 32)
    assert passes(LIKE, NO_ADAPTERS) == 20
    assert passes(LIKE, Adapters(init=InitImage(picture, 0.5))) == 10
    assert passes(LIKE._replace(steps=1), Adapters(init=InitImage(picture, 0.5))) == 1
    assert passes(LIKE._replace(scheduler="DPM2 a Karras"), NO_ADAPTERS) == 40
    assert passes(LIKE._replace(scheduler="HeunDiscreteScheduler"), NO_ADAPTERS) == 40
    assert passes(LIKE._replace(scheduler="DPM++ 2M SDE Heun"), NO_ADAPTERS) == 20


def test_nothing_in_the_file_tells_what_was_made(tmp_path: Path) -> None:
    secret = Adapters(loras=(LoraWeights("secret", "/home/me/secret.safetensors", "34" * 32),))
    path = tmp_path / "memory.sqlite"
    noted(path, (4, 0.1), of=kind(adapters=secret))
    content = path.read_bytes()
    assert not any(word in content for word in (b"secret", b"home", b"Card", MODEL.sha256.encode()))


def test_beside_experience_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    situation, worked = Situation("make", "ab" * 32, HELD, 24 * 2**30), Worked(("staged",), 2)
    noted(path, (4, 0.1), (4, 0.1))
    FallbackHistory(path).remember(situation, worked)
    noted(path, (8, 0.1), (8, 0.1))
    assert {*Timings(path).seconds(HERE, 1)} == {4, 8}
    assert FallbackHistory(path).recall(situation) == worked


def test_a_damaged_file_costs_nothing_but_the_measurements_in_it(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"no database" * 1000)
    assert Timings(path).seconds(HERE, 1) == {}
    assert noted(path, (4, 0.1), (4, 0.1)).seconds(HERE, 1) == {4: 0.1}
    (tmp_path / "file").touch()
    assert noted(tmp_path / "file" / "memory.sqlite", (4, 0.1), (4, 0.1)).seconds(HERE, 1) == {}


@pytest.mark.parametrize("change", ["denoise = 'x'", "denoise = NULL", "decode = -1", "denoise = 9e999", "batch = 'x'"])
def test_what_makes_no_sense_is_passed_over(change: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    noted(path, *[(4, 0.1)] * 2, *[(8, 0.1)] * 2)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE paces SET {change} WHERE batch = 4")
    assert Timings(path).seconds(HERE, 1) == pytest.approx({8: 0.1})


def test_a_clock_that_went_wrong_is_not_noted(tmp_path: Path) -> None:
    noted(tmp_path / "memory.sqlite", (4, -0.1), (4, math.nan), (4, math.inf))
    assert not (tmp_path / "memory.sqlite").exists()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, 8),
        ({4: 0.1, 16: 0.2}, 8),  # the usual one has to be measured first
        ({8: 0.2}, 8),
        ({4: 0.15, 8: 0.12}, 8),
        ({4: 0.12, 8: 0.15}, 4),
        ({4: 0.102, 8: 0.1}, 4),  # 2 % are not worth it
        ({4: 0.104, 8: 0.1}, 8),
        ({8: 0.102, 16: 0.1}, 8),
        ({8: 0.12, 16: 0.1}, 16),
        ({1: 0.1, 2: 0.101, 4: 0.0995, 8: 0.1, 16: 0.11}, 1),
    ],
)
def test_the_smallest_size_that_no_other_beats_clearly(seconds: dict[int, float], expected: int) -> None:
    assert preferred(seconds, 8) == expected


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(0.001, 10), min_size=1))
def test_no_other_size_is_more_than_the_gain_faster(seconds: dict[int, float]) -> None:
    seconds.setdefault(8, 1.0)
    chosen = preferred(seconds, 8)
    assert all(seconds[chosen] * (1 - GAIN) <= one for one in seconds.values())
    assert all(seconds[one] * (1 - GAIN) > min(seconds.values()) for one in seconds if one < chosen)


@pytest.mark.parametrize(
    ("seconds", "present", "largest", "expected"),
    [
        ({}, 8, 32, 4),  # the smaller one surely fits
        ({8: 0.1, 4: 0.2}, 8, 32, 16),
        ({8: 0.1, 4: 0.2}, 8, 15, None),  # memory allows no more
        ({8: 0.1, 4: 0.2, 16: 0.2}, 8, 32, None),
        ({8: 0.2, 4: 0.1}, 4, 32, 2),
        ({8: 0.1, 4: 0.1, 2: 0.1, 1: 0.1}, 1, 32, None),
        ({4: 0.1}, 8, 32, None),  # memory cut the usual size to this, or its turn comes in this run
    ],
)
def test_the_neighbour_that_is_tried_next(
    seconds: dict[int, float], present: int, largest: int, expected: int | None
) -> None:
    assert untried(seconds, 8, present, largest) == expected


def test_a_size_that_memory_dictates_has_powers_of_two_for_neighbours() -> None:
    assert untried({}, 7, 7, 7) == 4
    assert untried({7: 0.1, 4: 0.2}, 7, 7, 7) is None
    assert untried({}, 1, 1, 4) == 2
    measured = {3: 0.01, 4: 0.2, 5: 0.01, 7: 0.1, 8: 0.05}
    assert comparable(measured, 7, 7) == {4: 0.2, 7: 0.1}, "what was left over for a last batch is luck"


def test_said_in_a_few_words() -> None:
    assert described((), 8, 20) == "not measured"
    measured = ((4, 0.1514), (8, 0.1236), (16, 1234.5))
    assert described(measured, 8, 20) == "measured: 0.124 s per image of 20 steps; 4: 0.151; 16: 1234"
    assert described(measured, 2, 20) == "not measured"


def _count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found: tuple[int] = connection.execute("SELECT count(*) FROM paces").fetchone()
        return found[0]
