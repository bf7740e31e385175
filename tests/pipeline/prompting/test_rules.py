"""What the rules read in prompts: traps of both languages, evidence, any text whatever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompting.analysis import AXES, PromptAnalysis
from pipeline.prompting.rules import analyse

NOTHING: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a forest, no people", ("people",)),
        ("a street without cars at night", ("cars",)),
        ("a city free of smog", ("smog",)),
        ("a beach without people or umbrellas", ("people", "umbrellas")),
        ("a cat, not a dog on a leash, on a sofa", ("dog on a leash",)),
        ("a text-free poster", ("text",)),
        ("una playa sin gente ni sombrillas", ("gente", "sombrillas")),
        ("un cielo azul, nada de nubes", ("nubes",)),
        ("un bosque, ningún animal", ("animal",)),
        ("an empty street", NOTHING),
        ("una calle vacía", NOTHING),
        ("not only a cat but also a dog", NOTHING),
        ("un camino sin fin", NOTHING),
    ],
)
def test_negation_reaches_to_the_end_of_its_phrase(prompt: str, expected: tuple[str, ...]) -> None:
    assert analyse(prompt).negated == expected


def test_what_is_excluded_is_not_asked_for() -> None:
    for prompt in ("a house, no people, no rain", "una casa, sin gente, sin lluvia"):
        read = analyse(prompt)
        assert read.subject == ("building",)
        assert read.weather == NOTHING


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ('a sign with "open all night"', "open all night"),
        ("a sign that says “Oil Painting”", "Oil Painting"),
        ("un cartel con «Se vende»", "Se vende"),
        ("a poster that reads 'don't stop'", "don't stop"),
        ("un letrero que dice 'Bienvenidos'", "Bienvenidos"),
    ],
)
def test_quotes_are_content(prompt: str, text: str) -> None:
    read = analyse(prompt)
    assert read.text == (text,)
    assert "text" in read.needs
    assert read.medium == NOTHING


def test_single_quotes_elsewhere_are_apostrophes() -> None:
    assert analyse("the dogs' bowl and the cats' toys").text == NOTHING
    assert analyse("a 'special' cake").text == NOTHING


@pytest.mark.parametrize(
    ("prompt", "axis"),
    [
        ("an oil rig at sea", "medium"),
        ("a man painting a fence", "medium"),
        ("a rock concert in a stadium", "scene"),
        ("photo album on a table", "medium"),
        ("a man holding a camera", "medium"),
        ("a woman holding a photo of her son", "medium"),
        ("a hall with paintings", "medium"),
        ("a gothic cathedral", "style"),
        ("a baroque palace in the rain", "style"),
        ("the white house with pastel colors", "medium"),
        ("a stained glass lamp on a table", "medium"),
        ("a 1960s car", "style"),
        ("una plataforma petrolera en el mar", "medium"),
        ("un hombre pintando una valla", "medium"),
        ("un concierto de rock", "medium"),
        ("a couple dancing salsa", "medium"),
        ("a portrait of a chef, Rembrandt lighting", "style"),
        ("un álbum de fotos sobre la mesa", "medium"),
        ("una catedral gótica", "style"),
        ("un palacio barroco bajo la lluvia", "style"),
    ],
)
def test_words_that_say_less_than_they_seem_to(prompt: str, axis: str) -> None:
    read = analyse(prompt)
    assert getattr(read, axis) == NOTHING or axis == "scene"
    assert read.subject


@pytest.mark.parametrize(
    ("prompt", "axis", "value"),
    [
        ("a cathedral, gothic style", "style", "gothic"),
        ("gothic painting of a cathedral", "style", "gothic"),
        ("una catedral, estilo gótico", "style", "gothic"),
        ("pintura barroca de un palacio", "style", "baroque"),
        ("a lighthouse in a storm, oil", "medium", "oil"),
        ("un faro en la tormenta, óleo", "medium", "oil"),
        ("un faro en la tormenta, oleo", "medium", "oil"),
        ("a cat in pencil and ink", "medium", "pencil"),
        ("a garden in the style of Monet", "style", "impressionist"),
        ("a woman holding a cup, watercolor", "medium", "watercolour"),
        ("stained_glass, a saint", "medium", "stained_glass"),
    ],
)
def test_words_that_frame_the_picture(prompt: str, axis: str, value: str) -> None:
    assert value in getattr(analyse(prompt), axis)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a dog", None),
        ("un perro", None),
        ("one dog", 1),
        ("two big dogs and a cat", 2),
        ("2girls", 2),
        ("a pair of shoes", 2),
        ("a pair of scissors", None),
        ("a dozen red roses", 12),
        ("a trio of owls", 3),
        ("tres gatos negros", 3),
        ("media docena de huevos", 6),
        ("un par de zapatos", 2),
        ("a jungle gym with three kids on it", None),
        ("a 25 year old woman", None),
        ("a two-headed dragon", None),
        ("a car, 8k, 35 mm", None),
        ("a cat (three:1.3)", None),
        ("twelve zorgles", 12),
    ],
)
def test_only_numbers_count_and_only_the_main_subject(prompt: str, count: int | None) -> None:
    assert analyse(prompt).count == count


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("two women talking", "person"),
        ("three women talking", "group"),
        ("a crowd", "group"),
        ("dos hombres", "person"),
        ("cuatro hombres", "group"),
        ("1girl, solo", "person"),
        ("photo of a red car in front of a castle", "vehicle"),
        ("a landscape", "landscape"),
        ("portrait of Zyxxa", "person"),
        ("a bowl of soup", "food"),
        ("a mother and her two children", "group"),
        ("dos mujeres y un hombre", "group"),
        ("a man and a woman", "person"),
        ("hands holding a cup of tea", "person"),
        ("a goat with a train conductor's hat", "animal"),
        ("un reloj gigante en una torre", "object"),
        ("a cat logo", "logo"),
        ("a red dress on a chair", "object"),
    ],
)
def test_the_main_subject_comes_first(prompt: str, subject: str) -> None:
    assert analyse(prompt).subject[0] == subject


def test_landscape_is_a_format_only_beside_a_word_of_format() -> None:
    assert analyse("a landscape with a lake").aspect is None
    assert analyse("a cat, landscape format").aspect == "wide"
    assert analyse("a cat, landscape format").subject == ("animal",)
    assert analyse("un gato, formato cuadrado").aspect == "square"
    assert analyse("a cat, 9:16").aspect == "tall"


@pytest.mark.parametrize(
    ("prompt", "pairs"),
    [
        ("a red car and a light blue house", (("red", "car"), ("blue", "house"))),
        ("an orange cat eating an orange", (("orange", "cat"),)),
        ("un gato blanco y negro", (("white", "gato"), ("black", "gato"))),
        ("un vestido rosa y una rosa roja", (("pink", "vestido"), ("red", "rosa"))),
        ("the old car is green", (("green", "car"),)),
        ("a purple zorgle", (("purple", "zorgle"),)),
        ("ojos azul claro", (("blue", "ojos"),)),
        ("a red panda drinking green tea near a black hole", NOTHING),
        ("tres tazas de café", NOTHING),
        ("ojos de color verde", (("green", "ojos"),)),
        ("golden hour, black and white photography of a pier", NOTHING),
    ],
)
def test_colours_have_english_names_and_a_thing(prompt: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert analyse(prompt).colours == pairs


def test_what_someone_looks_like() -> None:
    assert analyse("an old woman with curly red hair wearing armour, sitting").physical == (
        ("age", "old"),
        ("hair", "curly"),
        ("hair", "red"),
        ("clothing", "armour"),
        ("pose", "sitting"),
    )
    assert ("hair", "red") in analyse("un hombre pelirrojo con sombrero").physical
    assert analyse("an old house").physical == NOTHING
    assert analyse("a sad robot").emotion == ("sad",)
    assert analyse("a sad house").emotion == NOTHING


def test_weights_tags_and_breaks_are_read_past() -> None:
    read = analyse(
        "(oil painting:1.3) of [cats|dogs] BREAK (at_night:0.9), \\(fluffy\\), <lora:soft_ink:0.8>, best_quality"
    )
    assert read.medium == ("oil",)
    assert read.subject == ("animal",)
    assert read.time == ("night",)
    assert read.named == ("soft_ink",)
    assert read.quality == "high"
    assert read.count is None


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("a cat on the table", "en"),
        ("un gato en la mesa", "es"),
        ("retrato de una mujer, cinematic lighting, highly detailed", "mixed"),
        ("robot", "en"),
    ],
)
def test_the_language_is_told_by_its_words(prompt: str, language: str) -> None:
    assert analyse(prompt).language == language


def test_misspelt_words_are_read_past_and_said_so() -> None:
    read = analyse("a wattercolor of a castel")
    assert read.medium == ("watercolour",)
    assert read.subject == ("building",)
    assert {(one.words, one.read_as) for one in read.evidence if one.read_as} == {
        ("wattercolor", "watercolor"),
        ("castel", "castle"),
    }


@pytest.mark.parametrize("prompt", ["a prairie of gloves for a plated thing", "the planner and the carting of stables"])
def test_known_words_are_no_misspellings(prompt: str) -> None:
    assert not [one for one in analyse(prompt).evidence if one.read_as]


def test_every_value_has_its_words_in_the_prompt() -> None:
    prompt = 'Three RED foxes, oil painting, no people, "hi", square format, best quality, night, old man smiling'
    _check_evidence(prompt, analyse(prompt))


def _check_evidence(prompt: str, read: PromptAnalysis) -> None:
    said = {(one.axis, one.value) for one in read.evidence}
    for axis in AXES:
        assert {(axis, value) for value in getattr(read, axis)} == {pair for pair in said if pair[0] == axis}
    for axis in ("text", "negated", "named"):
        assert {(axis, value) for value in getattr(read, axis)} == {pair for pair in said if pair[0] == axis}
    for axis in ("colours", "physical"):
        assert {(axis, ": ".join(pair)) for pair in getattr(read, axis)} == {pair for pair in said if pair[0] == axis}
    assert {("count", str(read.count))} - {("count", "None")} == {pair for pair in said if pair[0] == "count"}
    for one in read.evidence:
        assert prompt[one.span[0] : one.span[1]] == one.words
        assert one.words
        assert one.stage == "rules"


PIECES = (
    *("a", "the", "of", "in", "no", "not", "sin", "ni", "con", "de", "un", "una", "y", "and", "or", "says", "'says'"),
    *('"', "“", "”", "«", "»", "'", "(", ")", "[", "]", "|", "{", "}", ":1.3)", "<lora:x:1>", "BREAK", "\\(", "1girl"),
    *(
        "two",
        "3",
        "dos",
        "red",
        "rojo",
        "orange",
        "cat",
        "gato",
        "oil",
        "painting",
        "gothic",
        "gótica",
        "style",
        "hair",
    ),
    *("pelo", "night,", ".", "\n", "\t", "_", "-", "'s", "\x00", "\ud800", "é", "e\u0301", "🔥", "old", "-free"),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join)))
def test_any_text_is_read_without_a_fault(prompt: str) -> None:
    _check_evidence(prompt, analyse(prompt))


@pytest.mark.parametrize(
    "piece",
    [
        *("a", '"', "'", "“ ", "<lora:", "(", "[a|", "no ", "red ", "cat ", "3 ", ":1.", "\\(", "a'", "x-", "oil and "),
        *("man and ", "text-free ", "rosa ", "cat's ", "says 'a' ", "a bowl of ", "old "),
    ],
)
def test_long_prompts_cost_no_more_than_their_length(piece: str) -> None:
    def seconds(length: int) -> float:
        prompt = (piece * length)[:length]
        started = time.process_time()
        analyse(prompt)
        return time.process_time() - started

    analyse("a cat")
    short = max(seconds(2_000), 0.002)
    long = min(seconds(20_000) for _ in range(2))  # a busy machine slows some of it
    assert long < 40 * short
