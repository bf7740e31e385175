"""From ratings to preferences: what counts, how much, and that the same ratings always say the same."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import selection_learning
from pipeline.errors import ReadError
from pipeline.learning.kept_preferences import keep, kept
from pipeline.learning.preferences import MAX_EFFECT, NO_PREFERENCES, Preferences, Statistic, learn
from pipeline.learning.rated_pictures import GUIDANCE, LORA, MODEL, RatedPicture, credit, guidance_band, observations


def picture(stars: int | None, model: str = "one", look: str = "oil", **values: object) -> RatedPicture:
    made = RatedPicture(stars, 0.0, None, look, credit(model, 1.0, ()), "Euler", 5.0)
    return replace(made, **values)  # type: ignore[arg-type]


def neutral(count: int) -> list[RatedPicture]:
    """Ratings that make the usual number of stars 3 and say nothing of `one` and `two`."""
    return [picture(3, "other", "other") for _ in range(count)]


def test_nobody_has_rated() -> None:
    assert not NO_PREFERENCES and learn([]) == NO_PREFERENCES
    assert NO_PREFERENCES.effect(MODEL, "one", "oil") == 0
    assert learn([]).hash == hashlib.sha256(b'{"policy":1,"statistics":[]}').hexdigest()


def test_the_formulas_by_hand() -> None:
    # Two cells of one model: 4 ratings of +1 in oil, 2 of -1 in ink.
    learned = Preferences((Statistic(MODEL, "one", "oil", 40, 40), Statistic(MODEL, "one", "ink", 20, -20)))
    mean = 2 / (6 + 3)
    sd = 0.7 * math.sqrt(1 / (4 + 3) + 1 / (6 + 3))
    unknown = 0.7 * math.sqrt(1 / 3 + 1 / 3)
    assert learned.effect(MODEL, "one", "oil") == pytest.approx(mean + (4 - 4 * mean) / 7 + 0.5 * (sd - unknown))
    assert learned.effect(MODEL, "one", "ink") < 0 < learned.effect(MODEL, "one", "oil")
    assert learned.effect(MODEL, "two", "oil") == 0, "never rated"
    assert learned.ratings(MODEL, "one", "oil") == 4 and learned.ratings(MODEL, "one") == 6


def test_what_is_liked_rises_and_what_is_not_falls_most_in_its_own_look() -> None:
    rated = [picture(5, "one", "oil") for _ in range(8)] + [picture(1, "two", "oil") for _ in range(8)]
    learned = learn([*neutral(5), *rated])
    one, two = (learned.effect(MODEL, name, "oil") for name in ("one", "two"))
    assert one > 0.5 and two < -0.5
    assert 0 < learned.effect(MODEL, "one", "ink") < one, "what is liked in oil is expected to be liked elsewhere, less"


def test_a_rater_who_gives_only_fours_says_nothing() -> None:
    ratings = [picture(4, name, "oil") for name in ("one", "two") * 20]
    learned = learn(ratings)
    assert learned.effect(MODEL, "one", "oil") == pytest.approx(learned.effect(MODEL, "two", "oil"), abs=0.02)
    assert abs(learned.effect(MODEL, "one", "oil")) < 0.35


def test_the_first_rating_counts_from_three_stars() -> None:
    ((first, *_),) = observations([picture(5)])
    assert first.stars == pytest.approx(5 - (5 + 4 * 3) / 5)


def test_what_the_rules_expected_is_no_news() -> None:
    scores = [replace(picture(3), score=2.0) for _ in range(5)]
    *_, expected = observations([*scores, replace(picture(4), score=3.2)])
    *_, surprising = observations([*scores, replace(picture(4), score=2.0)])
    assert expected[0].stars < surprising[0].stars
    *_, bounded = observations([*scores, replace(picture(4), score=1e9)])
    assert bounded[0].stars == pytest.approx(surprising[0].stars - 1.5)


def test_a_pick_counts_around_the_mean_of_its_group() -> None:
    best = picture(None, "one", verdict=1.0, group_mean=4.0)
    others = [picture(None, "two", verdict=-1 / 3, group_mean=4.0) for _ in range(3)]
    *_, seen, one, two, three = observations([*neutral(5), best, *others])
    assert (seen[0].weight, seen[0].stars) == (1.0, 1.5)
    assert all((lost[0].weight, lost[0].stars) == (pytest.approx(1 / 3), 0.5) for lost in (one, two, three))
    learned = learn([*neutral(5), replace(best, group_mean=None), *(replace(one, group_mean=None) for one in others)])
    assert learned.effect(MODEL, "one", "oil") > learned.effect(MODEL, "two", "oil")


def test_credit_is_split_by_parts() -> None:
    shares = credit("base", 3.0, [("ink", 1.0), ("worse", -2.0)])
    assert shares == ((MODEL, "base", 0.75), (LORA, "ink", 0.25), (LORA, "worse", 0.0))
    assert credit("base", 0.0, [("ink", 0.0)]) == ((MODEL, "base", 1.0),)
    learned = learn([*neutral(5), *(replace(picture(5), shares=shares) for _ in range(4))])
    assert learned.ratings(MODEL, "base") == pytest.approx(3, abs=0.1)
    assert learned.ratings(LORA, "ink") == pytest.approx(1, abs=0.1) and not learned.ratings(LORA, "worse")


def test_old_ratings_fade_by_later_ones_not_by_time() -> None:
    learned = learn([picture(5), *neutral(500)])
    assert learned.ratings(MODEL, "one") == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("value", "band"), [(0.0, "below 1.5"), (1.5, "1.5 to 3"), (4.9, "3 to 5"), (5.0, "5 to 7"), (30.0, "9 and more")]
)
def test_guidance_is_learned_in_bands(value: float, band: str) -> None:
    assert guidance_band(value) == band
    assert learn([picture(4, guidance_scale=value)]).ratings(GUIDANCE, band) == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["a", "b"]), st.sampled_from(["oil", "ink"]), st.floats(-99, 99)),
        max_size=60,
    )
)
def test_effects_are_bounded_and_survive_being_written(rated: list[tuple[int, str, str, float]]) -> None:
    learned = learn([picture(stars, model, look, score=score) for stars, model, look, score in rated])
    again = Preferences.from_json(learned.to_json())
    assert again == learned and again.hash == learned.hash
    for name in ("a", "b", "c"):
        for look in ("oil", "ink", "plain"):
            effect = learned.effect(MODEL, name, look)
            assert -MAX_EFFECT <= effect <= MAX_EFFECT and effect == again.effect(MODEL, name, look)


def test_the_hash_is_that_of_the_statistics_in_any_order() -> None:
    one, two = Statistic(MODEL, "one", "oil", 10, 5), Statistic(LORA, "é", "ink", 10, -5)
    assert Preferences((one, two)).hash == Preferences((two, one)).hash
    assert Preferences((one, two)).hash == hashlib.sha256(Preferences((one, two)).to_json().encode()).hexdigest()
    assert Preferences((one, replace(two, stars=-4))).hash != Preferences((one, two)).hash


def test_preferences_are_kept_under_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    learned = learn([picture(5), picture(2, "two")])
    path = keep(learned)
    assert keep(learned) == path and kept(learned.hash) == learned and path.stat().st_size < 2_000
    path.write_bytes(path.read_bytes() + b" ")
    for hash, why in ((learned.hash, "damaged"), ("0" * 64, "not here"), ("../../etc", "no hash")):
        with pytest.raises(ReadError, match=why):
            kept(hash)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"policy":1}', '{"policy":1,"statistics":{}}', "[" * 100_000),
        '{"policy":2,"statistics":[]}',
        '{"policy":1,"statistics":[["model","a","oil",1]]}',
        '{"policy":1,"statistics":[["model","a","oil",0,1]]}',
        '{"policy":1,"statistics":[["taste","a","oil",1,1]]}',
        '{"policy":1,"statistics":[["model","a","oil",1,"many"]]}',
    ],
)
def test_what_is_no_statistics_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ReadError) as error:
        Preferences.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_simulated_users_get_what_they_like() -> None:
    regret = selection_learning.simulate()
    assert regret.learned <= selection_learning.MOST_OF_RULES * regret.rules
    assert regret.learned < regret.best_single
