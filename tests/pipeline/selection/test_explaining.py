"""What an explanation says is true: recomputed without what it names, the choice changes as it said."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import pytest
from made_candidates import ANIME, GENERAL, PHOTO, chosen, lora, model, offered

from benchmarks.made_registry import Made, made_prompts
from pipeline.prompting.rules import analyse
from pipeline.registry.records import ModelCard
from pipeline.selection.candidates import Offers
from pipeline.selection.choice import Choice
from pipeline.selection.choose import choose
from pipeline.selection.explain import paragraph
from pipeline.selection.wishes import Wishes

CASES = random.Random(14).sample(made_prompts(), k=200)
FLIP = re.compile(r"without '(.+)': (.+)")


@pytest.mark.slow
def test_each_flip_flips(made_offers: Offers) -> None:
    said = 0
    for case in CASES:
        choice = choose(case.text, analyse(case.text), made_offers, Wishes())
        if found := FLIP.fullmatch(choice.model.flip or ""):
            said += 1
            at = case.text.casefold().find(found[1].casefold())
            without = f"{case.text[:at]}{case.text[at + len(found[1]) :]}"
            assert choose(without, analyse(without), made_offers, Wishes()).model.chosen == found[2]
            assert found[2] != choice.model.chosen
    assert said > 100


@pytest.mark.slow
def test_each_reason_is_worth_what_it_says(made: Made, made_offers: Offers) -> None:
    checked = 0
    for case in CASES[:60]:
        choice = choose(case.text, analyse(case.text), made_offers, Wishes())
        assert choice.model.runner_up is not None
        pair = (choice.model.chosen, choice.model.runner_up[0])
        others = tuple(one.name for one in made_offers.models if one.name not in pair)
        against = (choice.model.against,) if choice.model.against else ()
        for reason in (*choice.model.reasons, *against):
            weights = {**made_offers.rules.weights, reason.feature: 0.0}
            without = replace(made_offers, rules=replace(made_offers.rules, weights=weights), memo={})
            again = choose(case.text, analyse(case.text), without, Wishes(exclude=others))
            assert again.model.runner_up is not None
            scores = {again.model.chosen: again.model.score, again.model.runner_up[0]: again.model.runner_up[1]}
            margin = choice.model.score - choice.model.runner_up[1]
            assert margin - (scores[pair[0]] - scores[pair[1]]) == pytest.approx(reason.points, abs=1e-5)
            checked += 1
    assert checked > 60


def test_the_winner_leads_by_the_sum_of_all_differences_and_at_most_three_are_said(made_offers: Offers) -> None:
    for case in CASES[:50]:
        model = choose(case.text, analyse(case.text), made_offers, Wishes()).model
        assert model.runner_up is not None
        assert model.score >= model.runner_up[1]
        assert len(model.reasons) <= 3
        assert [one.points for one in model.reasons] == sorted((one.points for one in model.reasons), reverse=True)
        assert all(one.points > 0 for one in model.reasons)
        assert model.against is None or model.against.points < 0


@pytest.mark.slow
def test_the_same_prompt_is_chosen_for_alike_every_time(made: Made, made_offers: Offers) -> None:
    def everything(these: Offers) -> list[str]:
        choices = [choose(case.text, analyse(case.text), these, Wishes()) for case in CASES[:40]]
        return [json.dumps(choice.to_json()) for choice in choices]

    shuffled = replace(made, models=made.models[::-1], loras=made.loras[::-1])
    assert everything(made_offers) == everything(made_offers) == everything(shuffled.offers(analyse))


def example() -> Choice:
    these = offered(
        [model("camera", PHOTO), model("drawn", ANIME, override="model=custom model.source=drawn")],
        [
            lora("papers", ModelCard(tags=("style", "papercraft"), description="papercraft", trigger_words=("zorve",))),
            lora("other papers", ModelCard(tags=("style", "papercraft"), description="papercraft", base_model="Pony")),
        ],
    )  # fmt: skip
    return chosen("a photo of a dog, papercraft <lora:paper:1>", these)


def test_a_paragraph_says_all_of_it_in_sentences() -> None:
    text = paragraph(example())
    for part in (
        "camera (",
        "before drawn (",
        "'photo' is asked for",
        "To take drawn: model=custom model.source=drawn.",
        "LoRA papers at 0.8, with 'zorve' in the prompt: 'papercraft' is asked for; its tags and description say so",
        "Left out as LoRAs for other models: 1 (other papers).",
        "Note: <lora:paper> is not known here: not applied; like it: papers.",
    ):
        assert part in text
    assert "\n" not in text


def test_a_single_candidate_and_the_users_own_are_said_plainly() -> None:
    alone = offered([model("camera", PHOTO)])
    assert paragraph(chosen("a dog", alone)) == "camera: no other model may be taken here."
    asked = Wishes(model="/models/camera")
    assert paragraph(chosen("a dog", alone, asked)) == "camera, as you set it."


def test_the_record_has_no_reference_and_the_keys_of_the_format() -> None:
    said = example().to_json()
    assert "/models/" not in json.dumps(said) and "/loras/" not in json.dumps(said)
    assert set(said["model"]) == {
        "chosen", "score", "source", "runner_up", "reasons", "against", "flip", "override",
    }  # fmt: skip


def test_ratings_that_decided_are_said() -> None:
    class Taste:
        def effect(self, kind: str, name: str, cell: str) -> float:
            return 0.6 if name == "b" else 0.0

    these = offered([model("a", GENERAL), model("b", GENERAL)])
    choice = chosen("a dog", these, preferences=Taste())
    assert choice.model.flip == "without your ratings: a"
    assert "because of your ratings: your ratings speak for it (in the look plain) (+0.60)" in paragraph(choice)
