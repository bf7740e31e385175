"""The shipped demo model: its folder, what it survives, and what its pictures show of what was asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.demo_model.captions import canonical, held_out_scenes
from examples.demo_model.check import accuracy
from examples.demo_model.measure import TARGETS, load, measure, paint
from examples.demo_model.scenes import SIZE
from examples.demo_model.words import MAX_TOKENS

FOLDER = Path(__file__).parents[2] / "pipeline" / "demo"
WEIGHTS = ("unet", "vae", "text_encoder")
MIB_25 = 25_000_000
ODD_PROMPTS = [
    "",
    " ",
    "🙂🌅",
    "一座红房子",
    "بيت أحمر",
    "a red\x00house",
    "\u202ea red house",
    "<|endoftext|> a red house <|startoftext|>",
    "Negative prompt: a\nSteps: 20",
    "Straße ÅÄÖ ﬁ",
    "a red house " * 9000,
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load(FOLDER)


def test_folder_is_small_and_safetensors_only() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= MIB_25
    assert {path.suffix for path in files} <= {".py", ".json", ".safetensors", ".txt", ".md"}
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} == set(WEIGHTS)


def test_folder_tells_nothing_about_where_it_was_made() -> None:
    for path in [*FOLDER.rglob("*.json"), *FOLDER.rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"_name_or_path|/(?:home|root|work|tmp|Users|mnt|opt|srv|var)/|Users", text), path.name


def test_plain_from_pretrained_paints() -> None:
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(str(FOLDER), local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    image = plain("a red house in hills at sunset", num_inference_steps=2).images[0]
    assert image.size == (SIZE, SIZE)
    assert plain.safety_checker is None and plain.feature_extractor is None


def test_default_size_and_prediction_type(pipeline: Any) -> None:
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == SIZE
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.tokenizer.model_max_length == MAX_TOKENS
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert index["requires_safety_checker"] is False


def test_words_are_tokens_and_anything_else_is_pieces(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    prompt = "a purple boat by the sea , at night with a moon on the right"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)
    assert tokens[1:-1] == [f"{word}</w>" for word in prompt.split()]
    for prompt in ODD_PROMPTS:
        ids = tokenizer(prompt, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
        assert len(ids) == MAX_TOKENS
        assert min(ids) >= 0 and max(ids) < pipeline.text_encoder.config.vocab_size


@pytest.mark.slow
def test_odd_prompts_paint(pipeline: Any) -> None:
    for image in paint(pipeline, ODD_PROMPTS, steps=2):
        assert np.isfinite(np.asarray(image)).all()


def test_text_encoder_has_a_layer_to_skip(pipeline: Any) -> None:
    import torch

    with torch.no_grad():
        ids = pipeline.tokenizer("a red house", return_tensors="pt").input_ids
        states = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert states[-2].isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_other_schedulers_take_its_configuration(pipeline: Any, name: str) -> None:
    import diffusers

    usual = pipeline.scheduler
    scenes = held_out_scenes(6)
    try:
        pipeline.scheduler = getattr(diffusers, name).from_config(usual.config)
        images = paint(pipeline, [canonical(scene) for scene in scenes], steps=12)
    finally:
        pipeline.scheduler = usual
    assert accuracy(scenes, images)["time"] >= 0.8


def test_same_seed_paints_the_same_pixels(pipeline: Any) -> None:
    first, second = (paint(pipeline, ["a red house in hills"], steps=3, first_seed=5)[0] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.slow
def test_two_dozen_held_out_captions(pipeline: Any) -> None:
    shares, _ = measure(pipeline, count=24)
    for name, wanted in TARGETS.items():
        assert shares[name] >= wanted, f"{name}: {shares[name]:.0%}"


@pytest.mark.campaign
def test_200_held_out_captions(pipeline: Any) -> None:
    shares, _ = measure(pipeline, count=200)
    assert {name: share for name, share in shares.items() if share < TARGETS[name]} == {}


def test_card_states_the_figures_and_the_command() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("Apache-2.0", "python -m examples.demo_model.train --minutes", "held out", "sun or moon"):
        assert words in card
