"""What later stages may add to an analysis, and what of a prompt they read."""

from __future__ import annotations

import pytest

from pipeline.prompting.analysis import Evidence, PromptAnalysis
from pipeline.prompting.filling import affirmed, filled, open_axes

RULES = PromptAnalysis(medium=("oil",), negated=("people", "flores amarillas"), evidence=(
    Evidence("medium", "oil", "oil", (0, 3)),
))  # fmt: skip


def test_only_open_axes_are_filled_with_values_of_the_lists() -> None:
    found = {"medium": ["photo"], "style": ["gothic", "gothic", "goblin"], "mood": ["calm", "dark"], "path": ["x"]}
    result = filled(RULES, found, "meaning", "oil of a house")
    assert (result.medium, result.style, result.mood) == (("oil",), ("gothic",), ("calm", "dark"))
    added = result.evidence[1:]
    assert [(one.axis, one.value, one.stage, one.span, one.words) for one in added] == [
        ("style", "gothic", "meaning", (0, 14), ""),
        ("mood", "calm", "meaning", (0, 14), ""),
        ("mood", "dark", "meaning", (0, 14), ""),
    ]
    assert result.evidence[:1] == RULES.evidence


def test_nothing_found_changes_nothing() -> None:
    assert filled(RULES, {"medium": ["photo"], "style": []}, "ollama", "oil") is RULES


@pytest.mark.parametrize(
    ("negated", "axis", "value"),
    [("rain", "weather", "rain"), ("any animals", "subject", "animal"), ("neon lights", "lighting", "neon"),
     ("stained glass", "medium", "stained_glass"), ("Fog", "weather", "fog"), ("niebla", "weather", "fog"),
     ("people", "subject", "person"), ("gente", "subject", "group"), ("cars", "subject", "vehicle")],
)  # fmt: skip
def test_what_the_prompt_excludes_is_never_filled_in(negated: str, axis: str, value: str) -> None:
    assert filled(PromptAnalysis(negated=(negated,)), {axis: [value]}, "ollama", "x") == PromptAnalysis(
        negated=(negated,)
    )


def test_an_emotion_is_somebodys() -> None:
    found = {"emotion": ["calm"], "mood": ["calm"]}
    assert filled(PromptAnalysis(subject=("seascape",)), found, "ollama", "x").emotion == ()
    assert filled(PromptAnalysis(subject=("animal",)), found, "ollama", "x").emotion == ("calm",)
    assert filled(PromptAnalysis(), {**found, "subject": ["person"]}, "ollama", "x").emotion == ("calm",)


def test_open_axes_are_those_without_a_value() -> None:
    axes = open_axes(PromptAnalysis(medium=("oil",), weather=("rain",)))
    assert "medium" not in axes and "weather" not in axes and {"style", "subject", "mood"} <= {*axes}


@pytest.mark.parametrize(
    ("prompt", "negated", "text", "expected"),
    [
        ("a street without people, at night", ("people",), (), "a street without, at night"),
        ("un jardín sin flores amarillas", ("flores amarillas",), (), "un jardín sin"),
        ("a shop sign that says \"OPEN 24H\"", (), ("OPEN 24H",), "a shop sign that says"),
        ("un cartel con «Hola» y “adiós”", (), ("Hola", "adiós"), "un cartel con y"),
        ("a mug that says 'cats'", (), ("cats",), "a mug that says"),
        ("a fox <lora:ink wash_v2:0.8>, (red:1.3) fur, [blue|green] eyes", (), (), "a fox, red fur, blue green eyes"),
        ("1girl, long_hair BREAK city", (), (), "1girl, long hair city"),
        ("1girl, no_people, (no long_hair:1.2)", ("people", "long_hair"), (), "1girl, no, no"),
        ("no peoples, people", ("people",), (), "no peoples"),
        ("", (), (), ""),
    ],
)  # fmt: skip
def test_what_later_stages_read(prompt: str, negated: tuple[str, ...], text: tuple[str, ...], expected: str) -> None:
    assert affirmed(prompt, PromptAnalysis(negated=negated, text=text)) == expected


def test_reading_is_quick_for_any_text() -> None:
    for text in ("<" * 100_000, "(" * 100_000, '"' * 99_999, "a:" * 50_000, " ," * 50_000):
        assert isinstance(affirmed(text, PromptAnalysis(negated=("a",))), str)
