"""Makes sampling values of the settings that authors advise in words."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.ranges import CLIP_SKIP, GUIDANCE, STEPS, WEIGHT, Range
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard, StoredKind
from pipeline.schedulers import fits, scheduler_name
from pipeline.weights.families import FAMILIES

_SETTINGS: dict[str, Range] = {"steps": STEPS, "guidance_scale": GUIDANCE, "clip_skip": CLIP_SKIP}
_NEVER_LAST = {"sd15": 0, "sdxl": 1, "sd3": 1}
"""Layers that a family's encoders leave out by themselves, which A1111's number counts and ours does not."""


def advised_card(hints: Hints, kind: StoredKind, family: str | None) -> ModelCard:
    """The card of a model of this kind and family, with the advised settings as sampling takes them.

    Of a range the middle counts. Authors count skipped layers as A1111 does, from 1 on. A flow-matching family has
    schedulers of its own, which cards call by the names of others.
    """
    advised = ((name, _value(name, hints.said.get(name, ""), family)) for name in _SETTINGS)
    settings: list[tuple[str, float | int | str]] = [(name, value) for name, value in advised if value is not None]
    scheduler = _scheduler(hints.said.get("sampler", ""))
    if scheduler and (family not in FAMILIES or fits(scheduler, FAMILIES[family].flow_matching)):
        settings.append(("scheduler", scheduler))
    card = replace(hints.card, settings=tuple(settings))
    if kind != "lora":
        return replace(card, weight=None, weight_min=None, weight_max=None)
    return _weighed(card, _numbers(hints.said.get("weight", "")))


def _weighed(card: ModelCard, numbers: list[float]) -> ModelCard:
    """A LoRA's card with the weight that the text advises, unless one is noted, or none where that makes no sense."""
    low, high, weight = card.weight_min, card.weight_max, card.weight
    if weight is None and low is None and high is None and numbers:
        weight = _middle(numbers)
        low, high = (numbers[0], numbers[-1]) if len(numbers) > 1 else (None, None)
    weight, low, high = (None if one is None or WEIGHT.fault(one) else one for one in (weight, low, high))
    if low is not None and high is not None and low > high:
        low, high = high, low
    return replace(card, weight=weight, weight_min=low, weight_max=high)


def _value(name: str, said: str, family: str | None) -> float | int | None:
    numbers = _numbers(said)
    if not numbers or (name == "clip_skip" and family not in _NEVER_LAST):
        return None
    value = _middle(numbers) - (1 + _NEVER_LAST[family or ""] if name == "clip_skip" else 0)
    limits = _SETTINGS[name]
    exact = round(value) if limits.whole else value
    return None if limits.fault(exact) else exact


def _middle(numbers: list[float]) -> float:
    return round((numbers[0] + numbers[-1]) / 2, 2)


def _numbers(said: str) -> list[float]:
    return [float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", said)]


def _scheduler(said: str) -> str | None:
    """The first of the samplers that a text names; None for one that is not known."""
    try:
        return scheduler_name(re.split(r"\s+(?:or|and)\s+|/|,", said)[0].strip()) if said else None
    except ValueError:
        return None
