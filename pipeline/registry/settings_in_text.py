"""Extracts recommended settings from authors' texts and from the settings of their example pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Protocol


class ExampleSettings(Protocol):
    """The settings with which an author has made an example picture, as far as they are told."""

    @property
    def steps(self) -> float | None: ...
    @property
    def guidance_scale(self) -> float | None: ...
    @property
    def clip_skip(self) -> float | None: ...
    @property
    def sampler(self) -> str: ...


_NUMBER = r"(\d{1,3}(?:\.\d{1,2})?)"
_RANGE = rf"{_NUMBER}(?:\s*(?:-|–|~|to)\s*{_NUMBER})?"
_IS = r"\s*(?:value|scale)?\s*(?:[:=]|is|of|around|about|at)?\s*"

_PATTERNS: dict[str, tuple[re.Pattern[str], float, float]] = {
    name: (re.compile(pattern, re.IGNORECASE), low, high)
    for name, pattern, low, high in (
        ("steps", rf"\b(?:num_inference_|sampling |inference )?steps?{_IS}{_RANGE}", 1, 150),
        ("guidance_scale", rf"\b(?:cfg|guidance)(?:[ _]?scale)?{_IS}{_RANGE}", 0, 30),
        ("clip_skip", rf"\bclip[ _-]?skip{_IS}{_RANGE}", 1, 12),
        ("weight", rf"(?<!denoise )(?<!denoising )\b(?:weight|strength){_IS}{_RANGE}", 0, 3),
    )
}
"""What stands behind which word, and between which values it makes sense."""

_STEPS_BEHIND = re.compile(rf"{_RANGE}\s+(?:sampling |inference )?steps\b", re.IGNORECASE)
_SAMPLER = re.compile(
    r"\b(?:sampler|scheduler|sampling method)\s*[:=]\s*([A-Za-z0-9+ _-]{2,40}?)\s*(?:[,.;\n]|$)", re.I
)


def settings_in(text: str) -> dict[str, str]:
    """Settings that a text recommends, by Darkroom's names, each as a number, a range or a word; the first one wins."""
    found: dict[str, str] = {}
    for name, (pattern, low, high) in _PATTERNS.items():
        if said := _first(pattern, text, low, high):
            found[name] = said
    if "steps" not in found and (said := _first(_STEPS_BEHIND, text, 1, 150)):
        found["steps"] = said
    if sampler := _SAMPLER.search(text):
        found["sampler"] = sampler[1].strip()
    return found


def settings_of(pictures: Sequence[ExampleSettings]) -> dict[str, str]:
    """Settings of an author's example pictures: medians of numbers, the most frequent sampler."""
    found: dict[str, str] = {}
    for name in ("steps", "guidance_scale", "clip_skip"):
        _, low, high = _PATTERNS[name]
        said = (getattr(one, name) for one in pictures)
        if values := [value for value in said if value is not None and low <= value <= high]:
            found[name] = f"{median(values):g}"
    samplers = Counter(one.sampler for one in pictures if one.sampler)
    if samplers:
        found["sampler"] = samplers.most_common(1)[0][0]
    return found


def _first(pattern: re.Pattern[str], text: str, low: float, high: float) -> str:
    for known in pattern.finditer(text):
        numbers = [float(digits) for digits in known.groups() if digits]
        if all(low <= value <= high for value in numbers) and numbers == sorted(numbers):
            return " to ".join(f"{value:g}" for value in numbers)
    return ""
