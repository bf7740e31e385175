"""What cards claim is believed as far as it agrees with itself."""

from __future__ import annotations

import pytest

from pipeline.prompting.rules import analyse
from pipeline.registry.records import ModelCard
from pipeline.selection.claims import Claims, claims_of
from pipeline.selection.features import features


def claims(name: str, **card: object) -> Claims:
    return claims_of(name, ModelCard(**card), analyse, features())  # type: ignore[arg-type]


def anime(said: Claims) -> float:
    return said.trust.get(("style", "anime"), 0.0)


def test_training_tags_are_believed_before_the_card_and_the_card_before_the_name() -> None:
    trained = claims("x", tag_counts=(("anime", 90),))
    filed = claims("x", tags=("anime",))
    named = claims("anime_x")
    assert 1 >= anime(trained) > anime(filed) > anime(named) > 0


def test_sources_that_agree_are_believed_more_and_are_named() -> None:
    both = claims("x", tags=("anime",), description="An anime model.")
    assert anime(both) > anime(claims("x", tags=("anime",)))
    assert both.sources["style", "anime"] == ("tags", "description")


def test_a_stuffed_name_counts_for_nothing() -> None:
    stuffed = claims("anime_photo_oil_painting_comic_3d_cartoon")
    assert not stuffed.trust
    assert stuffed.doubts and not stuffed.is_described


def test_the_more_looks_a_source_claims_the_less_it_is_believed() -> None:
    everything = ("anime", "photo", "oil painting", "comic", "3d", "cartoon", "pixel art", "cyberpunk", "watercolor")
    assert anime(claims("x", tags=everything)) < 0.5 * anime(claims("x", tags=("anime",)))


@pytest.mark.parametrize(
    "true", [{"description": "Photographs of people."}, {"tag_counts": (("photo", 80), ("realistic", 70))}]
)
def test_tags_that_contradict_description_or_training_are_not_believed(true: dict[str, object]) -> None:
    said = claims("x", tags=("anime",), **true)
    assert anime(said) == 0
    assert said.trust["medium", "photo"] > 0.5
    assert "its tags contradict its" in said.doubts[0]


def test_a_look_that_was_not_trained_is_hardly_believed() -> None:
    assert anime(claims("x", tags=("anime",), tag_counts=(("cyberpunk", 90),))) < 0.3


def test_a_rare_training_tag_is_not_what_was_trained() -> None:
    assert anime(claims("x", tag_counts=(("photo", 100), ("anime", 2)))) == 0


def test_a_general_model_has_no_camp() -> None:
    assert not claims("x", description="Photographs, paintings and anime.").camps
    assert set(claims("x", description="Anime.").camps) == {"drawn"}
