"""The shipped model profiles: of known families, with values that these can do, honest about what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.config.sections import Model
from pipeline.errors import ModelError
from pipeline.registry.resolve import resolve
from pipeline.schedulers import SAMPLERS, scheduler_faults
from pipeline.weights.families import FAMILIES, Family

FOLDER = Path(__file__).parents[3] / "conf" / "model"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("auto", "custom", "demo"))


def profile(name: str) -> Model:
    return Model.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def family(name: str) -> Family:
    return FAMILIES[profile(name).family or ""]


def test_the_models_that_people_use_have_profiles() -> None:
    stable = {"sd15", "sdxl", "sdxl_turbo", "sdxl_lightning", "sd35_medium", "sd35_large"}
    flux = {"flux_dev", "flux_schnell", "flux2_klein_4b", "chroma"}
    assert stable | flux | {"qwen_image", "z_image_turbo", "sana", "pixart_sigma", "lumina2"} <= set(SHIPPED)
    assert {family(name).name for name in SHIPPED} == set(FAMILIES)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_fits_its_family(name: str) -> None:
    sampling, known = profile(name).sampling, family(name)
    assert sampling.width and sampling.height and sampling.steps and sampling.guidance_scale is not None
    assert sampling.width % known.size_multiple == sampling.height % known.size_multiple == 0
    assert set(profile(name).parameters) <= set(known.parameters)
    if sampling.scheduler:
        flow = "FlowMatch" in SAMPLERS[sampling.scheduler].class_name
        assert flow == known.flow_matching
        assert scheduler_faults(sampling.scheduler, dict(sampling.scheduler_options or {})) == []


@pytest.mark.parametrize("name", [name for name in SHIPPED if profile(name).distilled])
def test_distilled_models_take_few_steps_and_no_guidance(name: str) -> None:
    sampling = profile(name).sampling
    assert (sampling.steps or 0) < 10 and (sampling.guidance_scale or 0) <= 1


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_that_are_not_here_end_in_one_clear_line(name: str) -> None:
    with pytest.raises(
        ModelError,
        match=r"not on this machine; fetch it with: darkroom models download .* hub\.auto_download=true",
    ) as error:
        resolve(profile(name).source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_names_its_licence_and_a_command_that_uses_it(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert profile(name).licence and f"#   python run.py model={name} model.source=" in text


def test_custom_shows_every_key() -> None:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "custom.yaml").read_text(encoding="utf-8"))
    assert set(document) == set(Model.model_fields)
    defaults = Model(source="x").model_dump() | {"sampling": {}}
    assert {key: value for key, value in document.items() if key != "source"} == {
        key: value for key, value in defaults.items() if key != "source"
    }
