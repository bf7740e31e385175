"""Settings by card, profile, convention and family, each with who says so; sizes by the format that is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompting.analysis import Aspect, Evidence, PromptAnalysis, Quality
from pipeline.prompting.conventions import CLOSED, PHRASE_FAMILIES, conventions
from pipeline.prompting.parameters import settings_for
from pipeline.ranges import CLIP_SKIP, GUIDANCE, STEPS, side_fault
from pipeline.schedulers import fits, scheduler_name
from pipeline.weights.families import FAMILIES

PROFILES = Path(__file__).parents[3] / "conf" / "model"
NOTHING = PromptAnalysis()
PORTRAIT = PromptAnalysis(subject=("person",), shot=("portrait",))


def said(analysis: PromptAnalysis = NOTHING, **changes: Any) -> dict[str, tuple[Any, str]]:
    asked: dict[str, Any] = {"family": "sdxl", "convention": "plain", "card_settings": {}, "profile_sampling": {}}
    found = settings_for(analysis, **{**asked, **changes})
    return {key: (one.value, one.source) for key, one in found.items()}


def size(analysis: PromptAnalysis, **changes: Any) -> tuple[int, int] | None:
    found = said(analysis, **changes)
    return (found["width"][0], found["height"][0]) if "width" in found else None


def wide(words: str, aspect: Aspect = "wide") -> PromptAnalysis:
    return PromptAnalysis(aspect=aspect, evidence=(Evidence("aspect", aspect, words, (0, len(words))),))


def test_card_then_profile_then_convention_then_family() -> None:
    layers = {"convention": "pony", "card_settings": {"steps": 33}, "profile_sampling": {"steps": 40, "clip_skip": 1}}
    found = said(**layers)
    assert found["steps"] == (33, "card")
    assert found["clip_skip"] == (1, "profile")
    assert found["scheduler"] == ("Euler a", "family")
    assert said(profile_sampling={"steps": 40})["steps"] == (40, "profile")
    assert said()["steps"][1] == "family"


def test_what_nobody_says_is_left_out() -> None:
    assert set(said()) == {"steps", "guidance_scale"}
    assert said(family=None, profile_sampling={"steps": None}) == {}


@pytest.mark.parametrize(
    "card",
    [
        {"steps": 1_000, "guidance_scale": 99, "clip_skip": 99, "scheduler": "rm -rf"},
        {"steps": -1, "guidance_scale": float("nan"), "clip_skip": 0, "scheduler": 7},
        {"steps": "25", "guidance_scale": None, "clip_skip": True, "scheduler": ""},
        {"scheduler": "FlowMatch Euler"},  # SDXL is no flow
    ],
)
def test_what_makes_no_sense_on_a_card_is_passed_over(card: dict[str, Any]) -> None:
    assert said(card_settings=card) == said()


def test_what_suits_on_a_card_is_taken_by_its_usual_name() -> None:
    card = {"steps": 20, "guidance_scale": 5.25, "clip_skip": 1, "scheduler": "euler_a"}
    found = said(family="sd15", card_settings=card)
    assert {key: value for key, (value, _) in found.items()} == {**card, "scheduler": "Euler a"}
    assert {source for _, source in found.values()} == {"card"}


def test_conventions_of_one_architecture_have_settings_of_their_own() -> None:
    conventions_of_sdxl = ("plain", "pony", "illustrious", "noobai")
    guidance = {name: said(convention=name)["guidance_scale"][0] for name in conventions_of_sdxl}
    assert guidance["noobai"] < guidance["plain"] < guidance["pony"]
    assert said(convention="noobai", v_prediction=True)["scheduler"][0] == "Euler"
    assert said(convention="noobai", v_prediction=True)["guidance_scale"][0] < guidance["noobai"]
    assert said(convention="plain", v_prediction=True) == said(convention="plain")


def test_pony_skips_the_layer_that_diffusers_skips_anyway() -> None:
    assert "clip_skip" not in said(convention="pony")


NAMED = sorted({path.stem for path in PROFILES.glob("*.yaml")} - {"auto", "custom"})
"""Without the one that leaves the choice open and the form to be filled in."""


@pytest.mark.parametrize("name", NAMED)
def test_a_shipped_profile_gives_the_job_that_it_always_gave(name: str) -> None:
    profile = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    sampling = profile["sampling"]
    is_demo = profile["source"] == "demo"
    family = "sd15" if is_demo else profile["family"]
    found = said(
        family=family,
        convention=CLOSED if is_demo else "plain" if family in PHRASE_FAMILIES else "prose",
        profile_sampling=sampling,
        distilled=profile.get("distilled", False),
        default_size=(64, 64) if is_demo else (1024, 1024),
    )
    assert {key: value for key, (value, _) in found.items()} == {
        key: value for key, value in sampling.items() if key != "scheduler_options"
    }


def test_the_embedded_model_keeps_its_size_and_steps_whatever_is_asked() -> None:
    asked = PromptAnalysis(aspect="wide", quality="high", shot=("portrait",), subject=("person",))
    profile = {"steps": 20, "guidance_scale": 2.0}
    found = said(asked, family="sd15", convention=CLOSED, profile_sampling=profile, default_size=(64, 64))
    assert found == {"steps": (20, "profile"), "guidance_scale": (2.0, "profile")}


@pytest.mark.parametrize(
    ("analysis", "family", "expected"),
    [
        (PromptAnalysis(aspect="square"), "sdxl", (1024, 1024)),
        (PromptAnalysis(aspect="tall"), "sdxl", (832, 1216)),
        (PromptAnalysis(aspect="wide"), "sdxl", (1216, 832)),
        (wide("panorama"), "sdxl", (1536, 640)),
        (wide("16:9"), "sdxl", (1344, 768)),
        (wide("1920x1080"), "qwen_image", (1664, 928)),
        (wide("2.35:1"), "sdxl", (1536, 640)),
        (wide("fondo de escritorio"), "sdxl", (1344, 768)),
        (wide("fondo de pantalla para móvil", "tall"), "sdxl", (768, 1344)),
        (wide("phone wallpaper", "tall"), "qwen_image", (928, 1664)),
        (wide("phone wallpaper", "tall"), "sdxl", (768, 1344)),
        (PORTRAIT, "sdxl", (896, 1152)),
        (PORTRAIT, "sd15", (512, 640)),
        (PromptAnalysis(aspect="tall", subject=("person",), shot=("portrait",)), "sdxl", (896, 1152)),
        (PromptAnalysis(subject=("person",), shot=("full_body",)), "sdxl", (832, 1216)),
        (PromptAnalysis(subject=("animal",), shot=("portrait",)), "sdxl", None),
        (NOTHING, "sdxl", None),
    ],
)
def test_sizes_are_those_that_the_family_was_trained_for(
    analysis: PromptAnalysis, family: str, expected: tuple[int, int] | None
) -> None:
    assert size(analysis, family=family) == expected


def test_the_format_of_the_prompt_counts_before_the_square_of_a_profile() -> None:
    profile = {"steps": 30, "width": 1024, "height": 1024}
    found = said(PromptAnalysis(aspect="wide"), profile_sampling=profile)
    assert (found["width"], found["height"]) == ((1216, "family"), (832, "family"))
    assert said(profile_sampling=profile)["width"] == (1024, "profile")


def test_a_model_of_another_size_keeps_its_area() -> None:
    found = size(PromptAnalysis(aspect="wide"), family="sd15", default_size=(768, 768))
    assert found is not None
    assert found[0] / found[1] == pytest.approx(1.5, rel=0.1)
    assert found[0] * found[1] == pytest.approx(768 * 768, rel=0.1)


def test_a_distilled_model_of_another_size_has_only_that() -> None:
    asked = PromptAnalysis(aspect="wide")
    turbo = {"steps": 4, "width": 512, "height": 512}
    assert size(asked, profile_sampling=turbo, distilled=True) == (512, 512)
    assert size(asked, default_size=(512, 512), distilled=True) is None
    assert size(asked, distilled=True) is None
    assert size(asked, distilled=True, family="flux", convention="prose") == (1216, 832)
    assert size(asked, default_size=(1024, 1024), distilled=True) == (1216, 832)


@pytest.mark.parametrize(("quality", "steps"), [("draft", (15, 20)), ("high", (35, 60))])
def test_quality_scales_steps_within_bounds(quality: Quality, steps: tuple[int, int]) -> None:
    value, source = said(PromptAnalysis(quality=quality))["steps"]
    assert steps[0] <= value <= steps[1]
    assert source == "rule"
    assert said(quality=quality)["steps"] == (value, source)


def test_the_quality_that_is_set_counts_before_that_of_the_prompt() -> None:
    assert said(PromptAnalysis(quality="high"), quality="draft") == said(quality="draft")


def test_quality_never_goes_the_other_way() -> None:
    assert said(quality="draft", profile_sampling={"steps": 6})["steps"] == (6, "profile")
    assert said(quality="high", profile_sampling={"steps": 90})["steps"] == (90, "profile")


@pytest.mark.parametrize("quality", ["draft", "high"])
def test_distilled_models_keep_their_steps_and_guidance(quality: Quality) -> None:
    card = {"steps": 30, "guidance_scale": 7}
    found = said(
        quality=quality,
        distilled=True,
        card_settings=card,
        profile_sampling={"steps": 4, "guidance_scale": 0.0},
    )
    assert (found["steps"], found["guidance_scale"]) == ((4, "profile"), (0.0, "profile"))
    assert said(quality=quality, distilled=True, family="flux")["steps"] == (4, "family")


@pytest.mark.parametrize(
    ("key", "open_keys"),
    [
        ("steps", {"guidance_scale", "scheduler", "width", "height"}),
        ("width", {"steps", "guidance_scale", "scheduler"}),
        ("height", {"steps", "guidance_scale", "scheduler"}),
        ("scheduler_options", {"steps", "guidance_scale", "width", "height"}),
    ],
)
def test_nothing_is_said_of_what_the_user_has_set(key: str, open_keys: set[str]) -> None:
    assert set(said(PromptAnalysis(aspect="wide"), convention="pony", set_by_user={key})) == open_keys


def test_options_of_a_scheduler_stay_with_theirs() -> None:
    profile = {"steps": 8, "scheduler_options": {"timestep_spacing": "trailing"}}
    assert "scheduler" not in said(convention="pony", card_settings={"sampler": "DDIM"}, profile_sampling=profile)


_CARD = st.dictionaries(
    st.sampled_from(["steps", "guidance_scale", "clip_skip", "scheduler", "width", "path"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["Euler a", "DPM++ 2M Karras", "FlowMatch Euler", "20", "LMS"]),
    ),
)


@given(
    card=_CARD,
    family=st.none() | st.sampled_from(sorted(FAMILIES)),
    convention=st.sampled_from(conventions()),
    aspect=st.sampled_from([None, "square", "tall", "wide"]),
    words=st.sampled_from(["wide", "0.1:9", "99999:1", "0:0", "1:3", "banner", "phone"]),
    quality=st.sampled_from([None, "draft", "high"]),
    own=st.none() | st.tuples(st.integers(2, 128).map(lambda n: n * 8), st.integers(2, 128).map(lambda n: n * 8)),
    distilled=st.booleans(),
    v_prediction=st.booleans(),
)
def test_whatever_a_card_says_the_values_can_be_run(
    card: dict[str, Any],
    family: str | None,
    convention: str,
    aspect: Aspect | None,
    words: str,
    quality: Quality | None,
    own: tuple[int, int] | None,
    distilled: bool,
    v_prediction: bool,
) -> None:
    found = settings_for(
        wide(words, aspect) if aspect else NOTHING,
        family=family,
        convention=convention,
        card_settings=card,
        profile_sampling={},
        quality=quality,
        default_size=own,
        distilled=distilled,
        v_prediction=v_prediction,
    )
    known = FAMILIES.get(family or "")
    for key, one in found.items():
        if key in ("width", "height"):
            assert known is not None and isinstance(one.value, int)
            assert side_fault(one.value) is None and one.value % known.size_multiple == 0
        elif key == "scheduler":
            assert known is not None and isinstance(one.value, str)
            assert scheduler_name(one.value) == one.value and fits(one.value, known.flow_matching)
        else:
            within = {"steps": STEPS, "guidance_scale": GUIDANCE, "clip_skip": CLIP_SKIP}[key]
            assert within.fault(one.value) is None
    if "width" in found:
        width, height = found["width"].value, found["height"].value
        assert isinstance(width, int) and isinstance(height, int)
        assert abs(math.log(width / height)) <= math.log(6)  # 4, and small sides are rounded
