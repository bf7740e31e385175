"""Negative prompts: only where they act, never against the prompt, the user's own text first."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompting.analysis import AXES, Evidence, PromptAnalysis
from pipeline.prompting.asked_words import stem
from pipeline.prompting.conventions import conventions, read_data, texts
from pipeline.prompting.negatives import count_tokens, negative_prompt
from pipeline.prompting.proposals import TextChoice
from pipeline.weights.families import FAMILIES
from pipeline.weights.shipped import SHIPPED, load_tokenizer

PHOTO = PromptAnalysis(medium=("photo",), subject=("person",))


def negative(
    prompt: str,
    analysis: PromptAnalysis,
    own: str = "",
    *,
    family: str = "sd15",
    convention: str = "plain",
    uses_negative: bool = True,
    guidance: float | None = 7.0,
) -> TextChoice:
    return negative_prompt(
        own,
        prompt,
        analysis,
        family=family,
        convention=convention,
        uses_negative=uses_negative,
        guidance=guidance,
    )


def test_the_opposite_of_the_medium_comes_first_then_defects_then_quality() -> None:
    added = negative("a photo of a woman in a garden", PHOTO).added
    order = [added.index(words) for words in ("painting", "drawing", "3d render", "deformed", "worst quality")]
    assert order == sorted(order)


@pytest.mark.parametrize("medium", ["oil", "watercolour", "drawing", "ink", "vector", "comic_art"])
def test_what_is_drawn_or_painted_excludes_photos_and_not_itself(medium: str) -> None:
    added = negative("a woman in a garden", PromptAnalysis(medium=(medium,), subject=("person",))).added
    assert "photo" in added
    assert not {"painting", "drawing"} & set(added)


@pytest.mark.parametrize("style", ["anime", "cartoon"])
def test_a_drawn_style_without_a_medium_excludes_photos(style: str) -> None:
    assert "photo" in negative("a girl with a fox", PromptAnalysis(style=(style,), subject=("person",))).added


@pytest.mark.parametrize(
    ("prompt", "analysis", "unwanted"),
    [
        ("grainy blurred film still of a man", PHOTO, {"blurry"}),
        ("a skeleton in a suit, photo", PHOTO, {"deformed", "bad anatomy"}),
        ("foto de una zombi en la calle", PHOTO, {"deformed", "bad anatomy"}),
        ("a creature in a cave", PromptAnalysis(subject=("creature",)), {"deformed", "bad anatomy", "extra limbs"}),
        (
            'a shop window that says "OPEN"',
            PromptAnalysis(subject=("building",), text=("OPEN",)),
            {"text", "watermark"},
        ),
        ("a man reading a book, photo", PHOTO, {"text"}),
        ("una mujer y un cartel, foto", PHOTO, {"text"}),
        ("a crowd at a concert", PromptAnalysis(subject=("group",)), {"extra limbs", "duplicate", "extra fingers"}),
        ("seven dancers", PromptAnalysis(subject=("person",), count=7), {"extra limbs", "duplicate"}),
        ("a woman and her twin, photo", PHOTO, {"duplicate"}),
        (
            "one boat and four fish",
            PromptAnalysis(subject=("vehicle", "animal"), count=1),
            {"duplicate", "extra limbs"},
        ),
        (
            "dogs playing poker",
            PromptAnalysis(subject=("animal",), evidence=(Evidence("subject", "animal", "dogs", (0, 4)),)),
            {"duplicate"},
        ),
        ("photo of a man painting a fence", PHOTO, {"painting"}),
        ("fotografía de un cuadro al oleo", PHOTO, {"painting"}),
        ("photorealistic oil portrait", PromptAnalysis(medium=("oil",), subject=("person",)), {"photo"}),
        ("a fox in fog", PromptAnalysis(subject=("animal",), weather=("fog",)), {"blurry"}),
        ("low quality webcam picture of a man", PHOTO, {"low quality", "worst quality"}),
        (
            "quick draft of a man",
            PromptAnalysis(subject=("person",), quality="draft"),
            {"low quality", "worst quality"},
        ),
    ],
)
def test_nothing_stands_against_what_the_prompt_asks_for(
    prompt: str, analysis: PromptAnalysis, unwanted: set[str]
) -> None:
    added = set(negative(prompt, analysis).added)
    assert added
    assert not unwanted & added


def test_a_man_is_not_many() -> None:
    assert {"extra limbs", "duplicate"} <= set(negative("a young man on a bridge, photo", PHOTO).added)


def test_low_poly_does_not_ask_for_low_quality() -> None:
    assert "low quality" in negative("a low poly fox", PromptAnalysis(subject=("animal",))).added


def test_what_needs_a_body_is_only_for_bodies() -> None:
    bodies = {"deformed", "bad anatomy", "extra limbs", "extra fingers", "duplicate"}
    assert not bodies & set(negative("a lighthouse", PromptAnalysis(subject=("building",))).added)
    assert bodies & set(negative("a sailor", PromptAnalysis(subject=("person",))).added)


def test_what_the_prompt_excludes_comes_first_in_its_own_words() -> None:
    prompt = "una calle sin coches ni gente, foto"
    analysis = PromptAnalysis(medium=("photo",), subject=("cityscape",), negated=("coches", "gente"), language="es")
    assert negative(prompt, analysis).added[:2] == ("coches", "gente")


@pytest.mark.parametrize("family", ["qwen_image", "lumina2", "sana", "pixart_sigma"])
def test_what_the_prompt_excludes_is_said_to_models_that_need_nothing_else(family: str) -> None:
    analysis = PromptAnalysis(subject=("cityscape",), negated=("people",))
    assert negative("a street without people", analysis, family=family, convention="prose").added == ("people",)


def test_excluded_words_may_share_a_word_with_what_is_wanted() -> None:
    analysis = PromptAnalysis(subject=("vehicle",), negated=("blue car",))
    assert "blue car" in negative("a red car, no blue car", analysis).added


def test_what_is_both_excluded_and_wanted_is_left_out() -> None:
    prompt = "people on a beach, no people"
    span = (prompt.rindex("people"), len(prompt))
    analysis = PromptAnalysis(
        subject=("group",), negated=("people",), evidence=(Evidence("negated", "people", "people", span),)
    )
    assert "people" not in negative(prompt, analysis).added


def test_places_of_a_text_that_has_changed_since_do_no_harm() -> None:
    analysis = PromptAnalysis(
        subject=("vehicle",), negated=("people",), evidence=(Evidence("negated", "people", "people", (30, 36)),)
    )
    assert "people" in negative("a red car, no people", analysis).added


def test_an_excluded_word_may_be_one_of_ours_and_is_said_once() -> None:
    analysis = PromptAnalysis(medium=("photo",), subject=("person",), negated=("watermark",))
    assert negative("a photo of a woman without watermark", analysis).added.count("watermark") == 1


def test_own_text_comes_first_and_duplicates_are_dropped() -> None:
    choice = negative("a photo of a woman", PHOTO, own="hats, (Blurry:1.3), worst quality")
    assert choice.own == "hats, (Blurry:1.3), worst quality"
    assert choice.text.startswith("hats, (Blurry:1.3), worst quality, painting")
    assert not {"blurry", "worst quality"} & set(choice.added)
    assert choice.text == ", ".join([choice.own, *choice.added])


@pytest.mark.parametrize(
    "said",
    [
        {"family": "flux", "convention": "prose"},
        {"family": "flux2_klein", "convention": "prose", "uses_negative": False},
        {"family": "sdxl", "uses_negative": False},
        {"family": "sdxl", "guidance": 1.0},
        {"family": "sdxl", "guidance": 0.0},
        {"family": "z_image", "convention": "prose", "guidance": 0.0},
    ],
)
def test_nothing_is_added_where_the_model_ignores_it(said: dict[str, object]) -> None:
    choice = negative("a photo of a woman", PHOTO, own="hats", **said)  # type: ignore[arg-type]
    assert (choice.text, choice.added) == ("hats", ())
    assert choice.why.startswith("none: this model ignores it")


def test_z_image_is_guided_above_zero() -> None:
    assert negative("a photo of a woman", PHOTO, family="z_image", convention="prose", guidance=0.5).added


def test_the_embedded_model_gets_nothing() -> None:
    analysis = PromptAnalysis(subject=("building",), negated=("boat",))
    choice = negative("a red house by the sea, no boat", analysis, convention="closed")
    assert (choice.text, choice.added) == ("", ())
    assert choice.why


@pytest.mark.parametrize(
    ("convention", "words"),
    [
        ("pony", {"score_6", "score_5", "score_4"}),
        ("illustrious", {"worst quality", "low quality", "bad quality", "lowres"}),
        ("noobai", {"nsfw", "worst quality", "low quality"}),
    ],
)
def test_conventions_of_one_architecture_want_other_words(convention: str, words: set[str]) -> None:
    analysis = PromptAnalysis(style=("anime",), subject=("person",))
    added = set(negative("1girl, garden", analysis, family="sdxl", convention=convention).added)
    assert words <= added
    if convention == "pony":
        assert not any("quality" in one for one in added)


# -- Whatever is asked. ------------------------------------------------------------------------------------------------

_OURS = sorted({*read_data("negatives.toml")["words"], *(w for table in read_data("negatives.toml")["words"].values()
                                                          for w in table["asked"])})  # fmt: skip
_PHRASES = st.one_of(
    st.sampled_from(_OURS),
    st.sampled_from(["a fox", "a woman", "in the rain", "low poly", "(cat:1.2), dog", "red|blue BREAK x"]),
    st.text(max_size=20),
    st.text("ab1 ,;:()[].|_", max_size=12),
)
_AXIS_VALUES = {
    axis: st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple) for axis, values in AXES.items()
}
_CASES = st.fixed_dictionaries(
    {
        "wanted": st.lists(_PHRASES, min_size=1, max_size=8),
        "negated": st.lists(_PHRASES.filter(str.strip), max_size=3),
        "values": st.fixed_dictionaries(_AXIS_VALUES),
        "count": st.none() | st.integers(1, 12),
        "written": st.booleans(),
        "own": st.sampled_from(["", "hats", "blurry, hats,", " ", "(text:1.2), watermark", "Painting, photo"]),
        "family": st.sampled_from(sorted(FAMILIES)),
        "convention": st.sampled_from(conventions()),
    }
)
_GENERAL = {"low", "bad", "worst", "extra", "quality", "out", "of", "score"}


@given(_CASES)
def test_nothing_that_is_asked_for_is_ever_added(case: dict[str, object]) -> None:
    wanted, negated = case["wanted"], case["negated"]
    assert isinstance(wanted, list) and isinstance(negated, list)
    prompt = ", ".join([*wanted, *(f"no {one}" for one in negated)])
    values = case["values"]
    assert isinstance(values, dict)
    analysis = PromptAnalysis(
        **values,
        count=case["count"],
        text=("OPEN",) if case["written"] else (),
        negated=tuple(negated),
        evidence=_places(prompt, wanted, negated),
    )
    said = {name: case[name] for name in ("family", "convention")}
    own = case["own"]
    assert isinstance(own, str)
    choice = negative(prompt, analysis, own, **said)  # type: ignore[arg-type]
    excluded = {" ".join(part.split()) for one in negated for part in re.split(r"[,;|\n]|\bBREAK\b", one)}
    usual = [words for words in choice.added if words not in excluded]
    stems = {stem(word) for one in wanted for word in re.findall(r"[^\W_]+", one)}
    asked_values = {f"{axis} {value}" for axis, those in values.items() for value in those}
    for words in usual:
        own_words = set(re.findall(r"[^\W_]+", words))
        assert not {stem(word) for word in own_words - _GENERAL} & stems
        assert not {stem(word) for word in own_words} <= stems
        assert not set(read_data("negatives.toml")["words"].get(words, {"values": []})["values"]) & asked_values
    if case["written"]:
        assert "text" not in usual
    assert sum(count_tokens(words) for words in choice.added) < 40
    assert sum(len(words.split()) for words in choice.added) < 40
    assert choice.text.startswith(own) and choice.own == own
    again = negative(prompt, analysis, choice.text, **said)  # type: ignore[arg-type]
    assert (again.text, again.added) == (choice.text, ())


def _places(prompt: str, wanted: list[str], negated: list[str]) -> tuple[Evidence, ...]:
    found, start = [], len(", ".join(wanted))
    for phrase in negated:
        start += len(", no ")
        found.append(Evidence("negated", phrase, phrase, (start, start + len(phrase))))
        start += len(phrase)
    assert all(prompt[slice(*one.span)] == one.value for one in found)
    return tuple(found)


@pytest.mark.slow
def test_tokens_are_never_counted_too_few() -> None:
    from transformers import CLIPTokenizer

    tokenizer = load_tokenizer(CLIPTokenizer, SHIPPED["sdxl"] / "tokenizer")
    usual = {words for name in conventions() for family in FAMILIES for words in _usual_of(name, family)}
    excluded = ["gente", "casas feas", "multitud de personas", "ñandúes", "沙漠", "low-poly cars", "1920s 🚗 étages"]
    for words in (*usual, *excluded):
        assert len(tokenizer(f"{words},").input_ids) - 2 <= count_tokens(words), words
    for name in conventions():
        for family in FAMILIES:
            added = negative("a photo of a woman", PHOTO, family=family, convention=name).added
            assert len(tokenizer(", ".join(added)).input_ids) - 2 < 40


def _usual_of(convention: str, family: str) -> set[str]:
    usual = texts(convention, family)
    opposites = read_data("negatives.toml")["opposites"].values()
    return {*usual.defects, *usual.quality, *(words for group in opposites for words in group["words"])}


def test_ten_thousand_prompts_take_a_moment() -> None:
    prompts = [
        f"a photo of a woman number {n} on a bridge in the rain at night, neon signs, no people" for n in range(2000)
    ]
    analysis = PromptAnalysis(medium=("photo",), subject=("person",), negated=("people",), lighting=("night",))
    negative(prompts[0], analysis)
    start = time.process_time()
    for prompt in prompts:
        negative(prompt, analysis)
    assert (time.process_time() - start) / len(prompts) < 200e-6  # about 25 us on an idle core; this one may be busy
