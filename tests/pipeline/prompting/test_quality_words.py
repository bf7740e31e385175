"""The prompt that a model gets: quality words of its convention, trigger words, and the user's own text between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.conventions import conventions
from pipeline.prompting.proposals import TextChoice
from pipeline.prompting.quality_words import model_prompt
from pipeline.weights.families import FAMILIES

NOTHING = PromptAnalysis()


def made(prompt: str, convention: str, family: str = "sdxl", *triggers: str) -> TextChoice:
    return model_prompt(prompt, NOTHING, family=family, convention=convention, triggers=triggers)


@pytest.mark.parametrize(
    ("convention", "family", "text"),
    [
        ("plain", "sd15", "a fox"),
        ("plain", "sdxl", "a fox"),
        ("pony", "sdxl", "score_9, score_8_up, score_7_up, a fox"),
        ("illustrious", "sdxl", "a fox, masterpiece, best quality, newest, absurdres"),
        ("noobai", "sdxl", "masterpiece, best quality, newest, absurdres, highres, safe, a fox"),
        ("animagine", "sdxl", "a fox, masterpiece, best quality"),
        ("", "sdxl", "a fox"),
        ("prose", "flux", "a fox"),
        ("prose", "qwen_image", "a fox, Ultra HD, 4K, cinematic composition."),
        ("closed", "sd15", "a fox"),
    ],
)
def test_each_convention_has_its_own_words(convention: str, family: str, text: str) -> None:
    choice = made("a fox", convention, family)
    assert choice.text == text
    assert choice.own == "a fox"


@pytest.mark.parametrize(
    ("convention", "prompt"),
    [
        ("pony", "score_9, a fox"),
        ("pony", "a fox, (score_8_up:1.1)"),
        ("illustrious", "Masterpiece, a fox"),
        ("noobai", "a fox, (best quality:1.2)"),
        ("noobai", "a fox, best_quality"),
    ],
)
def test_a_prompt_with_quality_words_of_its_own_gets_none(convention: str, prompt: str) -> None:
    assert made(prompt, convention) == TextChoice(prompt, prompt)


def test_quality_words_of_another_convention_count_for_nothing() -> None:
    assert made("masterpiece, a fox", "pony").added == ("score_9", "score_8_up", "score_7_up")


def test_a_draft_gets_no_quality_words() -> None:
    draft = PromptAnalysis(quality="draft")
    assert model_prompt("quick sketch of a fox", draft, family="sdxl", convention="pony").added == ()


def test_quality_words_do_not_contradict_the_prompt() -> None:
    assert "newest" not in made("1970s poster of a fox, retro", "illustrious").added
    assert "safe" not in made("erotic statue, museum", "noobai").added
    assert "masterpiece" in made("1970s poster of a fox, retro", "illustrious").added


def test_triggers_stand_behind_the_text_and_before_quality_words() -> None:
    assert made("a fox", "illustrious", "sdxl", "inkwash").text == (
        "a fox, inkwash, masterpiece, best quality, newest, absurdres"
    )
    assert made("a fox", "pony", "sdxl", "inkwash").text == "score_9, score_8_up, score_7_up, a fox, inkwash"


def test_triggers_that_are_there_are_not_said_again() -> None:
    assert made("a fox, Ink_Wash style", "plain", "sdxl", "ink wash").added == ()
    assert made("a fox", "plain", "sdxl", "ohwx fox", "ohwx fox", "OHWX  FOX").added == ("ohwx fox",)
    assert made("inkwashed fox", "plain", "sdxl", "inkwash").added == ("inkwash",)  # another word


def test_a_trigger_brings_no_lora_tag_along() -> None:
    assert made("a fox", "plain", "sdxl", "<lora:other:9>, inkwash,").text == "a fox, inkwash"


def test_a_sentence_ends_as_it_did() -> None:
    assert made("A fox sleeps.", "plain", "sdxl", "inkwash").text == "A fox sleeps. inkwash"
    assert made("a fox, ", "plain", "sdxl", "inkwash").text == "a fox, inkwash"


def test_the_embedded_model_gets_no_word_that_it_does_not_know() -> None:
    assert made("a red house", "closed", "sd15", "inkwash") == TextChoice("a red house", "a red house")


@given(
    st.text(min_size=1, max_size=40),
    st.sampled_from(conventions()),
    st.sampled_from(sorted(FAMILIES)),
    st.lists(st.text("ab <>:1,_", min_size=1, max_size=12) | st.sampled_from(["<lora:x:1>", "ohwx"]), max_size=3),
)
def test_the_own_text_stays_whole_and_nothing_is_added_twice(
    prompt: str, convention: str, family: str, triggers: list[str]
) -> None:
    choice = made(prompt, convention, family, *triggers)
    assert choice.own == prompt
    assert prompt in choice.text
    assert made(choice.text, convention, family, *triggers).added == ()
