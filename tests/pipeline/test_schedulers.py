"""Samplers by the names that people use."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from families import a_few
from tiny_requests import family_request

from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, MemorySettings
from pipeline.scheduler_classes import scheduler_classes
from pipeline.schedulers import SAMPLERS, fits, make_scheduler, name_of_class, scheduler_faults, scheduler_name


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


@pytest.mark.parametrize("name", [name for name in SAMPLERS if fits(name, False) and not scheduler_faults(name)])
@pytest.mark.slow
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
        ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, "Heun Karras"),
        ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "HeunDiscreteScheduler"),
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


def test_any_scheduler_class_that_makes_pictures_goes_by_its_name() -> None:
    assert scheduler_name("DDIMParallelScheduler") == "DDIMParallelScheduler"
    with pytest.raises(ValueError, match="did you mean 'DDIMParallelScheduler'"):
        scheduler_name("DDIMParalelScheduler")
    with pytest.raises(ValueError, match="is no known scheduler"):
        scheduler_name("DDIMInverseScheduler")


def test_looking_at_schedulers_imports_none_of_them() -> None:
    program = (
        "import sys; from pipeline.schedulers import fits, scheduler_faults, scheduler_name; "
        "scheduler_name('SASolverScheduler'); fits('Euler', True); scheduler_faults('Euler', {'steps_offset': 1}); "
        "sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_options_are_those_of_the_library() -> None:
    import diffusers

    for name, options in scheduler_classes().items():
        if not hasattr(getattr(diffusers, name), "_backends"):  # a placeholder for a class that needs another package
            accepted = inspect.signature(getattr(diffusers, name).__init__).parameters
            assert tuple(accepted)[1:] == options


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("Euler", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, None),
        ("DPM++ 2M", {"solver_ordre": 3}, "DPM++ 2M takes no option 'solver_ordre'; did you mean 'solver_order'?"),
        ("FlowMatch Heun", {"betas": 3}, "FlowMatch Heun takes no option 'betas'; it takes num_train_timesteps, shift"),
        ("LMS", {}, "LMS needs the package scipy: pip install scipy"),
        ("Euler Beta", {}, "Euler Beta needs the package scipy: pip install scipy"),
        ("DPM++ 2M", {"use_beta_sigmas": True}, "DPM++ 2M needs the package scipy: pip install scipy"),
        ("DPMSolverSDEScheduler", {}, "DPMSolverSDEScheduler needs the package torchsde: pip install torchsde"),
    ],
)
def test_what_a_scheduler_lacks(
    name: str, options: dict[str, object], fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package in ABSENT else find(package))
    assert scheduler_faults(name, options) == ([fault] if fault else [])


ABSENT = ("scipy", "torchsde")


@pytest.mark.parametrize(
    ("name", "diffusion", "flow"),
    [
        ("Euler", True, False),
        ("Euler a", True, False),
        ("DPM++ 2M", True, True),
        ("DPM++ 2M Karras", True, False),
        ("UniPC", True, True),
        ("FlowMatch Euler", False, True),
        ("FlowMatchHeunDiscreteScheduler", False, True),
        ("SASolverScheduler", True, False),
        ("SomethingNewScheduler", True, True),
    ],
)
def test_which_models_a_scheduler_fits(name: str, diffusion: bool, flow: bool) -> None:
    assert (fits(name, flow_matching=False), fits(name, flow_matching=True)) == (diffusion, flow)


def test_options_come_last() -> None:
    from diffusers import DDIMScheduler

    own = DDIMScheduler(timestep_spacing="leading")
    assert make_scheduler("DDIM", own, {"timestep_spacing": "trailing"}).config.timestep_spacing == "trailing"
    karras = make_scheduler("DPM++ 2M Karras", own, {"use_karras_sigmas": False, "final_sigmas_type": "sigma_min"})
    assert (karras.config.use_karras_sigmas, karras.config.final_sigmas_type) == (False, "sigma_min")
    assert own.config.timestep_spacing == "leading"


FLOW_FAMILIES = ("sd3", "flux", "flux2_klein", "qwen_image", "z_image", "sana", "lumina2", "chroma")
EXACT_SOLVERS = ("DPM++ 2M", "UniPC", "DEIS", "FlowMatch Heun")


@pytest.mark.slow
@pytest.mark.parametrize("family", a_few(FLOW_FAMILIES, ["flux"]))
def test_every_solver_that_fits_follows_the_flow_to_the_same_picture(tiny: Callable[[str], Path], family: str) -> None:
    model = load(identify(str(tiny(family)))[0], MemorySettings(), "cpu")
    pixels = {}
    for name in ("FlowMatch Euler", *EXACT_SOLVERS, "DPM++ 2M SDE", "FlowMatch LCM"):
        assert fits(name, flow_matching=True)
        request = family_request(model, scheduler=name, steps=60)
        (image,) = generate_batch(model, [request])
        assert isinstance(image, GeneratedImage), image
        pixels[name] = image.pixels.astype(int)
    for name in EXACT_SOLVERS:
        assert np.abs(pixels[name] - pixels["FlowMatch Euler"]).mean() < 5, name
    assert np.abs(pixels["DPM++ 2M SDE"] - pixels["FlowMatch Euler"]).mean() > 6, "another picture: noise on the way"
