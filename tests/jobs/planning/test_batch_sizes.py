"""Batch sizes by measurement: a plan tries little, settles on the fastest, and leaves alone what was said by name."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.config.batch_config import BatchConfig, parse_configs
from jobs.manifest.job_states import JobStates
from jobs.planning.expand import Expansion
from jobs.planning.known_models import KnownModel, known_model
from jobs.planning.memory_and_batch_size import Fitting, requested_memory, speed_settings
from jobs.planning.plan import Plan, PlanSettings
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from jobs.running.memory_report import memory_lines, memory_values
from pipeline.memory.planning.timings import Timings, kind_of, passes
from pipeline.system.device import Device, DeviceMemory

CARD = Device("cuda", "Card 80", (8, 0))
GIB = 2**30
Cost = Callable[[int], float]
"""Seconds per picture of `STEPS` steps, by batch size."""
STEPS = 20


def gains(batch: int) -> float:
    return 0.1 + 0.8 / batch


def loses(batch: int) -> float:
    return 1 + 0.05 * batch


def flat(_batch: int) -> float:
    return 1.0


def best_at_four(batch: int) -> float:
    return {1: 1.3, 2: 1.1, 4: 1.0, 8: 1.1, 16: 1.3}.get(batch, 2.0)


class Machine:
    """A simulated one on which pictures take what `cost` says; its runs and what they leave behind are real."""

    def __init__(self, cost: Cost, path: Path, **config: Any) -> None:
        self.cost, self.path = cost, path
        document: dict[str, Any] = {
            "model": {"source": "hf:somebody/sd15", "family": "sd15"},
            "memory": {"level": "none", "max_batch_size": 32, "max_batch_pixels": 32 * 512 * 512},
            "prompts": {"lines": ["a house"]},
            "engine": {"compile": "off"},
            "sampling": {"steps": STEPS},
            **config,
        }
        (self.config,) = parse_configs([document])
        self.known: KnownModel = known_model(self.config.model, dry_run=True)
        self._seeds = itertools.count(step=100_000)

    def plan(self, images: int, **changes: Any) -> Plan:
        """Of so many new pictures for each point of the grid."""
        seeds = {"seeds": range((first := next(self._seeds)), first + images)}
        config = BatchConfig.model_validate({**self.config.model_dump(), **seeds, **changes})
        asked = requested_memory(config, CARD)
        memory = DeviceMemory(80 * GIB, 80 * GIB, 256 * GIB, 256 * GIB)
        fitting = Fitting(config, self.known, asked, CARD, memory, Timings(self.path))
        expansion = Expansion(
            config, 0, open_prompts(config.prompts), Wildcards(), self.known.settings, asked, self.known.fallback
        )
        return Plan([expansion], JobStates(), [PlanSettings(self.known.settings, asked, fitting)])

    def run(self, images: int, **changes: Any) -> tuple[Counter[int], float]:
        """Batches by their size, and seconds in all."""
        warm: set[Any] = set()
        sizes: Counter[int] = Counter()
        seconds, timings = 0.0, Timings(self.path)
        for group, batch in self.plan(images, **changes).batches():
            request, size = batch[0].job.request, len(batch)
            sizes[size] += 1
            count = passes(request, request.adapters)
            took = self.cost(size) * size * count / STEPS
            seconds += took
            kind = kind_of(
                request.model, group.fit.held, request, request.adapters, speed_settings(self.config), "Card 80",
                compiled=False,
            )  # fmt: skip
            if (kind, size) in warm:
                timings.note(kind, count, size, took, 0.0)
            warm.add((kind, size))
        timings.save()
        return sizes, seconds


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    def make(cost: Cost, **config: Any) -> Machine:
        return Machine(cost, tmp_path / "memory.sqlite", **config)

    return make


@pytest.mark.parametrize(("cost", "best"), [(gains, 32), (loses, 1), (flat, 1), (best_at_four, 4)])
def test_runs_find_the_best_size_at_a_bounded_cost_and_then_leave_it(
    cost: Cost, best: int, machine: Callable[..., Machine]
) -> None:
    here, images = machine(cost), 400
    usual = here.plan(images)
    assert [len(batch) for _, batch in usual.batches()][:3] == [8, 8, 8], "the family's, before anything is known"
    for number in range(9):
        plan = here.plan(images)
        ((group, _),) = plan.groups()
        trials = list(plan.trials())
        size = group.fit.batch_size
        sizes, seconds = here.run(images)
        tried = sizes.keys() - {size, images % size}
        assert len(tried) <= 1 and len(trials) == len(tried), "one at a time"
        alone = cost(size) * images
        assert seconds - alone <= 0.25 * alone, f"run {number}"
        if number >= 6:
            assert size == best and not tried
    assert here.run(images) == here.run(images)


def test_a_trial_is_cheap_where_it_has_to_be(machine: Callable[..., Machine]) -> None:
    """Half a batch takes no longer than a whole one: three of them, and one left over, cost two batches at most."""
    here = machine(lambda batch: 8 / batch)  # every batch takes as long as any other
    sizes, seconds = here.run(400)
    assert sizes == {8: 48, 4: 4}, "three batches of four, and four pictures are over"
    assert seconds == 50 * 8 + 2 * 8


def test_small_plans_try_nothing(machine: Callable[..., Machine]) -> None:
    here = machine(gains)
    assert here.run(47)[0] == {8: 5, 7: 1}
    assert list(here.plan(47).trials()) == []
    ((group),) = here.plan(48).trials()
    assert group.fit.trial and group.fit.trial.fit.batch_size == 4 and group.fit.trial.images == 12


def test_a_compiled_model_must_pay_for_being_compiled_once_more(machine: Callable[..., Machine]) -> None:
    here = machine(gains, engine={"compile": "auto"})
    assert list(here.plan(61).trials()) == [] and len(list(here.plan(62).trials())) == 1


def test_groups_of_one_kind_try_once_and_steps_share_what_was_measured(machine: Callable[..., Machine]) -> None:
    here, grid = machine(gains), {"grid": {"sampling.steps": [10, 20, 30]}}
    sizes, _ = here.run(96, **grid)
    assert sizes == {8: 10 + 12 + 12, 4: 3 + 1}
    for group, _ in here.plan(96, **grid).groups():
        share = group.likeness.steps / STEPS
        assert dict(group.fit.seconds or ()) == pytest.approx({4: gains(4) * share, 8: gains(8) * share})


def test_guided_pictures_and_unguided_ones_are_measured_apart(machine: Callable[..., Machine]) -> None:
    here, grid = machine(gains), {"grid": {"sampling.guidance_scale": [1.0, 5.0, 7.0]}}
    assert len(list(here.plan(96, **grid).trials())) == 2


@pytest.mark.parametrize(
    "said",
    [
        {"batch_size": 8},
        {"memory": {"level": "none", "max_batch_pixels": 8 * 512 * 512, "quality": "exact"}},
        {"sampling": {"steps": STEPS, "step_cache": "first_block"}},
    ],
)
def test_what_was_said_by_name_is_neither_changed_nor_tried(
    said: dict[str, Any], machine: Callable[..., Machine]
) -> None:
    here = machine(loses)
    for _ in range(6):
        here.run(400)
    assert here.run(400)[0] == {1: 400}, "what was learnt"
    plan = here.plan(400, **said)
    ((group, _),) = plan.groups()
    assert group.fit.batch_size == (1 if "sampling" in said else 8)
    assert group.fit.seconds is None and group.fit.trial is None and list(plan.trials()) == []


def test_memory_and_the_wait_for_the_first_picture_bound_what_is_tried(machine: Callable[..., Machine]) -> None:
    here = machine(gains, bundle_images=16)
    for _ in range(6):
        sizes, _ = here.run(400)
    assert max(sizes) == 16
    narrow = machine(gains, memory={"level": "none", "max_batch_size": 32, "max_batch_pixels": 4 * 512 * 512})
    assert max(narrow.run(400)[0]) == 4


def test_another_card_knows_nothing_of_it(machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine(loses)
    for _ in range(6):
        here.run(400)
    monkeypatch.setattr("test_batch_sizes.CARD", replace(CARD, name="Card 24"))
    assert here.run(400)[0][8] > 40


def test_a_damaged_file_leaves_the_usual_size(machine: Callable[..., Machine]) -> None:
    here = machine(loses)
    here.path.write_bytes(b"no database" * 1000)
    for _ in range(3):
        assert here.run(47)[0] == {8: 5, 7: 1}


def test_a_plan_is_the_same_however_often_it_is_made(machine: Callable[..., Machine]) -> None:
    here = machine(gains)
    here.run(400)
    sizes = [[len(batch) for _, batch in here.plan(400).batches()] for _ in range(2)]
    assert sizes[0] == sizes[1]


def test_a_trial_is_held_as_it_is_foreseen_and_loses_no_picture(machine: Callable[..., Machine]) -> None:
    plan = machine(gains).plan(100)
    bundles = list(plan.bundles())
    assert [one.job.id for bundle in bundles for one in bundle.assignments] == [job.id for job in plan.jobs()]
    sizes = [[len(batch) for batch in bundle.batches] for bundle in bundles]
    assert sizes == [[8] * 4, [8] * 4, [8] * 3, [4] * 3]
    peaks = {size: bundle.predicted_peak_bytes for bundle in bundles for size in map(len, bundle.batches)}
    assert peaks[4] and peaks[8] and peaks[4] < peaks[8]


def test_a_dry_run_says_what_was_measured_and_what_is_tried(machine: Callable[..., Machine]) -> None:
    here = machine(gains)
    assert [line for line in memory_lines(here.plan(10), "here") if "batch 8 (not measured)" in line]
    here.run(400)
    plan = here.plan(400)
    _, line, trial = memory_lines(plan, "here")
    assert "  batch 8 (measured: 0.2 s per image of 20 steps; 4: 0.3)  " in line
    assert trial == "  sd15  512x512  48 images in batches of 16, to measure them"
    (values,) = memory_values(plan)
    assert values["batch_size"] == 8 and values["tried_batch_sizes"] == {"16": 48}
    assert json.loads(json.dumps(values))["seconds_per_image"] == {"4": 0.3, "8": 0.2}
    fixed = here.plan(10, batch_size=8)
    assert all("measured" not in line for line in memory_lines(fixed, "here"))


def test_where_it_is_not_this_machine_nothing_is_measured(machine: Callable[..., Machine]) -> None:
    here = machine(loses)
    here.run(400)
    asked = requested_memory(here.config, CARD)
    memory = DeviceMemory(80 * GIB, 80 * GIB, 256 * GIB, 256 * GIB)
    ((group, _),) = here.plan(1).groups()
    fit = Fitting(here.config, here.known, asked, CARD, memory, None)(group.likeness, group.adapters)
    assert (fit.batch_size, fit.trial, fit.seconds) == (8, None, None)
