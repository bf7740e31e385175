"""Over 200 models and 2,000 LoRAs with known answers: what suits is chosen, lies are not."""

from __future__ import annotations

import pytest

from benchmarks.made_registry import Made, MadePrompt, made_prompts
from pipeline.prompting.rules import analyse
from pipeline.selection.candidates import Offers
from pipeline.selection.choice import Choice
from pipeline.selection.choose import choose
from pipeline.selection.wishes import Wishes

FITTING = 0.90
LIES = 0.02


@pytest.fixture(scope="module")
def choices(made_offers: Offers) -> list[tuple[MadePrompt, Choice]]:
    return [(prompt, choose(prompt.text, analyse(prompt.text), made_offers, Wishes())) for prompt in made_prompts()]


def test_a_fitting_model_is_within_the_first_two(made: Made, choices: list[tuple[MadePrompt, Choice]]) -> None:
    reference = {model.name: model.reference for model in made.models}
    found = 0
    for prompt, choice in choices:
        assert choice.model.runner_up is not None
        first = (choice.model.reference, reference[choice.model.runner_up[0]])
        found += any(made.suits(one, prompt) for one in first)
    assert found / len(choices) >= FITTING


def test_lies_are_hardly_ever_chosen(made: Made, choices: list[tuple[MadePrompt, Choice]]) -> None:
    models = [choice.model.reference for _, choice in choices if made.truth[choice.model.reference].lie]
    assert len(models) / len(choices) <= LIES
    loras = [(prompt, made.truth[lora.reference]) for prompt, choice in choices for lora in choice.loras]
    lies = [truth for prompt, truth in loras if truth.lie and truth.look not in prompt.looks]
    assert len(lies) / len(choices) <= LIES


@pytest.mark.slow
def test_no_lora_of_another_family_or_across_pony(made: Made, made_offers: Offers) -> None:
    loras = {lora.reference: lora for lora in made.loras}
    models = {model.reference: model for model in made.models}
    applied = 0
    general = [model.reference for model in made.models if made.truth[model.reference].look == "general"]
    foreign = [lora.name for lora in made.loras if made.truth[lora.reference].lie == "other base"][:5]
    for number, prompt in enumerate(made_prompts()):
        text = f"{prompt.text} <lora:{foreign[number % 5]}:0.8>"
        for wishes in (Wishes(), Wishes(model=general[number % 20])):
            choice = choose(text, analyse(text), made_offers, wishes)
            model = models[choice.model.reference]
            for lora in choice.loras:
                made_for = loras[lora.reference]
                applied += 1
                assert made_for.family == model.family
                assert (made_for.convention == "pony") == (model.convention == "pony")
    assert applied > 100


def test_triggers_bring_their_lora_and_a_model_that_takes_it(made: Made, made_offers: Offers) -> None:
    characters = [
        (lora, made.truth[lora.reference].trigger)
        for lora in made.loras
        if made.truth[lora.reference].look == "character"
    ]
    found = 0
    for _, trigger in characters:
        text = f"{trigger} on the beach"
        choice = choose(text, analyse(text), made_offers, Wishes())
        found += any(made.truth[lora.reference].trigger == trigger for lora in choice.loras)
    assert found / len(characters) >= 0.95


@pytest.mark.slow
def test_a_style_that_the_model_lacks_comes_by_a_lora_that_has_it(made: Made, made_offers: Offers) -> None:
    general = [model.reference for model in made.models if made.truth[model.reference].look == "general"]
    right = added = 0
    for reference in general[:6]:
        for prompt in made_prompts():
            choice = choose(prompt.text, analyse(prompt.text), made_offers, Wishes(model=reference))
            if not prompt.needs_text and "general" not in prompt.looks:
                for lora in choice.loras:
                    added += 1
                    right += made.truth[lora.reference].look in prompt.looks
    assert added > 200
    assert right / added >= 0.95
