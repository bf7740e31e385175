"""The ladder that is climbed when memory runs out: its order, its ends, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from pipeline.generation.recovery.next_fallback import Step, next_fallback
from pipeline.memory.planning import techniques as table
from pipeline.memory.planning.techniques import TECHNIQUES, conflicts, ordered
from pipeline.request import MemorySettings

STAGES = ("load", "encode", "denoise", "decode")
PLAIN = MemorySettings()
WITH_TINY_VAE = MemorySettings(tiny_vae_source="taesd")


@pytest.fixture(autouse=True)
def all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "installed", lambda name: True)


def fallbacks(stage: Any, held: MemorySettings = WITH_TINY_VAE, batch: int = 1, **asked: Any) -> list[Step]:
    """Every step, as if none of them helped."""
    wanted, steps = replace(held, techniques=(), **asked), list[Step]()
    while (step := next_fallback(wanted, held, stage, batch)) is not None:
        steps.append(step)
        held, batch = step.memory, step.batch
        assert len(steps) < 50, "it never ends"
    return steps


def whats(steps: list[Step]) -> list[str]:
    return [step.what for step in steps]


def test_denoising_gives_up_batch_then_places_then_precision() -> None:
    steps = fallbacks("denoise", batch=8)
    assert whats(steps) == [
        "batch",
        "batch",
        "batch",
        "staged+drop_encoders",
        "denoiser_int8",
        "resident_blocks",
        *["resident_share"] * 3,
        "leaf_offload",
        "denoiser_int4",
        "disk_offload",
    ]
    assert [step.batch for step in steps] == [4, 2, 1, *[1] * 9]
    assert steps[4].memory.techniques == ("denoiser_int8", "staged", "drop_encoders")
    assert steps[9].memory.techniques == ("denoiser_int8", "staged", "drop_encoders", "leaf_offload")
    assert steps[10].memory.techniques == ("denoiser_int4", "staged", "drop_encoders")
    assert steps[11].memory.techniques == ("staged", "drop_encoders", "leaf_offload", "disk_offload")
    assert [step.memory.resident_share for step in steps[6:9]] == [0.9, 0.8, 0.7]


def test_blocks_that_fill_the_device_give_way_before_the_batch_does() -> None:
    held = MemorySettings(techniques=("staged", "drop_encoders", "denoiser_int8", "resident_blocks"))
    assert whats(fallbacks("denoise", held, batch=2))[:4] == [*["resident_share"] * 3, "batch"]
    step = next_fallback(PLAIN, held, "denoise", 2, failed={"resident_share"})
    assert step is not None and step.what == "batch"


def test_decoding_never_denoises_again_and_ends_with_the_tiny_vae() -> None:
    steps = fallbacks("decode", batch=8)
    assert whats(steps) == ["vae_slicing", "vae_tiling", "staged+drop_encoders", "tiny_vae"]
    assert {step.batch for step in steps} == {8}
    assert whats(fallbacks("decode", PLAIN)) == ["vae_slicing", "vae_tiling", "staged+drop_encoders"], (
        "no weights, no fallback"
    )


def test_encoding_gives_up_what_encoders_take() -> None:
    assert whats(fallbacks("encode", batch=8)) == [
        "staged+drop_encoders",
        "encoder_int8",
        "leaf_offload",
        "encoder_int4",
        "disk_offload",
    ]


def test_weights_that_do_not_fit_are_all_made_smaller() -> None:
    assert whats(fallbacks("load", batch=8)) == [
        "staged+drop_encoders",
        "denoiser_int8",
        "encoder_int8",
        "resident_blocks",
        "leaf_offload",
        "denoiser_int4",
        "encoder_int4",
        "disk_offload",
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_exact_forbids_what_changes_pixels(stage: Any) -> None:
    steps = fallbacks(stage, batch=4, exact=True)
    assert steps, "there are exact fallbacks at every stage"
    assert not [name for step in steps for name in step.memory.techniques if TECHNIQUES[name].lossy]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_is_switched_off_is_never_put_on(name: str) -> None:
    for stage in STAGES:
        assert not [step for step in fallbacks(stage, off=(name,)) if step.memory.uses(name)], stage


def test_off_leaves_the_other_half_of_a_fallback() -> None:
    assert whats(fallbacks("decode", PLAIN, off=("drop_encoders",)))[-1] == "staged"
    assert "disk_offload" not in "".join(whats(fallbacks("denoise", off=("leaf_offload",))))


def test_a_quantisation_asked_for_by_name_stays() -> None:
    held = MemorySettings(techniques=("denoiser_int8",))
    steps = [held]
    while (step := next_fallback(held, steps[-1], "denoise", 1)) is not None:
        steps.append(step.memory)
    assert all(memory.uses("denoiser_int8") for memory in steps) and len(steps) == 7
    assert steps[-1].uses("leaf_offload")


def test_a_step_that_could_not_be_put_on_is_passed_over() -> None:
    held = MemorySettings(techniques=("staged", "drop_encoders"))
    first = next_fallback(PLAIN, held, "denoise", 1)
    assert first is not None and first.what == "denoiser_int8"
    second = next_fallback(PLAIN, held, "denoise", 1, failed={"denoiser_int8"})
    assert second is not None and second.what == "fp8_storage"
    third = next_fallback(PLAIN, held, "denoise", 1, failed={"denoiser_int8", "fp8_storage"})
    assert third is not None and third.what == "resident_blocks"


def test_with_int8_switched_off_the_denoiser_is_stored_in_float8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "installed", lambda name: TECHNIQUES[name].needs is None)
    assert whats(fallbacks("denoise", off=("denoiser_int8",))) == [
        "staged+drop_encoders",
        "fp8_storage",
        "resident_blocks",
        *["resident_share"] * 3,
        "leaf_offload",
        "disk_offload",
    ]


def test_a_cpu_has_no_four_bits() -> None:
    held, seen = PLAIN, []
    while (step := next_fallback(PLAIN, held, "load", 1, device_kind="cpu")) is not None:
        held = step.memory
        seen += step.what.split("+")
    assert "denoiser_int8" in seen and "denoiser_int4" not in seen


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("device_kind", ["cuda", "cpu", "mps"])
def test_from_any_legal_start_every_step_is_legal_and_it_ends(stage: Any, device_kind: str) -> None:
    starts = [
        ordered(filter(None, choice))
        for choice in product(
            ("", "denoiser_int8", "denoiser_int4", "fp8_storage"),
            ("", "encoder_int8", "encoder_int4"),
            ("", "staged"),
            ("", "vae_tiling"),
            ("", "model_offload", "block_offload", "leaf_offload", "resident_blocks"),
            ("", "disk_offload"),
        )
    ]
    legal = [start for start in starts if not conflicts(start, device_kind)]
    assert len(legal) > 10
    for start in legal:
        for where in (stage, None):  # None: another stage fails each time
            held, batch, steps = replace(WITH_TINY_VAE, techniques=start), 4, 0
            while True:
                step = next_fallback(WITH_TINY_VAE, held, where or STAGES[steps % 4], batch, device_kind=device_kind)
                if step is None:
                    break
                assert step.memory.techniques == ordered(step.memory.techniques)
                assert not conflicts(step.memory.techniques, device_kind, tiny_vae=True), (held, step)
                assert (step.memory, step.batch) != (held, batch)
                held, batch, steps = step.memory, step.batch, steps + 1
                assert steps < 40, (start, held)
