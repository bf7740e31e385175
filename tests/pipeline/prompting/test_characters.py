"""Characters: every pair that constraints allow is shown, as counted here by brute force, in balance, most first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, pairwise, product
from typing import Any

import covertable
import pytest

from pipeline.errors import ConfigError
from pipeline.prompting import characters
from pipeline.prompting.character_values import Vocabulary, changed
from pipeline.prompting.characters import Characters, draw_characters, known_vocabulary

ATTRIBUTES = {
    "hair": ["bald", "short", "long"],
    "colour": ["none", "red", "grey"],
    "beard": ["none", "full"],
    "place": ["sea", "hill", "town", "barn"],
}
CONSTRAINTS = [
    {"if": {"hair": ["bald"]}, "then": {"colour": ["none"]}},
    {"if": {"colour": ["none"]}, "then": {"hair": ["bald"]}},
    {"if": {"place": ["sea"], "beard": ["full"]}, "then": {"hair": ["long"]}},
]


def vocabulary(attributes: Mapping[str, Any] = ATTRIBUTES, constraints: Any = CONSTRAINTS) -> Vocabulary:
    return changed(Vocabulary("", {}), attributes=attributes, constraints=constraints)


def allowed_rows() -> list[tuple[str, ...]]:
    """All combinations that the constraints above allow, written out independently of how the code checks them."""
    return [
        (hair, colour, beard, place)
        for hair, colour, beard, place in product(*ATTRIBUTES.values())
        if (hair == "bald") == (colour == "none") and not (place == "sea" and beard == "full" and hair != "long")
    ]


def pairs_of(rows: Any) -> set[Any]:
    return {pair for row in rows for pair in combinations(enumerate(row), 2)}


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_that_constraints_allow_is_shown_and_nothing_that_they_forbid(seed: int) -> None:
    made = draw_characters(vocabulary(), seed=seed)
    assert set(made.rows) <= set(allowed_rows())
    assert pairs_of(made.rows) == pairs_of(allowed_rows())
    assert made.pairs == made.covered == len(pairs_of(allowed_rows()))
    assert made.complete_at == len(made.rows) < len(allowed_rows())
    assert made.coverage == f"{len(made.rows)} rows, pairs {made.pairs} of {made.pairs}"


@pytest.mark.parametrize("kept", [0, 5])
def test_pairs_that_the_library_leaves_out_get_rows_of_their_own(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = covertable.make
    forbidden = {"hair": "bald", "colour": "red", "beard": "none", "place": "sea"}

    def careless(*arguments: Any, **options: Any) -> Any:
        return [*real(*arguments, **options)[:kept], forbidden]

    monkeypatch.setattr(covertable, "make", careless)
    made = draw_characters(vocabulary())
    assert tuple(forbidden.values()) not in made.rows
    assert pairs_of(made.rows) == pairs_of(allowed_rows()) and made.covered == made.pairs


def test_a_seed_gives_the_same_rows_each_time_and_another_seed_other_ones() -> None:
    first = draw_characters(vocabulary(), 40, seed=1)
    assert first == draw_characters(vocabulary(), 40, seed=1)
    assert first.rows != draw_characters(vocabulary(), 40, seed=2).rows


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    sizes = [draw_characters(vocabulary(), count) for count in (4, None, 20, 26)]
    assert [len(one.rows) for one in sizes[::2]] == [4, 20]
    for shorter, longer in pairwise(sizes):
        assert longer.rows[: len(shorter.rows)] == shorter.rows
    short = sizes[0]
    assert short.covered == len(pairs_of(short.rows)) < short.pairs
    assert short.coverage.endswith(f"of {short.pairs}; all of them with {short.complete_at} rows")


@pytest.fixture(scope="module")
def known() -> Characters:
    return draw_characters(known_vocabulary(), 600)


@pytest.mark.slow
def test_known_attributes_show_every_pair_and_stay_in_balance(known: Characters) -> None:
    assert known.covered == known.pairs == len(pairs_of(known.rows)) and len(set(known.rows)) == 600
    assert known.complete_at < 100
    free = {"age", "build", "skin", "clothing", "view", "expression"}  # no constraint of theirs binds a whole attribute
    for index, (name, values) in enumerate(known.vocabulary.attributes.items()):
        for rows, slack in ((known.rows, 2), (known.rows[: known.complete_at], 4)):
            counts = Counter(row[index] for row in rows)
            assert set(counts) == set(values)
            if name in free:
                assert max(counts.values()) - min(counts.values()) <= slack, name


def test_early_rows_show_most(known: Characters) -> None:
    half = known.rows[: known.complete_at // 2]
    assert len(pairs_of(half)) > 0.7 * known.pairs
    gains = [len(pairs_of(known.rows[: n + 1])) - len(pairs_of(known.rows[:n])) for n in range(known.complete_at)]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0


def test_known_characters_are_adults_and_their_prompts_read_well(known: Characters) -> None:
    assert {tag for index in range(600) for tag in known.tags(index) if tag.startswith("age:")} == {
        f"age:{decade}" for decade in ("twenties", "thirties", "forties", "fifties", "sixties", "seventies")
    }
    for index, row in enumerate(known.rows):
        prompt = known.prompt(index)
        assert not set("{}[]") & set(prompt) and "  " not in prompt and ", ," not in prompt
        assert prompt == prompt.strip(" ,")
        by_name = dict(zip(known.vocabulary.attributes, row, strict=True))
        assert ("shaved head" in prompt) == (by_name["hair_colour"] == "none")
        assert known.tags(index)[0] == f"age:{by_name['age']}"


def test_a_template_of_ones_own_leaves_out_parts_without_phrases() -> None:
    own = changed(
        Vocabulary("", {}),
        "[{hat} on ]a sailor[, {mood}, {place}] (bright:1.2) [soft]",
        {"hat": {"cap": "a cap", "none": ""}, "mood": {"plain": "", "glad": "smiling"}, "place": {"sea": ""}},
    )
    assert own.prompt(("cap", "glad", "sea")) == "a cap on a sailor, smiling, (bright:1.2) [soft]"
    assert own.prompt(("none", "plain", "sea")) == "a sailor (bright:1.2) [soft]"


def test_attributes_are_added_replaced_and_left_out() -> None:
    own = changed(known_vocabulary(), attributes={"place": ["in a barn", "at sea"], "build": None, "hat": ["red hat"]})
    made = draw_characters(own)
    assert made.covered == made.pairs
    assert {tag for index in range(len(made.rows)) for tag in made.tags(index) if tag.startswith("place:")} == {
        "place:in a barn",
        "place:at sea",
    }
    assert "build" not in own.attributes
    assert all(made.prompt(index).endswith(", red hat") for index in range(len(made.rows)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"attributes": {"Hair": ["a"]}}, "attributes.Hair: must be a name of small letters"),
        (
            {"attributes": {"bild": None}},
            "attributes.bild: is null, but there is no such attribute; did you mean 'build'?",
        ),
        ({"attributes": {"mood": []}}, "attributes.mood: is empty; null leaves the attribute out"),
        ({"attributes": {"mood": "calm"}}, "attributes.mood: must be a list of values"),
        ({"attributes": {"mood": 5}}, "attributes.mood: must be a list of values"),
        ({"attributes": {"mood": ["calm", "calm"]}}, "attributes.mood: 'calm': is there twice"),
        ({"attributes": {"mood": [True]}}, "attributes.mood: True: must be text; put it in quotes"),
        ({"attributes": {"mood": ["a, b"]}}, "takes no commas"),
        ({"attributes": {"mood": {"a": 3}}}, "attributes.mood.a: must be text; put it in quotes (got 3)"),
        ({"attributes": {"mood": {"a": "\x1b[0m"}}}, "attributes.mood.a: holds U+001B"),
        ({"attributes": {"mood": ["a" * 61]}}, "is longer than 60 characters"),
        ({"template": "{age} {agee}"}, "template: {agee}: there is no such attribute; did you mean 'age'?"),
        ({"template": "{age}"}, "template: lacks {build}, {skin}"),
        ({"constraints": [{"if": {}}]}, "constraints[0]: must have the keys if and then"),
        ({"constraints": [{"if": {}, "then": {"age": ["forties"]}}]}, "constraints[0].if: must be a mapping"),
        (
            {"constraints": [{"if": {"pose": ["siting"]}, "then": {"age": ["forties"]}}]},
            "constraints[0].if.pose: 'siting': there is no such value; did you mean 'sitting'?",
        ),
        ({"constraints": [{"if": {"pse": ["a"]}, "then": {"age": ["forties"]}}]}, "did you mean 'pose'?"),
        (
            {"constraints": [{"if": {"pose": 3}, "then": {"age": ["forties"]}}]},
            "constraints[0].if.pose: must be a list",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(known_vocabulary(), **change)
    assert len([line for line in caught.value.faults if fault in line]) == 1
    assert all("\n" not in line for line in caught.value.faults)


def test_a_value_that_constraints_leave_without_a_row_is_named() -> None:
    never = [{"if": {"hair": ["bald"]}, "then": {"colour": ["red"]}}]
    with pytest.raises(ConfigError, match=r"attributes\.hair\.bald: fits no row"):
        draw_characters(vocabulary(constraints=[*CONSTRAINTS, *never]))


def test_constraints_that_leave_nothing_are_refused() -> None:
    none = [
        {"if": {"beard": [beard]}, "then": {"hair": [hair]}} for beard in ("none", "full") for hair in ("long", "short")
    ]
    with pytest.raises(ConfigError, match="no row keeps all of them"):
        draw_characters(vocabulary(constraints=none))


def test_too_many_pairs_are_refused_before_they_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"a{number}": [f"v{value}" for value in range(10)] for number in range(20)}
    with pytest.raises(ConfigError, match=f"19,000 pairs of values, more than {characters.MAX_PAIRS:,}"):
        draw_characters(vocabulary(many, []))
