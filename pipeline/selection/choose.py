"""Chooses model, VAE and LoRAs for a prompt by rules: a pure function of prompt, offers, wishes and ratings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pipeline.errors import ModelError
from pipeline.learning.preferences import NO_PREFERENCES
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.lora_tags import LoraTag, blanked, lora_tags, without_tags
from pipeline.prompting.proposals import Source, TextChoice
from pipeline.selection.asked import Asked, Span, asked_by
from pipeline.selection.candidates import ModelCandidate, Offers, shown
from pipeline.selection.choice import Choice, Excluded, ModelChoice, Reason, RunnerUp, VaeChoice
from pipeline.selection.filters import (
    COPIES,
    WRONG_BASE,
    ExcludedNames,
    allowed_loras,
    allowed_models,
    counted,
)
from pipeline.selection.loras import ChosenLoras, LoraScorer, choose_loras, find_tagged
from pipeline.selection.reasons import words_for_model
from pipeline.selection.scoring import Points, Preferences, Scorer, Scores, Told
from pipeline.selection.wishes import Wishes

_MOST_REASONS = 3
_MOST_PHRASES = 24
"""Phrases that are left out, one at a time, to see what flips; longer prompts have their first ones tried."""

_MOST_CHOOSERS = 32
"""Different wishes of one plan whose sums are kept."""

_WORTH_SAYING = 0.05
"""Points below which a second or third reason only distracts."""

_NO_DIFFERENCE = 0.0005

_FOR_16_BITS = re.compile(r"fp16[\s_-]*fix|fix[\s_-]*fp16", re.IGNORECASE)
"""The names of repaired VAEs of SDXL, whose own one overflows in 16 bits and is decoded in 32."""


@dataclass(slots=True)
class _Chooser:
    """What is the same for all prompts under the same wishes and ratings."""

    wishes: Wishes
    preferences: Preferences
    models: Scorer
    loras: LoraScorer
    excluded: dict[str, Excluded]
    faults: dict[int, str | None]


def choose(
    prompt: str,
    analysis: PromptAnalysis,
    offers: Offers,
    wishes: Wishes,
    preferences: Preferences = NO_PREFERENCES,
    similarity: Mapping[str, float] | None = None,
    ranking: Sequence[str] = (),
) -> Choice:
    """The model, VAE and LoRAs for a prompt, and why. Settings and texts are left as they are, but for LoRA tags.

    `similarity` is that of the prompt's meaning to models and LoRAs by reference; without it, rare words in common
    stand for it. `ranking` has references of models in the order of a language model: those of `shortlist`. Raises
    `ModelError` where no model may be taken.
    """
    chooser = _chooser(offers, wishes, preferences)
    tags, asked = _asked(prompt, analysis, wishes)
    named = find_tagged(offers, tags, chooser.loras.allowed)
    told = Told(similarity, ranking, tuple(dict.fromkeys(place for _, places in named for place in places)))
    scores = chooser.models.scores(asked, told)
    excluded = ExcludedNames(list)
    first = _first(chooser, scores, 2, excluded)
    if not first:
        raise ModelError(_nothing_fits(offers, {**chooser.excluded, **counted(excluded)}))
    winner = first[0]
    model, claims = offers.models[winner], offers.model_index.claims[winner]
    applied, warnings = _tags_that_fit(offers, named, model, chooser.loras)
    loras = ChosenLoras()
    if wishes.set_loras and wishes.max_loras:
        loras = choose_loras(chooser.loras, asked, told, model, claims, applied)
        for place in loras.wrong_base:
            excluded[WRONG_BASE].append(offers.loras[place].name)
    own = without_tags(prompt, tags)
    return Choice(
        model=_explained(chooser, asked, told, scores, first),
        prompt=TextChoice(own, own),
        negative_prompt=TextChoice("", ""),
        loras=loras.loras,
        vae=_vae(model, offers),
        excluded={**chooser.excluded, **counted(excluded)},
        warnings=(*warnings, *loras.warnings),
    )


def shortlist(
    prompt: str,
    analysis: PromptAnalysis,
    offers: Offers,
    wishes: Wishes,
    preferences: Preferences = NO_PREFERENCES,
    most: int = 8,
) -> tuple[ModelCandidate, ...]:
    """The models that may win, the best first: what a language model is offered to rank."""
    chooser = _chooser(offers, wishes, preferences)
    _, asked = _asked(prompt, analysis, wishes)
    scores = chooser.models.scores(asked, Told())
    return tuple(offers.models[place] for place in _first(chooser, scores, most, None))


def _asked(prompt: str, analysis: PromptAnalysis, wishes: Wishes) -> tuple[tuple[LoraTag, ...], Asked]:
    """The LoRA tags that are read in a prompt, and what it asks for beside them."""
    tags = lora_tags(prompt) if wishes.tags and wishes.set_loras and wishes.max_loras else ()
    return tags, asked_by(blanked(prompt, tags), analysis, wishes.quality)


def _chooser(offers: Offers, wishes: Wishes, preferences: Preferences) -> _Chooser:
    known = cast("list[_Chooser]", offers.memo.setdefault("choosers", []))
    for one in known:
        if one.wishes == wishes and one.preferences is preferences:
            return one
    excluded = ExcludedNames(list)
    models = allowed_models(offers, wishes, excluded)
    loras = allowed_loras(offers, wishes, excluded)
    for name in offers.copies:
        excluded[COPIES].append(name)
    chooser = _Chooser(
        wishes=wishes,
        preferences=preferences,
        models=Scorer(offers, offers.rules, wishes, preferences, models, loras),
        loras=LoraScorer(offers, offers.rules, wishes, preferences, loras),
        excluded=counted(excluded),
        faults={},
    )
    known.insert(0, chooser)
    del known[_MOST_CHOOSERS:]
    return chooser


def _first(chooser: _Chooser, scores: Scores, most: int, excluded: ExcludedNames | None) -> list[int]:
    """The places of the best models that can be loaded here; the demo model only after all others."""
    models, wishes = chooser.models.offers.models, chooser.wishes
    found: list[int] = []
    demos: list[int] = []
    for place in scores.best_first():
        if models[place].is_demo:
            demos.append(place)
            continue
        if place not in chooser.faults:
            chooser.faults[place] = None if wishes.model is not None else wishes.fits(models[place])
        reason = chooser.faults[place]
        if reason is None:
            found.append(place)
            if len(found) == most:
                return found
        elif excluded is not None:
            excluded[shown(reason)].append(models[place].name)
    return found or demos


def _nothing_fits(offers: Offers, excluded: Mapping[str, Excluded]) -> str:
    if not offers.models:
        return (
            "no model is here to choose from: fetch one (darkroom models download), add a folder of them "
            "(darkroom models scan FOLDER), or name one (model=NAME)"
        )
    counts = "; ".join(f"{one.count} {reason} ({', '.join(one.examples)})" for reason, one in excluded.items())
    return f"no model here may be taken: {counts}; relax selection.*, or name one (model=NAME)"


def _tags_that_fit(
    offers: Offers, named: Sequence[tuple[LoraTag, tuple[int, ...]]], model: ModelCandidate, loras: LoraScorer
) -> tuple[list[tuple[LoraTag, int]], tuple[str, ...]]:
    """The tags whose LoRA the model can take, and a line for each of the others."""
    applied: list[tuple[LoraTag, int]] = []
    warnings: dict[str, None] = {}
    for tag, places in named:
        if tag.fault:
            warnings[f"{shown(tag.fault, 200)}; not applied"] = None
            continue
        fitting = [place for place in places if loras.distance(place, model) is not None]
        if fitting:
            applied.append((tag, fitting[0]))
            continue
        said = shown(tag.name, 60)
        near = loras.nearest_names(tag.name, model)
        hint = f"; like it: {', '.join(near)}" if near else ""
        if places:
            made_for = shown(offers.loras[places[0]].card.base_model or offers.loras[places[0]].family or "others", 40)
            warnings[f"<lora:{said}> is made for {made_for}, not for {shown(model.name)}: not applied{hint}"] = None
        else:
            warnings[f"<lora:{said}> is not known here: not applied{hint}"] = None
    return applied, tuple(warnings)


def _explained(chooser: _Chooser, asked: Asked, told: Told, scores: Scores, first: Sequence[int]) -> ModelChoice:
    """The winner against the runner-up, in the numbers that decided."""
    offers = chooser.models.offers
    winner = first[0]
    model = offers.models[winner]
    points = scores.points(winner)
    if chooser.wishes.model is not None:
        return ModelChoice(shown(model.name), model.reference, scores.total(winner), "asked", override=_override(model))
    other = first[1] if len(first) > 1 else None
    beaten = scores.points(other) if other is not None else {}
    reasons, against = _differences(chooser, asked, winner, other, points, beaten)
    return ModelChoice(
        chosen=shown(model.name),
        reference=model.reference,
        score=scores.total(winner),
        source=_source(scores, first),
        runner_up=None if other is None else RunnerUp(shown(offers.models[other].name), scores.total(other)),
        reasons=reasons,
        against=against,
        flip=_flip(chooser, asked, told, scores, first),
        override=_override(offers.models[other] if other is not None else model),
    )


def _differences(
    chooser: _Chooser, asked: Asked, winner: int, other: int | None, points: Points, beaten: Points
) -> tuple[tuple[Reason, ...], Reason | None]:
    """The features in which the winner leads by most, and the one in which the runner-up leads by most."""
    offers = chooser.models.offers

    def reason(feature: str, gain: float, leads: int, trails: int | None) -> Reason:
        def shares(axis: str, value: str) -> tuple[float, float]:
            column = chooser.models.shares(axis, value)
            return column[leads], 0.0 if trails is None else column[trails]

        model, claims = offers.models[leads], offers.model_index.claims[leads]
        return Reason(feature, words_for_model(feature, model, claims, asked, offers.rules, shares), gain)

    gains = {feature: points.get(feature, 0.0) - beaten.get(feature, 0.0) for feature in {*points, *beaten}}
    ranked = sorted(gains.items(), key=lambda item: (-round(item[1], 6), item[0]))
    reasons = tuple(
        reason(feature, gain, winner, other)
        for place, (feature, gain) in enumerate(ranked[:_MOST_REASONS])
        if gain > (_WORTH_SAYING if place else _NO_DIFFERENCE)
    )
    feature, gain = ranked[-1] if ranked else ("", 0.0)
    against = None if other is None or gain >= -_NO_DIFFERENCE else reason(feature, gain, other, winner)
    return reasons, against


def _source(scores: Scores, first: Sequence[int]) -> Source:
    """Who decided: ratings or the language model where the winner would have lost without them, else the rules."""
    if len(first) > 1:
        if _loses_without("ranking", scores, first[0], first[1]):
            return "ollama"
        if _loses_without("learned", scores, first[0], first[1]):
            return "learned"
    return "rule"


def _loses_without(feature: str, scores: Scores, winner: int, other: int) -> bool:
    """Whether the runner-up would win if this feature counted for nothing."""
    gain = scores.points(winner).get(feature, 0.0) - scores.points(other).get(feature, 0.0)
    left = round(scores.total(winner) - scores.total(other) - gain, 6)
    return left < 0 or (left == 0 and other < winner)


def _flip(chooser: _Chooser, asked: Asked, told: Told, scores: Scores, first: Sequence[int]) -> str | None:
    """The smallest change that alters the choice: one phrase less, else no ratings.

    Phrases are found by their values; the prompt is then read without the phrase, and what wins is said.
    """
    offers, winner = chooser.models.offers, first[0]
    spans = asked.phrases(scores.spans)[:_MOST_PHRASES]
    for span in sorted(spans, key=lambda one: (one[1] - one[0], one)):
        if _winner(chooser, asked.without(span), told) == winner:
            continue
        instead = _winner(chooser, asked.read_without(span, offers.read), told)
        if instead is not None and instead != winner:
            return f"without '{_words_at(asked, span)}': {shown(offers.models[instead].name)}"
    if len(first) > 1 and _loses_without("learned", scores, first[0], first[1]):
        return f"without your ratings: {shown(offers.models[first[1]].name)}"
    return None


def _winner(chooser: _Chooser, asked: Asked, told: Told) -> int | None:
    return next(iter(_first(chooser, chooser.models.scores(asked, told), 1, None)), None)


def _words_at(asked: Asked, span: Span) -> str:
    for one in asked.analysis.evidence:
        if one.span == span and one.words:
            return shown(one.words, 60)
    return shown(" ".join(word.text for word in asked.words if span[0] <= word.start and word.end <= span[1]), 60)


def _override(model: ModelCandidate) -> str:
    return model.override or f"model={shown(model.name)}"


def _vae(model: ModelCandidate, offers: Offers) -> VaeChoice | None:
    """A separate VAE for this model, None where its own, or that of its profile, serves.

    Whether the file fits is checked again when it is opened (`pipeline.weights.vae_fit`).
    """
    if model.own_vae or model.family != "sdxl":
        return None
    for vae in offers.vaes:
        if vae.family == model.family and _FOR_16_BITS.search(f"{vae.name} {vae.reference}"):
            why = "it decodes in 16 bits, where the model's own needs 32 and twice the memory"
            return VaeChoice(shown(vae.name), vae.reference, (Reason("compatible", why, 0.0),), "model.vae=null")
    return None
