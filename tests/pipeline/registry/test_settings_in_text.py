"""Recommended settings out of authors' words."""

from __future__ import annotations

import pytest

from pipeline.hubs.civitai_protocol import ExamplePicture
from pipeline.registry.settings_in_text import settings_in, settings_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Steps: 30\nCFG scale: 7\nClip skip: 2\nSampler: DPM++ 2M Karras",
         {"steps": "30", "guidance_scale": "7", "clip_skip": "2", "sampler": "DPM++ 2M Karras"}),
        ("Use 20-30 steps and CFG 3.5 to 5.", {"steps": "20 to 30", "guidance_scale": "3.5 to 5"}),
        ("image = pipe(prompt, num_inference_steps=4, guidance_scale=0.0)", {"steps": "4", "guidance_scale": "0"}),
        ("Recommended weight 0.6-0.8", {"weight": "0.6 to 0.8"}),
        ("LoRA strength: 1", {"weight": "1"}),
        ("Hires fix: denoising strength 0.4", {}),
        ("trained for 4000 steps on weights 900", {}),
        ("steps 30-20", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_settings_are_found_where_they_make_sense(text: str, found: dict[str, str]) -> None:
    assert settings_in(text) == found


def test_pictures_tell_their_median_and_the_most_frequent_sampler() -> None:
    pictures = [
        {"steps": 20, "cfgScale": 7, "sampler": "Euler a"},
        {"steps": 30, "cfgScale": 5.5, "sampler": "Euler a"},
        {"steps": 40, "cfgScale": 6, "sampler": "DDIM", "clipSkip": 2},
        {"steps": "many", "cfgScale": 1e9, "sampler": 7},
    ]
    found = settings_of([ExamplePicture.model_validate({"meta": one}) for one in pictures])
    assert found == {"steps": "30", "guidance_scale": "6", "clip_skip": "2", "sampler": "Euler a"}
    assert settings_of([]) == {}
