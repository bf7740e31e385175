"""Which batches are measured, and what of them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_requests import request_for

from pipeline.generation import timing
from pipeline.generation.generate import generate_bundle
from pipeline.generation.timing import BatchTiming
from pipeline.loading.load import load
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.rates import SLOW, MeasuredRates
from pipeline.memory.planning.timings import Timings
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.system.device import Device

Measured = Callable[[], Counter[int]]


@pytest.fixture
def model(tiny_sd: Path) -> LoadedModel:
    return load(identify(str(tiny_sd))[0], MemorySettings(), "cpu")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """How many batches of each size were measured so far."""
    path = tmp_path / "memory.sqlite"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "Timings", lambda: Timings(path))

    def count() -> Counter[int]:
        if not path.exists():
            return Counter()
        with sqlite3.connect(path) as connection:
            return Counter(size for (size,) in connection.execute("SELECT batch FROM paces"))

    return count


def batches(model: LoadedModel, *sizes: int, **values: Any) -> list[list[ImageRequest]]:
    return [[request_for(model, "a red house", seed, steps=2, **values) for seed in range(size)] for size in sizes]


def make(model: LoadedModel, *sizes: int, remember: bool = True, **values: Any) -> None:
    outcomes = dict(generate_bundle(model, batches(model, *sizes, **values), remember=remember))
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes.values()), outcomes


@pytest.mark.slow
def test_the_first_batch_of_each_size_on_a_model_warms_up(model: LoadedModel, measured: Measured) -> None:
    make(model, 2, 2, 3)
    assert measured() == {2: 1}
    make(model, 3, 2)
    assert measured() == {2: 2, 3: 1}, "also in another bundle"
    make(model, 2, width=64)
    assert measured() == {2: 2, 3: 1}, "another size of picture"


def test_decoding_in_a_stage_of_its_own_is_measured_alike(model: LoadedModel, measured: Measured) -> None:
    apply_memory(model, MemorySettings(techniques=("staged",)))
    make(model, 2, 2, 2)
    assert measured() == {2: 2}


def test_what_is_made_again_is_not_measured(model: LoadedModel, measured: Measured) -> None:
    make(model, 2, 2, 2, remember=False)
    assert measured() == {}


@pytest.mark.slow
def test_a_batch_on_whose_way_something_failed_is_not_measured(
    model: LoadedModel, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    make(model, 4, 4)
    decode, calls = model.pipe.vae.decode, []

    def failing(latents: torch.Tensor, **options: Any) -> Any:
        calls.append(len(latents))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return decode(latents, **options)

    monkeypatch.setattr(model.pipe.vae, "decode", failing)
    make(model, 4)
    assert len(calls) > 1 and measured() == {4: 1}


def test_a_lap_holds_what_came_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    ticks = iter([10.0, 11.5, 20.0, 21.0, 30.0, 30.25, 40.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    batch = BatchTiming(torch.device("cpu"))
    with batch.timed("denoise"):
        pass
    for _ in range(2):
        with batch.timed("decode"):
            pass
    with pytest.raises(ValueError), batch.timed("decode"):
        raise ValueError
    assert batch.seconds() == (1.5, 1.25)


def test_the_pace_of_a_card_is_noted_as_computing_or_where_blocks_pass_as_copying(
    model: LoadedModel, measured: Measured
) -> None:
    card, watch = Device("cuda", "a card", (8, 0)), timing.TimingWriter(model, remember=True)
    (request,) = batches(model, 1)[0]
    for _ in range(2):
        watch._note_rates("a card", request, 3.0)
    computed = MeasuredRates().of(card)
    assert computed.copy == SLOW.copy and 0 < computed.compute < SLOW.compute
    model.pipe.unet.__dict__["block_streaming"] = SimpleNamespace(copy_rate=lambda: 22e9)
    for _ in range(2):
        watch._note_rates("a card", request, 3.0)
    del model.pipe.unet.__dict__["block_streaming"]
    assert MeasuredRates().of(card) == replace(computed, copy=22e9)
