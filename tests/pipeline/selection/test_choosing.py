"""The model that suits a prompt wins, what must not be chosen is not, and what is asked is obeyed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from made_candidates import ANIME, GENERAL, OIL, PHOTO, chosen, lora, model, offered

from pipeline.errors import ModelError
from pipeline.learning.preferences import NO_PREFERENCES, Preferences, learn
from pipeline.learning.rated_pictures import RatedPicture, credit
from pipeline.prompting.rules import analyse
from pipeline.registry.records import ModelCard
from pipeline.selection.candidates import ModelCandidate, Offers, VaeCandidate
from pipeline.selection.choose import shortlist
from pipeline.selection.filters import TOO_LARGE
from pipeline.selection.wishes import Wishes

DEMO = ModelCandidate("demo", "demo", None, licence="Apache-2.0", is_demo=True, override="model=demo")


@pytest.fixture
def several() -> Offers:
    return offered(
        [model("general", GENERAL), model("camera", PHOTO), model("drawn", ANIME), model("canvas", OIL), DEMO]
    )


@pytest.mark.parametrize(
    ("prompt", "wins"),
    [
        ("a photo of a dog", "camera"),
        ("una foto de un perro", "camera"),
        ("a dog, anime", "drawn"),
        ("un faro en la tormenta, óleo", "canvas"),
    ],
)
def test_the_model_made_for_the_look_wins(several: Offers, prompt: str, wins: str) -> None:
    assert chosen(prompt, several).model.chosen == wins


@pytest.mark.parametrize("prompt", ["a dog on the beach", "a castle"])
def test_a_prompt_without_a_look_gets_a_general_or_photographic_model(several: Offers, prompt: str) -> None:
    assert chosen(prompt, several).model.chosen in ("general", "camera")


def test_a_look_that_nothing_is_made_for_gets_the_general_model(several: Offers) -> None:
    assert chosen("a papercraft of a dog", several).model.chosen in ("general", "canvas", "drawn", "camera")
    assert chosen(
        "a dog, stained glass", offered([model("a drawn", ANIME), model("general", GENERAL)])
    ).model.chosen == ("general")


def test_a_lora_for_the_look_draws_the_model_that_can_take_it() -> None:
    pixels = lora("pixels", ModelCard(tags=("style", "pixel art"), description="Pixel art.", base_model="SDXL 1.0",
                                      tag_counts=(("pixel art", 80),)))  # fmt: skip
    models = [model("a flux", GENERAL, "flux"), model("xl", GENERAL)]
    choice = chosen("pixel art of a castle", offered(models, [pixels]))
    assert (choice.model.chosen, [one.chosen for one in choice.loras]) == ("xl", ["pixels"])
    assert "a LoRA for it is here that it takes" in choice.model.reasons[0].words
    assert chosen("pixel art of a castle", offered(models, [pixels]), Wishes(max_loras=0)).model.chosen == "a flux"
    specialist = model("sprites", ModelCard(tags=("pixel art",), description="Pixel art."), "flux")
    assert chosen("pixel art of a castle", offered([*models, specialist], [pixels])).model.chosen == "sprites"


def test_the_look_counts_before_the_subject() -> None:
    known = ModelCard(tags=("photography", "castle"), description="Photographs of castles.")
    these = offered([model("castles", known), model("general", GENERAL)])
    assert chosen("a castle, oil painting", these).model.chosen == "general"
    assert chosen("a photo of a castle", these).model.chosen == "castles"


def test_what_the_prompt_excludes_and_what_it_quotes_count_for_nothing() -> None:
    card = ModelCard(tags=("photography",), trigger_words=("zorvex",))
    these = offered([model("named", card), model("camera", replace(PHOTO, thumbs_up=9))])
    assert chosen("zorvex, a photo of a dog", these).model.chosen == "named"
    assert chosen("a photo of a dog without zorvex", these).model.chosen == "camera"
    assert chosen('a photo of a dog, a sign "zorvex"', these).model.chosen == "camera"


def test_the_name_of_a_model_in_the_prompt_is_a_wish(several: Offers) -> None:
    these = offered([model("Zorvexia_v3", ANIME), model("camera", PHOTO)])
    assert chosen("a photo of a dog in zorvexia", these).model.chosen == "Zorvexia_v3"


def test_an_ordinary_word_names_no_model() -> None:
    these = offered([model("Lighthouse_v2", ANIME), model("camera", PHOTO)])
    assert chosen("a photo of a lighthouse", these).model.chosen == "camera"


def test_writing_goes_to_a_family_that_can_write() -> None:
    these = offered([model("a sdxl", PHOTO), model("writes", PHOTO, "flux", bytes=7 * 10**9)])
    assert chosen('a photo of a sign "OPEN"', these).model.chosen == "writes"
    assert chosen("a photo of a sign", these).model.chosen == "a sdxl"


def test_a_draft_goes_to_the_quick_model_and_high_quality_to_the_capable_one() -> None:
    these = offered([model("large", PHOTO, "flux", bytes=24 * 10**9), model("quick", PHOTO, "sd15", bytes=2 * 10**9)])
    assert chosen("a photo of a dog", these, Wishes(quality="draft")).model.chosen == "quick"
    assert chosen("a photo of a dog", these, Wishes(quality="high")).model.chosen == "large"


def test_tags_go_to_a_model_trained_on_tags() -> None:
    these = offered([model("a plain"), model("tagged", ModelCard(base_model="Illustrious"))])
    assert chosen("1girl, solo, long_hair, looking_at_viewer", these).model.chosen == "tagged"


def test_the_demo_model_wins_only_alone(several: Offers) -> None:
    assert chosen("a red house", offered([DEMO])).model.chosen == "demo"
    assert chosen("a red house", several).model.chosen != "demo"
    too_large = Wishes(fits=lambda _: TOO_LARGE)
    choice = chosen("a red house", several, too_large)
    assert choice.model.chosen == "demo"
    assert choice.excluded[TOO_LARGE].count == 4


def test_what_does_not_fit_is_left_out_and_counted_and_asked_for_only_once(several: Offers) -> None:
    asked: list[str] = []

    def fits(one: ModelCandidate) -> str | None:
        asked.append(one.name)
        return TOO_LARGE if one.name == "camera" else None

    wishes = Wishes(fits=fits)
    for _ in range(3):
        choice = chosen("a photo of a dog", several, wishes)
        assert choice.model.chosen == "general"
        assert choice.excluded[TOO_LARGE].examples == ("camera",)
    assert len(asked) == len(set(asked)) < 5


def test_families_licences_and_names_restrict_the_choice(several: Offers) -> None:
    free = model("free", replace(PHOTO, licence="apache-2.0"), "flux")
    paid = model("paid", replace(PHOTO, licence="cc-by-nc-4.0", thumbs_up=900))
    unknown = model("unknown", replace(PHOTO, thumbs_up=9_000))
    these = offered([free, paid, unknown])
    choice = chosen("a photo", these, Wishes(licence="commercial"))
    assert choice.model.chosen == "free"
    assert {reason: one.count for reason, one in choice.excluded.items()} == {
        "not licensed for commercial use": 1,
        "of a licence that is not known": 1,
    }
    assert chosen("a photo", these, Wishes(families=("flux",))).model.chosen == "free"
    assert chosen("a photo", these, Wishes(exclude=("Unknown", "paid"))).model.chosen == "free"


def test_incomplete_models_and_unknown_families_are_left_out() -> None:
    these = offered([model("half", PHOTO, complete=False), model("odd", PHOTO, None), model("whole", ANIME)])
    choice = chosen("a photo of a dog", these)
    assert choice.model.chosen == "whole"
    assert set(choice.excluded) == {"incomplete", "of no known family"}


def test_no_model_is_one_line_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"no model is here to choose from.*darkroom models"):
        chosen("a dog", offered([]))
    with pytest.raises(ModelError, match=r"1 of other families than you want \(camera\).*model=NAME"):
        chosen("a dog", offered([model("camera")]), Wishes(families=("flux",)))


def test_the_users_model_is_taken_and_only_loras_are_chosen(several: Offers) -> None:
    choice = chosen("a photo of a dog", several, Wishes(model="/models/drawn"))
    assert (choice.model.chosen, choice.model.source, choice.model.runner_up) == ("drawn", "asked", None)


def test_the_order_of_what_is_offered_changes_nothing_and_names_break_ties() -> None:
    twins = [model(name, PHOTO, sha256=name * 8) for name in ("c", "a", "b")]
    for seed in range(6):
        random.Random(seed).shuffle(twins)
        choice = chosen("a photo of a dog", offered(twins))
        assert (choice.model.chosen, choice.model.runner_up and choice.model.runner_up[0]) == ("a", "b")


def test_a_copy_is_neither_winner_nor_runner_up() -> None:
    copies = [model(name, PHOTO, sha256="ab" * 32) for name in ("first", "second")]
    choice = chosen("a photo of a dog", offered([*copies, model("other", ANIME)]))
    assert choice.model.chosen == "first"
    assert choice.model.runner_up is not None and choice.model.runner_up[0] == "other"
    assert choice.excluded["copies"].examples == ("second",)


def test_a_vae_is_chosen_only_where_one_is_better() -> None:
    vaes = [
        VaeCandidate("taesdxl", "/v/tae", "sdxl"),
        VaeCandidate("sdxl-vae-fp16-fix", "/v/fix", "sdxl"),
        VaeCandidate("other", "/v/other", "flux"),
    ]
    assert chosen("a photo", offered([model("flux", PHOTO, "flux")], vaes=vaes)).vae is None
    fixed = chosen("a photo", offered([model("xl", PHOTO)], vaes=vaes)).vae
    assert fixed is not None and fixed.chosen == "sdxl-vae-fp16-fix"
    assert chosen("a photo", offered([model("xl", PHOTO, own_vae=True)], vaes=vaes)).vae is None
    with pytest.raises(ModelError, match="incomplete"):
        chosen("a photo", offered([model("bare", PHOTO, "sd15", complete=False)], vaes=vaes))


def test_a_language_model_reorders_what_is_near_and_cannot_lift_what_is_far(several: Offers) -> None:
    these = offered([model("a", PHOTO), model("b", PHOTO), model("drawn", ANIME)])
    near = chosen("a photo of a dog", these, ranking=("/models/b", "/models/a"))
    assert (near.model.chosen, near.model.source) == ("b", "ollama")
    far = chosen("a photo of a dog", these, ranking=("/models/drawn", "/models/nowhere", "/models/b"))
    assert far.model.chosen != "drawn"


def test_the_shortlist_is_what_may_win_in_its_order(several: Offers) -> None:
    short = shortlist("a photo of a dog", analyse("a photo of a dog"), several, Wishes(), most=2)
    choice = chosen("a photo of a dog", several)
    assert choice.model.runner_up is not None
    assert [one.name for one in short] == [choice.model.chosen, choice.model.runner_up[0]]


def test_meaning_stands_for_words_where_an_encoder_was_asked() -> None:
    these = offered([model("a", PHOTO), model("b", PHOTO)])
    assert chosen("a photo of a dog", these, similarity={"/models/b": 0.61, "/models/a": 0.4}).model.chosen == "b"
    assert chosen("a photo of a dog", these, similarity={"/models/b": 0.19}).model.chosen == "a"


class Taste:
    """Ratings that prefer one name, in pictures of one look."""

    def __init__(self, name: str, look: str, effect: float = 1.0) -> None:
        self.said = (name, look, effect)

    def effect(self, kind: str, name: str, cell: str) -> float:
        return self.said[2] if (name, cell) == self.said[:2] else 0.0


def test_ratings_move_the_choice_for_their_look_alone_and_within_bounds(several: Offers) -> None:
    these = offered([model("a", PHOTO), model("b", PHOTO), model("drawn", ANIME)])
    choice = chosen("a photo of a dog", these, preferences=Taste("b", "photo"))
    assert (choice.model.chosen, choice.model.source) == ("b", "learned")
    assert chosen("a dog, anime", these, preferences=Taste("b", "photo")).model.chosen == "drawn"
    assert chosen("a photo of a dog", these, preferences=Taste("drawn", "photo", 99.0)).model.chosen == "a"
    assert chosen("a photo of a dog", these, preferences=Taste("drawn", "photo", float("nan"))).model.chosen == "a"


def test_a_dozen_ratings_move_the_choice_and_the_same_statistics_make_the_same() -> None:
    these = offered([model("a", PHOTO), model("b", PHOTO)])
    pictures = [
        RatedPicture(stars, 0.0, None, "photo", credit(name, 1.0, ()), "Euler", 5.0)
        for name, stars in [("a", 2), ("b", 5)] * 6
    ]
    learned = learn(pictures)
    choice = chosen("a photo of a dog", these, preferences=learned)
    assert (choice.model.chosen, choice.model.source) == ("b", "learned")
    again = Preferences.from_json(learned.to_json())
    assert again.hash == learned.hash and chosen("a photo of a dog", these, preferences=again) == choice
    assert chosen("a photo of a dog", these, preferences=learn(pictures[:1])).model.chosen == "b"
    assert chosen("a photo of a dog", these, preferences=NO_PREFERENCES).model.chosen == "a"


def test_a_prompt_that_names_a_lora_gets_a_model_that_can_take_it() -> None:
    these = offered(
        [model("a flux", PHOTO, "flux"), model("xl", PHOTO)],
        [lora("knitted", ModelCard(description="Knitted things.", base_model="SDXL 1.0"))],
    )
    assert chosen("a photo of a dog", these).model.chosen == "a flux"
    choice = chosen("a photo of a dog <lora:knitted:0.7>", these)
    assert choice.model.chosen == "xl"
    assert [(one.chosen, one.weight, one.source) for one in choice.loras] == [("knitted", 0.7, "asked")]
    assert choice.prompt.text == "a photo of a dog"
