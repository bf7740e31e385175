"""The rules against prompts labelled by hand, in English and Spanish, and against GenEval's counts and colours."""

from __future__ import annotations

import pytest

from benchmarks.labelled_prompts import (
    GENEVAL,
    GROUPS,
    HELD_OUT_ALLOWANCE,
    PRECISION,
    LabelledPrompt,
    Mistake,
    colours_found,
    counts_found,
    geneval_rows,
    labelled_prompts,
    score,
)
from pipeline.prompting.analysis import AXES, PromptAnalysis
from pipeline.prompting.rules import analyse

PROMPTS = labelled_prompts()
PARTS = {
    "tuning": ([one for one in PROMPTS if not one.held_out], 0.0),
    "held out": ([one for one in PROMPTS if one.held_out], HELD_OUT_ALLOWANCE),
}


def _told(mistakes: list[Mistake]) -> str:
    return "\n".join(f"{one.prompt}: missed {one.missed}, wrong {one.wrong}" for one in mistakes)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("group", GROUPS)
def test_rules_find_what_a_careful_reader_finds(group: str, part: str) -> None:
    prompts, allowance = PARTS[part]
    total, mistakes = score(group, prompts, analyse)
    # What held-out prompts are read as is not shown, so that nobody tunes to them.
    told = _told(mistakes) if part == "tuning" else ""
    assert total.found_share >= GROUPS[group][1] - allowance, f"{total}\n{told}"
    assert total.precision >= PRECISION - allowance, f"{total}\n{told}"


def test_counts_and_colours_of_geneval_are_found() -> None:
    assert counts_found(geneval_rows("counting"), analyse).found_share >= GENEVAL
    assert colours_found(geneval_rows("colors", "color_attr"), analyse).found_share >= GENEVAL


def test_the_set_is_what_its_page_says() -> None:
    languages = [one.labels["language"] for one in PROMPTS]
    assert len({one.prompt for one in PROMPTS}) == len(PROMPTS) == 300
    assert languages.count("en") == 180 and languages.count("mixed") == 11
    assert 60 <= len(PARTS["held out"][0]) <= 90
    for one in PROMPTS:
        for axis, values in AXES.items():
            assert {*one.labels.get(axis, ()), *one.maybe.get(axis, ())} <= set(values), one.prompt
        assert all(phrase in one.prompt for phrase in (*one.labels.get("negated", ()), *one.labels.get("text", ())))


def test_a_score_counts_labels_found_and_values_that_are_right() -> None:
    prompts = [
        LabelledPrompt("a", {"medium": ["oil"]}, {}),
        LabelledPrompt("b", {"medium": ["photo"]}, {"medium": ["3d"]}),
        LabelledPrompt("c", {}, {}),
    ]
    given = {
        "a": PromptAnalysis(medium=("painting", "oil")),  # the general one is no mistake
        "b": PromptAnalysis(medium=("3d",)),  # missed, but readers differ on what was given
        "c": PromptAnalysis(medium=("ink",)),
    }
    total, mistakes = score("medium", prompts, given.__getitem__)
    assert (total.labels, total.found, total.given, total.right) == (2, 1, 2, 1)
    assert mistakes == [Mistake("b", ("photo",), ()), Mistake("c", (), ("ink",))]


def test_of_subjects_the_first_two_count_and_any_on_which_readers_differ_is_no_mistake() -> None:
    prompts = [LabelledPrompt("a", {"subject": ["logo"]}, {"subject": ["building", "food", "interior"]})]
    total, mistakes = score("subject", prompts, lambda _: PromptAnalysis(subject=("logo", "interior", "space")))
    assert (total.found_share, total.precision, mistakes) == (1.0, 1.0, [])
    total, _ = score("subject", prompts, lambda _: PromptAnalysis(subject=("space", "food", "logo")))
    assert (total.found, total.given, total.right) == (0, 1, 0)


def test_negated_phrases_are_compared_without_article_and_one_by_one() -> None:
    prompts = [LabelledPrompt("a", {"negated": ["boats or houses", "any people"]}, {})]
    total, mistakes = score("negated", prompts, lambda _: PromptAnalysis(negated=("boats", "Houses", "people")))
    assert (total.found_share, total.precision, mistakes) == (1.0, 1.0, [])
