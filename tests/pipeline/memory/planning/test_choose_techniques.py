"""The choice of techniques: fits what it says, costs no more than it must, keeps what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.memory.planning import choose_techniques as choosing
from pipeline.memory.planning import techniques
from pipeline.memory.planning.choose_techniques import (
    CLASSES,
    MemoryPlan,
    batch_limit,
    batch_range,
    choose,
    handicapped_seconds,
    reserve,
)
from pipeline.memory.planning.estimate import Estimate, Shape, Sizes, estimate
from pipeline.memory.planning.predicted_time import seconds_per_image
from pipeline.memory.planning.rates import PUBLISHED, SLOW, Rates
from pipeline.memory.planning.sizes import ComponentSize
from pipeline.memory.planning.techniques import QUANTIZATIONS, TECHNIQUES, conflicts
from pipeline.request import MemorySettings
from pipeline.system.device import DeviceMemory
from pipeline.weights.families import FAMILIES

GIB = 2**30
LOSSY = {name for name, technique in TECHNIQUES.items() if technique.lossy}
BUDGETS = (4, 6, 8, 10, 12, 16, 24, 32, 48, 80)


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (choosing, techniques):
        monkeypatch.setattr(module, "installed", lambda name: True)
    choosing.plans_for.cache_clear()
    choosing._choose.cache_clear()
    yield
    choosing.plans_for.cache_clear()
    choosing._choose.cache_clear()


def memory(gigabytes: float, host: float = 128) -> DeviceMemory:
    return DeviceMemory(*(int(size * GIB) for size in (gigabytes, gigabytes, host, host)))


def choice(
    family: str, gigabytes: float, *, device: str = "cuda", host: float = 128, rates: Rates = SLOW, **asked: Any
) -> MemoryPlan:
    known = FAMILIES[family]
    settings = MemorySettings(**{"level": "auto", "dtype": "bfloat16", **asked})
    shape = Shape(known.size, known.size, 1, known.guidance != "embedded")
    return choose(settings, Sizes.published(known), shape, memory(gigabytes, host), device, rates)


def on(found: MemoryPlan) -> set[str]:
    return {*found.memory.techniques} - {"half_precision"}


def seconds(found: MemoryPlan, rates: Rates) -> float:
    sizes = Sizes.published(FAMILIES["flux"])
    return seconds_per_image(sizes, found.memory, found.shape, found.estimate, rates)


def handicapped(family: str, found: MemoryPlan) -> float:
    sizes = Sizes.published(FAMILIES[family])
    return handicapped_seconds(sizes, found.memory, found.estimate, found.shape, SLOW)


@pytest.mark.parametrize("gigabytes", [4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_small_cards(family: str, gigabytes: int) -> None:
    found = choice(family, gigabytes)
    assert found.fits and found.estimate.peak_bytes <= found.budget_bytes < gigabytes * GIB
    assert found.memory.budget_bytes == found.budget_bytes
    assert conflicts(found.memory.techniques) == []


@pytest.mark.parametrize(
    ("family", "gigabytes", "expected"),
    [
        ("sd15", 4, {"staged"}),  # 2.0 GiB, 0.8 to decode, and 0.85 of CUDA's own
        ("sdxl", 24, set()),
        ("sdxl", 12, set()),
        ("sdxl", 8, {"staged"}),
        ("flux2_klein", 24, set()),
        ("flux2_klein", 12, {"staged"}),  # 7.5 GiB at most
        ("z_image", 12, {"staged", "resident_blocks"}),  # 11.5 GiB: what does not fit is copied while it computes
        ("flux", 24, {"staged", "resident_blocks"}),  # 22.2 GiB, and 0.5 to work with
        ("flux", 8, {"staged", "resident_blocks"}),
        ("qwen_image", 24, {"staged", "resident_blocks"}),  # 38
        ("flux", 80, set()),
    ],
)
def test_the_tiers_of_the_reference(family: str, gigabytes: int, expected: set[str]) -> None:
    assert on(choice(family, gigabytes)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_quality_never_changes_pixels_and_says_when_it_cannot_fit(family: str) -> None:
    for gigabytes in BUDGETS:
        found = choice(family, gigabytes, exact=True)
        assert not on(found) & LOSSY
        assert found.fits == (found.budget_bytes >= found.least_bytes)


@pytest.mark.parametrize(
    ("rates", "gigabytes", "is_lossy"),
    [
        (SLOW, 8, False),  # computes for longer than the copies take
        (replace(SLOW, copy=5e9), 8, True),  # through a narrow slot they take four times as long
        (PUBLISHED["4090"], 24, False),
        (PUBLISHED["4090"], 8, True),
        (PUBLISHED["H100"], 12, True),
        (PUBLISHED["H100"], 24, False),
    ],
)
def test_flux_is_stored_in_eight_bits_only_where_that_is_faster_by_a_margin(
    rates: Rates, gigabytes: int, is_lossy: bool
) -> None:
    found, exact = (choice("flux", gigabytes, exact=exact, rates=rates) for exact in (False, True))
    assert ("denoiser_int8" in on(found)) == bool(on(found) & LOSSY) == is_lossy
    assert on(exact) == {"staged", "resident_blocks"}
    margin = sum(TECHNIQUES[name].cost for name in on(found) & LOSSY) / 100
    assert seconds(found, rates) * (1 + margin) <= seconds(exact, rates)


def test_what_is_copied_hides_behind_what_is_computed_and_the_rest_is_waited_for() -> None:
    resident, streamed, all_of_it = (
        seconds(choice("flux", gigabytes, exact=True, rates=PUBLISHED["H100"]), PUBLISHED["H100"])
        for gigabytes in (80, 24, 4)
    )
    assert resident == pytest.approx(6.2, abs=0.4)  # published, 28 steps: 6.6
    assert streamed == pytest.approx(resident, rel=0.05)
    assert all_of_it == pytest.approx(25 * 22.2 * GIB / 40e9, rel=0.2)
    at_once, by_layer = (
        seconds(choice("flux", 24, exact=True, techniques=on, rates=SLOW), SLOW)
        for on in (("staged", "resident_blocks"), ("leaf_offload", "disk_offload"))
    )
    assert by_layer > 6 * at_once


def test_a_small_denoiser_keeps_its_precision_beside_a_large_encoder() -> None:
    """PixArt-Sigma: 1.1 GiB of denoiser, 8.9 of T5. Only the encoder has to pass through the device."""
    found = on(choice("pixart_sigma", 4))
    assert "resident_blocks" in found and not found & {*QUANTIZATIONS["denoiser"]}


@given(family=st.sampled_from([*FAMILIES]), small=st.floats(1, 80), more=st.floats(0, 40), exact=st.booleans())
def test_more_memory_never_takes_longer(family: str, small: float, more: float, exact: bool) -> None:
    tight, roomy = (choice(family, gigabytes, exact=exact) for gigabytes in (small, small + more))
    assert roomy.fits or not tight.fits
    if tight.fits:
        assert handicapped(family, roomy) <= handicapped(family, tight) * (1 + 1e-9)
        assert tight.estimate.peak_bytes <= tight.budget_bytes


@given(family=st.sampled_from([*FAMILIES]), exact=st.booleans())
def test_the_least_budget_is_enough_and_a_byte_less_is_not(family: str, exact: bool) -> None:
    least = choice(family, 80, exact=exact, budget_bytes=GIB).least_bytes
    assert choice(family, 80, exact=exact, budget_bytes=least).fits
    assert not choice(family, 80, exact=exact, budget_bytes=least - 1).fits


@given(
    family=st.sampled_from([*FAMILIES]),
    asked=st.sets(st.sampled_from([*TECHNIQUES]), max_size=3),
    off=st.sets(st.sampled_from([*TECHNIQUES]), max_size=6),
    gigabytes=st.floats(2, 80),
)
def test_what_was_asked_for_is_on_and_what_was_forbidden_is_off(
    family: str, asked: set[str], off: set[str], gigabytes: float
) -> None:
    off -= asked | {"half_precision"}
    assume(not conflicts(asked, tiny_vae=True))
    settings = {"techniques": tuple(asked), "off": tuple(off), "tiny_vae_source": "folder"}
    chosen = {*choice(family, gigabytes, **settings).memory.techniques}
    assert asked <= chosen and not off & chosen
    assert conflicts(chosen, tiny_vae=True) == []


def test_each_level_asks_for_its_class_on_a_large_card_and_for_no_more_than_there_is() -> None:
    for level, size in CLASSES.items():
        assert choice("flux", 80, level=level).budget_bytes == size - reserve(size)
        assert choice("flux", 6, level=level).budget_bytes <= 6 * GIB - reserve(6 * GIB)
    assert choice("flux", 80).budget_bytes == 80 * GIB - 4 * GIB
    assert choice("flux", 80, level="ultra", budget_bytes=16 * GIB).budget_bytes == 16 * GIB


def test_a_budget_is_never_more_than_the_card_has_free() -> None:
    found = choice("flux", 6, budget_bytes=16 * GIB)
    assert found.fits and found.estimate.peak_bytes <= found.budget_bytes == 6 * GIB
    assert choice("sdxl", 8, device="cpu", dtype="float32", budget_bytes=16 * GIB).budget_bytes == 16 * GIB


def test_on_a_cpu_nothing_changes_pixels_and_levels_do_not_narrow_the_memory() -> None:
    for family in FAMILIES:
        for gigabytes in BUDGETS:
            found = choice(family, gigabytes, device="cpu", host=gigabytes, dtype="float32", level="ultra")
            assert not on(found) & LOSSY and "staged" not in on(found)
    assert on(choice("sdxl", 64, device="cpu", host=64, dtype="float32", level="ultra")) == set()
    short = on(choice("flux", 16, device="cpu", host=16, dtype="float32"))
    assert {"leaf_offload", "disk_offload"} <= short
    asked = choice("sdxl", 64, device="cpu", host=64, dtype="float32", techniques=("vae_tiling",))
    assert on(asked) == {"vae_tiling"}


def test_a_short_host_streams_from_memory_what_it_has_room_for_and_from_the_disk_only_what_it_has_not() -> None:
    for gigabytes, host in ((24, 22), (12, 22), (12, 64)):
        found = choice("flux", gigabytes, host=host, exact=True)
        assert on(found) == {"staged", "resident_blocks"} and found.estimate.host_bytes <= host * GIB
    # From the disk it goes piece by piece.
    assert {"leaf_offload", "disk_offload"} <= on(choice("flux", 12, host=4, exact=True))
    # Nothing helps a host that has no room for the process; then the device alone decides.
    assert on(choice("flux", 12, host=1, exact=True)) == {"staged", "resident_blocks"}


def test_eight_bits_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "installed", lambda name: TECHNIQUES[name].needs is None)
    choosing.plans_for.cache_clear()
    choosing._choose.cache_clear()
    assert on(choice("flux", 8, rates=PUBLISHED["H100"])) == {"staged", "denoiser_int8", "resident_blocks"}


def test_weights_that_come_quantised_are_not_quantised_again() -> None:
    flux = FAMILIES["flux"]
    parts = Sizes.published(flux).components
    gguf = ComponentSize("transformer", "denoiser", int(11.9e9), "flux", stored_bytes=7 * GIB)
    sizes = Sizes("flux", (gguf, *(part for part in parts if part.role != "denoiser")))
    asked = MemorySettings(level="auto", dtype="bfloat16")
    for gigabytes in (4, 6, 8, 12):
        found = choose(asked, sizes, Shape(1024, 1024), memory(gigabytes), "cuda")
        assert found.fits and not on(found) & {*QUANTIZATIONS["denoiser"]}


def test_half_precision_is_said_where_it_is_on() -> None:
    assert "half_precision" in choice("sdxl", 24).memory.techniques
    assert "half_precision" not in choice("sdxl", 24, dtype="float32").memory.techniques


@pytest.mark.slow
def test_batches_grow_into_what_is_free_and_no_further_than_pays() -> None:
    sdxl, asked = Sizes.published(FAMILIES["sdxl"]), MemorySettings(level="auto", dtype="bfloat16")

    def sizes(gigabytes: float, side: int = 1024, most: int = 32) -> tuple[int, int]:
        return batch_range(asked, sdxl, Shape(side, side), memory(gigabytes), "cuda", most)

    def of_size(batch: int, gigabytes: float) -> MemoryPlan:
        return choose(asked, sdxl, Shape(1024, 1024, batch), memory(gigabytes), "cuda")

    assert sizes(80) == (4, 32)  # what the family gains from, and what fits
    assert sizes(80, 512) == (16, 32)  # as many pixels
    assert sizes(80, most=3) == (3, 3)
    usual, largest = sizes(6.6)
    tight = of_size(largest, 6.6)
    assert tight.fits and usual == largest < 4
    larger = estimate(sdxl, tight.memory, Shape(1024, 1024, largest + 1), "cuda")
    assert larger.peak_bytes > tight.budget_bytes
    assert sizes(1) == (1, 1) and not of_size(1, 1).fits
    for gigabytes in BUDGETS:
        alone = on(of_size(1, gigabytes))
        assert all(on(of_size(batch, gigabytes)) <= alone | {"vae_slicing"} for batch in sizes(gigabytes))


def test_a_larger_batch_is_made_room_for() -> None:
    sdxl, asked = Sizes.published(FAMILIES["sdxl"]), MemorySettings(level="auto", dtype="bfloat16")
    found = choose(asked, sdxl, Shape(1024, 1024, 8), memory(24), "cuda")
    assert found.shape.batch == 8 and found.fits and on(found) == {"vae_slicing"}


def test_the_batch_limit_is_the_last_that_fits() -> None:
    sizes = Sizes.published(FAMILIES["sd15"])
    held = MemorySettings(dtype="float16")
    limit = batch_limit(sizes, held, Shape(512, 512), 8 * GIB, "cuda", 64)
    fits, too_large = (estimate(sizes, held, Shape(512, 512, batch), "cuda").peak_bytes for batch in (limit, limit + 1))
    assert fits <= 8 * GIB < too_large
    assert batch_limit(sizes, held, Shape(512, 512), 80 * GIB, "cuda", 9) == 9
    assert batch_limit(sizes, held, Shape(512, 512), GIB, "cuda", 64) == 1


def test_each_kind_of_picture_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks for every size and batch there is; a study over sizes asks a thousand times."""
    asked, sizes = MemorySettings(level="auto", dtype="bfloat16"), Sizes.published(FAMILIES["flux"])
    estimated: list[Shape] = []

    def counted(sizes: Sizes, memory: MemorySettings, shape: Shape, device_kind: str) -> Estimate:
        estimated.append(shape)
        return estimate(sizes, memory, shape, device_kind)

    monkeypatch.setattr(choosing, "estimate", counted)
    first = choose(asked, sizes, Shape(520, 1024), memory(8), "cuda")
    assert estimated
    estimated.clear()
    assert all(choose(asked, sizes, Shape(520, 1024), memory(8), "cuda") is first for _ in range(1000))
    assert not estimated
