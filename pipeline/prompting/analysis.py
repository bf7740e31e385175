"""What a prompt asks for, as values of closed lists, each with the words that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Stage = Literal["rules", "meaning", "ollama"]
Aspect = Literal["square", "tall", "wide"]
Quality = Literal["draft", "high"]

AXES: Mapping[str, tuple[str, ...]] = {
    axis: tuple(values.split())
    for axis, values in {
        "medium": (
            "photo painting drawing illustration oil watercolour ink pencil charcoal pastel acrylic gouache woodcut "
            "digital_painting vector pixel 3d collage papercraft sculpture mosaic stained_glass embroidery comic_art"
        ),
        "style": (
            "realistic anime cartoon comic concept_art abstract impressionist expressionist surreal cubist art_nouveau "
            "art_deco pop_art minimalist baroque renaissance ukiyo_e cyberpunk steampunk fantasy vaporwave gothic "
            "retro isometric monochrome"
        ),
        "subject": (
            "person group animal creature robot vehicle food plant building interior landscape cityscape seascape "
            "space object text logo abstract"
        ),
        "shot": "macro close_up portrait half_body full_body wide aerial low_angle high_angle",
        "lighting": "natural golden_hour night neon studio backlit dramatic soft candle",
        "time": "dawn day dusk night",
        "weather": "clear rain storm snow fog cloud",
        "mood": "calm joyful dark melancholic epic tense romantic whimsical",
        "scene": "indoor outdoor urban nature underwater sky fantasy_world sci_fi historical",
        "emotion": "happy sad angry afraid surprised calm proud tired",
        "needs": "text hands many_subjects transparency symmetry",
    }.items()
}
"""The closed lists: what an axis can say."""

SOMEONE = frozenset({"person", "group", "robot", "animal", "creature"})
"""Subjects that can have an emotion, clothes, a pose."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why an axis has a value: the `words` of the prompt at `span` (first and last character, as slices count them).

    `read_as` is the spelling that was assumed for a misspelt word. Where a later stage read the whole prompt, `span` is
    all of it and `words` is empty.
    """

    axis: str
    value: str
    words: str
    span: tuple[int, int]
    stage: Stage = "rules"
    read_as: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values; `read_as` only where something was assumed."""
        values: dict[str, Any] = {
            "axis": self.axis,
            "value": self.value,
            "words": self.words,
            "span": list(self.span),
            "stage": self.stage,
        }
        return values if self.read_as is None else {**values, "read_as": self.read_as}


@dataclass(frozen=True, slots=True)
class PromptAnalysis:
    """What one prompt asks for. Values of an axis stand in the order of the text; the main subject comes first.

    `count` is that of the main subject, only where a number is said. `colours` are pairs of colour and thing,
    `physical` pairs such as (hair, red). `text` is what is to be written in the picture. `negated` are the phrases that
    the prompt excludes, without the negation, in its own words. `language` is `en`, `es`, or `mixed`. `named` are LoRA
    tags, trigger words and model names that the prompt says.
    """

    medium: tuple[str, ...] = ()
    style: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    shot: tuple[str, ...] = ()
    lighting: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    weather: tuple[str, ...] = ()
    mood: tuple[str, ...] = ()
    scene: tuple[str, ...] = ()
    emotion: tuple[str, ...] = ()
    count: int | None = None
    colours: tuple[tuple[str, str], ...] = ()
    physical: tuple[tuple[str, str], ...] = ()
    text: tuple[str, ...] = ()
    aspect: Aspect | None = None
    quality: Quality | None = None
    needs: tuple[str, ...] = ()
    negated: tuple[str, ...] = ()
    language: str = "en"
    named: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As plain values, in the order of the fields; pairs are lists of two."""
        values = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name != "evidence"}
        return {**values, "evidence": [one.to_json() for one in self.evidence]}


def main_look(analysis: PromptAnalysis) -> str:
    """The look that a prompt mainly asks for: its first style, else its first medium, else `plain`.

    Ratings are kept by it, and a preference for a model holds for pictures of this look.
    """
    return next(iter((*analysis.style, *analysis.medium)), "plain")


def _plain(value: object) -> object:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
