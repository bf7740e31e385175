"""The data of conventions, negatives, settings and sizes: valid, sourced, and of known names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from pipeline.prompting.analysis import AXES, Quality
from pipeline.prompting.conventions import conventions, lineage, read_data, texts
from pipeline.prompting.negatives import count_tokens
from pipeline.ranges import CLIP_SKIP, GUIDANCE, STEPS, side_fault
from pipeline.registry.records import ModelCard
from pipeline.schedulers import fits, scheduler_faults, scheduler_name
from pipeline.selection.bases import convention_of
from pipeline.weights.families import FAMILIES

SOURCES = ("card:", "docs:", "source:", "peer:", "unchecked", "rule of this program", "the word", "Oppenlaender")
_DERIVED = {"count several", "count many", "text written", *(f"quality {one}" for one in get_args(Quality))}


def _tables(data: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table that has values of its own; `source` and the list of formats aside."""
    if path and any(not isinstance(value, dict) for value in data.values()):
        yield path, data
    for key, value in data.items():
        if isinstance(value, dict) and key != "source":
            yield from _tables(value, f"{path}.{key}" if path else key)


@pytest.mark.parametrize("file", ["conventions.toml", "settings.toml", "sizes.toml"])
def test_every_value_has_a_source(file: str) -> None:
    tables = [(path, table) for path, table in _tables(read_data(file))]
    assert tables
    for path, table in tables:
        keys = {key for key, value in table.items() if not isinstance(value, dict)}
        assert set(table.get("source", {})) == keys, f"{file}: {path}"
        for key, source in table["source"].items():
            assert source.startswith((*SOURCES, "usual", "a portrait")), f"{file}: {path}.{key}: {source}"


def test_formats_are_of_known_aspects_and_have_sources() -> None:
    for one in read_data("sizes.toml")["formats"]:
        width, height = one["proportion"]
        assert one["aspect"] == ("wide" if width > height else "tall")
        assert one["words"] and one["source"]["proportion"]


def test_every_opposite_has_a_source() -> None:
    assert all(group["source"].startswith(SOURCES) for group in read_data("negatives.toml")["opposites"].values())


def test_settings_are_valid_and_of_known_names() -> None:
    data = read_data("settings.toml")
    assert set(data["family"]) == set(FAMILIES)
    assert set(data["distilled"]) <= set(FAMILIES)
    assert set(data["convention"]) | set(data["v_prediction"]) <= set(conventions())
    assert set(data["quality"]) == set(get_args(Quality))
    for group in ("family", "distilled", "convention", "v_prediction"):
        for name, table in data[group].items():
            assert set(table) <= {"steps", "guidance_scale", "scheduler", "clip_skip", "source"}
            assert STEPS.fault(table["steps"]) is None
            assert GUIDANCE.fault(table["guidance_scale"]) is None
            assert CLIP_SKIP.fault(table.get("clip_skip", 1)) is None
            if scheduler := table.get("scheduler"):
                family = FAMILIES[name if name in FAMILIES else "sdxl"]
                assert scheduler_name(scheduler) == scheduler
                assert fits(scheduler, family.flow_matching)
                assert not scheduler_faults(scheduler)
    for rule in data["quality"].values():
        assert STEPS.fault(rule["least"]) is None and STEPS.fault(rule["most"]) is None
        assert rule["least"] < rule["most"]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: str(family.name))
def test_sizes_are_valid_for_their_family(family: Any) -> None:
    buckets = read_data("sizes.toml")["family"][family.name]["buckets"]
    assert buckets[0] == [family.size, family.size]
    for width, height in buckets:
        assert width >= height
        for side in (width, height):
            assert side_fault(side) is None
            assert side % family.size_multiple == 0


def test_negatives_name_values_that_an_analysis_can_have() -> None:
    known = _DERIVED | {f"{axis} {value}" for axis, values in AXES.items() for value in values}
    data = read_data("negatives.toml")
    for table in (*data["opposites"].values(), *data["words"].values()):
        assert set(table.get("values", ())) | set(table.get("only", ())) <= known


def test_every_word_that_is_used_says_what_it_would_work_against() -> None:
    data = read_data("negatives.toml")
    used = {words for group in data["opposites"].values() for words in group["words"]}
    for convention in conventions():
        for family in FAMILIES:
            usual = texts(convention, family)
            used |= {*usual.defects, *usual.quality}
    assert used <= set(data["words"])
    for_prompts = {
        words
        for convention in conventions()
        for family in FAMILIES
        for words in (*texts(convention, family).prefix, *texts(convention, family).suffix)
    }
    assert set(data["words"]) <= used | for_prompts


@pytest.mark.parametrize("convention", conventions())
def test_what_is_usual_is_short(convention: str) -> None:
    for family in FAMILIES:
        usual = texts(convention, family)
        opposite = ("painting", "drawing", "3d render") if usual.contradicts else ()
        assert sum(map(count_tokens, (*opposite, *usual.defects, *usual.quality))) < 40


def test_variants_know_what_they_are_variants_of() -> None:
    assert lineage("noobai") == ("noobai", "booru")
    assert lineage("pony") == ("pony",)
    assert lineage("") == ()


@pytest.mark.parametrize(
    "base", ["SDXL 1.0", "Pony", "Illustrious", "NoobAI", "Animagine XL 3.1", "SD 1.5", "Flux.1 D"]
)
@pytest.mark.parametrize("family", [None, "sd15", "sdxl", "flux"])
def test_every_convention_that_models_are_told_apart_by_has_texts(family: str | None, base: str) -> None:
    convention = convention_of(family, "", ModelCard(base_model=base))
    assert convention in ("", *conventions())
    assert bool(texts(convention, family).own) == bool(convention)


def test_a_misspelt_convention_is_no_convention() -> None:
    with pytest.raises(KeyError):
        lineage("ponny")
