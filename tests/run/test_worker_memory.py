"""A worker, in this process, whose memory runs out between bundles or for good."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.engines.messages import Failed, Message, WorkerSettings
from jobs.engines.worker import Worker
from jobs.job import Bundle
from jobs.manifest.job_states import JobStates, read_states
from jobs.planning.plan import Plan
from jobs.planning.validation import Batch
from jobs.running.main import validate
from pipeline.generation.recovery import guarded
from pipeline.memory.device import apply
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.history import FallbackHistory
from pipeline.request import MemorySettings

Run = Callable[[list[Bundle]], list[Message]]


@pytest.fixture
def batch(tmp_path: Path, tiny_sd: Path) -> Batch:
    """Four bundles of two pictures; only exact techniques are allowed."""
    config = {
        "prompts": {"lines": ["a red house"]},
        "model": {"source": str(tiny_sd)},
        "memory": {"level": "none", "quality": "exact"},
        "engine": {"device": "cpu"},
        "output": {"dir": str(tmp_path / "out")},
        "seeds": {"start": 0, "count": 8},
        "batch_size": 2,
        "bundle_images": 2,
    }
    return validate([config], [])


@pytest.fixture
def bundles(batch: Batch) -> list[Bundle]:
    return list(Plan(batch.expansions, JobStates(), batch.plans).bundles())


@pytest.fixture
def run(tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Works through bundles, each time as a run of its own; what is said on the way."""
    monkeypatch.setattr(guarded, "history", lambda: FallbackHistory(tmp_path / "memory.sqlite"))
    numbers = itertools.count()

    def work(bundles: list[Bundle]) -> list[Message]:
        said: list[Message] = []
        settings = WorkerSettings(str(tmp_path / "out"), f"run{next(numbers)}", frozenset(), batch.saves, "cpu")
        Worker(settings, said.append, lambda: False).run(bundles)
        return said

    return work


def counted(said: list[Message]) -> dict[str, int]:
    count = Counter(type(message).__name__ for message in said)
    return {kind: count[kind] for kind in ("Loaded", "Made", "Failed")}


def no_room() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.slow
def test_jobs_are_made_though_a_warm_model_cannot_be_held_otherwise(
    bundles: list[Bundle], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, refused = apply._apply, list[MemorySettings]()

    def applying(model: LoadedModel, memory: MemorySettings) -> None:
        if memory.uses("staged") and not refused:
            refused.append(memory)
            no_room()
        really(model, memory)

    monkeypatch.setattr(apply, "_apply", applying)
    staged = replace(bundles[0].held, techniques=("staged",))
    said = run([bundles[0], *(replace(bundle, held=staged) for bundle in bundles[1:])])
    assert counted(said) == {"Loaded": 2, "Made": 8, "Failed": 0} and refused == [staged]


@pytest.mark.slow
def test_a_hopeless_kind_is_tried_once_in_each_run(
    bundles: list[Bundle], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    calls: list[int] = []

    def forward(self: Any, *_: Any, **__: Any) -> None:
        calls.append(1)
        no_room()

    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    said = run(bundles[:1])
    once = len(calls)
    assert counted(said) == {"Loaded": 1, "Made": 0, "Failed": 2} and once > 3
    calls.clear()
    said = run(bundles[1:])
    assert counted(said) == {"Loaded": 1, "Made": 0, "Failed": 6} and len(calls) == once
    failures = [message for message in said if isinstance(message, Failed)]
    assert {(one.kind, one.message) for one in failures} == {("out_of_memory", failures[0].message)}
    states = read_states(tmp_path / "out").others
    assert Counter((state.status, state.attempt) for state in states.values()) == {("failed", 1): 8}
