"""The numbers of steps that are refused are those with which diffusers' schedulers make no picture, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.schedulers import make_scheduler
from pipeline.timesteps import steps_fault

TRAINED = 20

NAMES = (
    "DDIM",
    "DDPM",
    "PLMS",
    "Euler",
    "Euler a",
    "Heun Karras",
    "DPM2",
    "DPM++ 2M",
    "DPM++ 2M Karras",
    "UniPC",
    "DPM++ SDE",
)
CLASSES = ("DEISMultistepScheduler", "SASolverScheduler", "KDPM2AncestralDiscreteScheduler", "DDIMParallelScheduler")


def makes_a_picture(name: str, own: dict[str, Any], options: dict[str, Any], steps: int, begin: int = 0) -> bool:
    """Whether a scheduler takes its steps from `begin` on, to finite numbers, as the pipelines let it."""
    import torch
    from diffusers import DDIMScheduler

    try:
        scheduler = make_scheduler(name, DDIMScheduler(**own), options)
        scheduler.set_timesteps(steps)
        if begin and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin * scheduler.order)
        sample = torch.ones(1, 4, 2, 2)
        for timestep in scheduler.timesteps[begin * scheduler.order :]:
            scaled = scheduler.scale_model_input(sample, timestep)
            sample = scheduler.step(scaled * 0.3, timestep, sample).prev_sample
    except (IndexError, ValueError, AssertionError):
        return False
    return bool(torch.isfinite(sample).all())


@pytest.mark.parametrize("name", [*NAMES, *CLASSES])
def test_what_diffusers_cannot_step_through_is_refused_and_nothing_else(name: str) -> None:
    for spacing in ("leading", "linspace", "trailing", None):
        for offset in (0, 1, 3):
            own = {"num_train_timesteps": TRAINED, "steps_offset": offset}
            own |= {"timestep_spacing": spacing} if spacing else {}
            for steps in (1, 2, 9, 10, 17, 18, 19, 20, 21):
                fault = steps_fault(name, steps, "DDIMScheduler", own, {})
                assert (fault is None) == makes_a_picture(name, own, {}, steps), (spacing, offset, steps, fault)


@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_a_distilled_schedule_has_as_many_steps_as_it_was_distilled_in(name: str) -> None:
    for original in (5, TRAINED, TRAINED + 1):
        options = {"original_inference_steps": original}
        for steps in (1, 5, 6, TRAINED, TRAINED + 1):
            own = {"num_train_timesteps": TRAINED}
            fault = steps_fault(name, steps, "DDIMScheduler", own, options)
            assert (fault is None) == makes_a_picture(name, own, options, steps), (original, steps, fault)


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "Euler"])
def test_an_init_image_leaves_out_the_first_steps(name: str) -> None:
    own = {"num_train_timesteps": TRAINED, "steps_offset": 1, "timestep_spacing": "leading"}
    assert steps_fault(name, TRAINED, "DDIMScheduler", own, {}, 0.9) is None
    assert makes_a_picture(name, own, {}, TRAINED, begin=2)


@pytest.mark.parametrize(
    ("name", "steps", "config", "ways"),
    [
        ("DDIM", 1000, {"steps_offset": 1}, "take 999, or sampling.scheduler_options={timestep_spacing: trailing}"),
        ("LCM", 60, {}, "take 50, or sampling.scheduler_options={original_inference_steps: 60}"),
        ("DDIM", 30, {"num_train_timesteps": 20}, "take 20"),
        ("LCM", 4, {"num_train_timesteps": 20}, "sampling.scheduler_options={original_inference_steps: 20}"),
    ],
)
def test_the_line_says_what_can_be_done(name: str, steps: int, config: dict[str, Any], ways: str) -> None:
    fault = steps_fault(name, steps, "DDIMScheduler", config, {})
    assert fault is not None and fault.endswith(f"; {ways}")
    assert steps_fault(name, steps, "DDIMScheduler", config | {"num_train_timesteps": "many"}, {}) is None
