"""Samplers by the names that people use."""

from __future__ import annotations

import pytest

from pipeline.schedulers import SAMPLERS, make_scheduler, name_of_class, scheduler_name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("euler_a", "Euler a"),
        ("Euler A", "Euler a"),
        ("dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("EulerDiscreteScheduler", "Euler"),
        ("DPMSolverMultistepScheduler", "DPM++ 2M"),
        ("unipc", "UniPC"),
    ],
)
def test_any_spelling_gives_the_usual_name(spelling: str, name: str) -> None:
    assert scheduler_name(spelling) == name


def test_a_misspelt_sampler_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'DPM\+\+ 2M Karras'"):
        scheduler_name("dpmpp_2m_karas")


def test_an_unknown_class_of_a_model_keeps_its_name() -> None:
    assert name_of_class("SomethingNewScheduler") == "SomethingNewScheduler"


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"FlowMatch Euler"}))
def test_every_sampler_is_made_on_the_models_own_noise_schedule(name: str) -> None:
    from diffusers import DDIMScheduler

    own = DDIMScheduler(beta_start=0.001, beta_end=0.02, beta_schedule="scaled_linear", prediction_type="v_prediction")
    scheduler = make_scheduler(name, own)
    sampler = SAMPLERS[name]
    assert type(scheduler).__name__ == sampler.class_name
    assert (scheduler.config.beta_start, scheduler.config.beta_end) == (0.001, 0.02)
    assert getattr(scheduler.config, "prediction_type", "v_prediction") == "v_prediction"
    assert {key: scheduler.config[key] for key in sampler.options} == sampler.options
    assert make_scheduler(name, own) is not scheduler, "schedulers keep state, so each bundle needs its own"


def test_a_models_own_unnamed_scheduler_is_used_as_it_came() -> None:
    from diffusers import HeunDiscreteScheduler

    own = HeunDiscreteScheduler(use_karras_sigmas=True)
    fresh = make_scheduler("HeunDiscreteScheduler", own)
    assert fresh is not own
    assert fresh.config.use_karras_sigmas


def test_plms_takes_as_many_steps_as_asked_for() -> None:
    from diffusers import DDIMScheduler

    scheduler = make_scheduler("PLMS", DDIMScheduler())
    for steps in (2, 20):
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) == steps + 1, "the multistep start evaluates the first step twice"


@pytest.mark.parametrize("name", ["Euler", "Heun", "DPM2", "DPM++ 2M", "UniPC"])
def test_a_named_sampler_is_not_made_another_by_the_models_own_options(name: str) -> None:
    from diffusers import DPMSolverMultistepScheduler

    own = DPMSolverMultistepScheduler(use_karras_sigmas=True, algorithm_type="sde-dpmsolver++")
    config = make_scheduler(name, own).config
    assert not config.use_karras_sigmas
    if SAMPLERS[name].class_name == "DPMSolverMultistepScheduler":  # the others carry the option along unread
        assert config.algorithm_type == "dpmsolver++"


@pytest.mark.parametrize(
    ("class_name", "config", "name"),
    [
        ("EulerDiscreteScheduler", {}, "Euler"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "Euler Karras"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "DPM++ 2M SDE"),
        ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, "HeunDiscreteScheduler"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "DPMSolverMultistepScheduler"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "DPMSolverMultistepScheduler"),
        ("DEISMultistepScheduler", {}, "DEIS"),
        ("DEISMultistepScheduler", {"algorithm_type": "deis"}, "DEIS"),
        ("PNDMScheduler", {}, "PNDMScheduler"),
        ("PNDMScheduler", {"skip_prk_steps": True}, "PLMS"),
        ("PNDMScheduler", {"skip_prk_steps": False}, "PNDMScheduler"),
    ],
)
def test_a_models_own_scheduler_gets_the_name_that_its_settings_have(
    class_name: str, config: dict[str, object], name: str
) -> None:
    assert name_of_class(class_name, config) == name
