"""Advice in words becomes values that sampling takes, or none."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.registry.advised_settings import advised_card
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard


@pytest.mark.parametrize(
    ("said", "family", "settings"),
    [
        ({"steps": "20 to 31", "guidance_scale": "3.5 to 5"}, "sdxl", {"steps": 26, "guidance_scale": 4.25}),
        # A1111 counts from 1, and SDXL's encoders never use the last layer: there its 2 is no advice at all.
        ({"clip_skip": "2"}, "sd15", {"clip_skip": 1}),
        ({"clip_skip": "1"}, "sd15", {}),
        ({"clip_skip": "2"}, "sdxl", {}),
        ({"clip_skip": "3"}, "sdxl", {"clip_skip": 1}),
        ({"clip_skip": "2"}, None, {}),
        ({"sampler": "euler_a"}, "sdxl", {"scheduler": "Euler a"}),
        ({"sampler": "Euler a or DDIM"}, "sdxl", {"scheduler": "Euler a"}),
        ({"sampler": "my favourite"}, "sdxl", {}),
        ({"sampler": "Euler"}, "flux", {}),
        ({"sampler": "FlowMatch Euler"}, "flux", {"scheduler": "FlowMatch Euler"}),
        ({"steps": "0", "guidance_scale": "101", "other": "5"}, "sdxl", {}),
        ({"steps": "", "guidance_scale": "high"}, "sdxl", {}),
    ],
)
def test_settings_are_those_of_sampling(said: dict[str, str], family: str | None, settings: dict[str, Any]) -> None:
    assert dict(advised_card(Hints(said=said), "checkpoint", family).settings) == settings


@pytest.mark.parametrize(
    ("card", "said", "weights"),
    [
        (ModelCard(), {"weight": "0.6 to 0.8"}, (0.7, 0.6, 0.8)),
        (ModelCard(), {"weight": "1"}, (1.0, None, None)),
        (ModelCard(weight=0.5), {"weight": "0.6 to 0.8"}, (0.5, None, None)),
        (ModelCard(weight_min=0.9, weight_max=0.2), {}, (None, 0.2, 0.9)),
        (ModelCard(weight=11.0, weight_min=-3.0), {}, (None, -3.0, None)),
        (ModelCard(), {}, (None, None, None)),
    ],
)
def test_noted_weight_of_a_lora_comes_before_that_of_the_text(
    card: ModelCard, said: dict[str, str], weights: tuple[float | None, ...]
) -> None:
    found = advised_card(Hints(card, said), "lora", "sdxl")
    assert (found.weight, found.weight_min, found.weight_max) == weights
    assert advised_card(Hints(card, said), "checkpoint", "sdxl").weight is None
