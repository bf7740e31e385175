"""Which LoRAs go with the chosen model: those that the prompt asks for by tags, and those with a positive reason."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from pipeline.prompting.analysis import main_look
from pipeline.prompting.lora_tags import LoraTag
from pipeline.selection.asked import Asked
from pipeline.selection.bases import fit_of_lora
from pipeline.selection.candidates import LoraCandidate, ModelCandidate, Offers, shown
from pipeline.selection.choice import LoraChoice, Reason
from pipeline.selection.claims import Claims
from pipeline.selection.features import LOOKS, Features
from pipeline.selection.reasons import words_for_lora
from pipeline.selection.scoring import (
    Points,
    Preferences,
    Told,
    bounded,
    popularity_share,
    share_of,
    shared_words,
)
from pipeline.selection.wishes import Wishes
from pipeline.selection.words import plain_words

_MOST_REASONS = 3
_FROM_LOOKS = 12
"""LoRAs that are kept of those that only looks speak for; no more than three are taken."""

_MODEL_DOES = 0.6
"""The share of a LoRA's points for a look that are lost where the model is fully trusted with it."""

_LONGEST_KEY = 60
"""Characters of names that are compared with a misspelt one."""

_MOST_COMPARED = 30
_SMALLEST_WEIGHT = 0.05
_TRIGGER = re.compile(r"[\w \-',.]{1,80}")
_QUALITY_TAG = re.compile(r"score[_ ]\d|masterpiece|best quality", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scored:
    """A LoRA with its points for a prompt. `mentioned` are the words of the prompt that name it."""

    place: int
    points: Points
    mentioned: str = ""

    @property
    def total(self) -> float:
        """Its score."""
        return round(sum(self.points.values()), 6)


@dataclass(frozen=True, slots=True)
class _Words:
    """By the places of LoRAs: the words that name them, and the share of the feature `similarity`.

    `shared` are those whose cards have rare words of the prompt: a meaning that is merely near adds no concept.
    """

    mentions: Mapping[int, str] = field(default_factory=dict)
    similarity: Mapping[int, float] = field(default_factory=dict)
    shared: Set[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ChosenLoras:
    """`wrong_base` are the places of LoRAs that would have been wanted, and were made for other models."""

    loras: tuple[LoraChoice, ...] = ()
    wrong_base: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class LoraScorer:
    """Scores the LoRAs of these offers under these wishes and ratings."""

    offers: Offers
    rules: Features
    wishes: Wishes
    preferences: Preferences
    allowed: frozenset[int]
    _nearest: dict[tuple[str, str | None, str], tuple[str, ...]] = field(default_factory=dict)
    _by_looks: dict[object, tuple[dict[int, Scored], tuple[int, ...]]] = field(default_factory=dict)

    def scored(
        self, asked: Asked, told: Told, model: ModelCandidate, claims: Claims
    ) -> tuple[list[Scored], tuple[int, ...]]:
        """The LoRAs with a positive reason: those that this model can take, the best first, and the others."""
        words = self._words(asked, told)
        few, others = self._of_looks(asked, model, claims)
        found: list[Scored] = []
        wrong_base: list[int] = []
        for place in sorted({*few, *words.mentions, *words.shared}):
            if place not in self.allowed:
                continue
            if place in few and not (place in words.mentions or place in words.similarity):
                found.append(few[place])
                continue
            fits = self.distance(place, model) is not None
            points = self._points(place, asked, claims, words, model if fits else None)
            if not self._has_reason(points, is_concept=place in words.shared):
                continue
            if fits:
                found.append(Scored(place, points, words.mentions.get(place, "")))
            else:
                wrong_base.append(place)
        found.sort(key=lambda one: (-one.total, one.place))
        return found, tuple(dict.fromkeys((*wrong_base, *others)))

    def _words(self, asked: Asked, told: Told) -> _Words:
        """What words of the prompt, or their meaning, say of single LoRAs."""
        mentions = {
            place: " ".join(word.text for word in asked.words if start <= word.start and word.end <= end)
            for place, start, end in self.offers.lora_index.mentions(asked.words)
        }
        shared = shared_words(self.offers.lora_index.by_word, asked)
        if told.similarity is None:
            return _Words(mentions, {place: share for place, (share, _) in shared.items()}, shared.keys())
        return _Words(mentions, told.similar(self.offers.lora_index.places), shared.keys())

    def distance(self, place: int, model: ModelCandidate) -> float | None:
        """How far the LoRA's base is from the model's; None if it must not be applied."""
        lora = self.offers.loras[place]
        return fit_of_lora(model.family, model.convention, lora.family, lora.convention)

    def nearest_names(self, name: str, model: ModelCandidate) -> tuple[str, ...]:
        """Up to three names of LoRAs that this model can take and that look like this one."""
        key = (_key(name)[:_LONGEST_KEY], model.family, model.convention)
        found = self._nearest.get(key)
        if found is None:
            usable = (self.offers.loras[one] for one in sorted(self.allowed) if self.distance(one, model) is not None)
            names = {_key(lora.name)[:_LONGEST_KEY]: lora.name for lora in usable}
            pairs = _pairs(key[0])
            alike = sorted(names, key=lambda one: (-len(pairs & _pairs(one)) / (len(one) + 1), one))[:_MOST_COMPARED]
            near = difflib.get_close_matches(key[0], alike, 3, 0.5)
            found = self._nearest[key] = tuple(shown(names[one], 60) for one in near)
        return found

    def _has_reason(self, points: Points, *, is_concept: bool = False) -> bool:
        """Whether one reason is strong enough: the prompt names it, a look, or a concept that prompt and card share."""
        least = self.rules.limits["least_reason"]
        best = max((points.get(feature, 0.0) for feature in ("mention", *LOOKS)), default=0.0)
        concept = points.get("subject", 0.0) + points.get("similarity", 0.0) if is_concept else 0.0
        return max(best, concept) > least and sum(points.values()) > 0

    def _of_looks(
        self, asked: Asked, model: ModelCandidate, claims: Claims
    ) -> tuple[dict[int, Scored], tuple[int, ...]]:
        """The best LoRAs by looks alone that this model can take, and those that it cannot; kept for later prompts."""
        analysis = asked.analysis
        key = (model.reference, analysis.medium, analysis.style, analysis.subject)
        found = self._by_looks.get(key)
        if found is None:
            if len(self._by_looks) > 20_000:
                self._by_looks.clear()
            by_value = self.offers.lora_index.by_value
            places = {
                place
                for axis in LOOKS
                for value in getattr(analysis, axis)
                for other in LOOKS
                for place in by_value.get((other, value), ())
            }
            fitting: list[Scored] = []
            others: list[Scored] = []
            for place in sorted(places & self.allowed):
                fits = self.distance(place, model) is not None
                points = self._points(place, asked, claims, _Words(), model if fits else None)
                if self._has_reason(points):
                    (fitting if fits else others).append(Scored(place, points))
            fitting.sort(key=lambda one: (-one.total, one.place))
            others.sort(key=lambda one: (-one.total, one.place))
            few = {one.place: one for one in fitting[:_FROM_LOOKS]}
            found = self._by_looks[key] = (few, tuple(one.place for one in others))
        return found

    def _points(self, place: int, asked: Asked, claims: Claims, words: _Words, model: ModelCandidate | None) -> Points:
        """One LoRA's points beside a model with these claims; `model` None leaves out how near its base is."""
        rules, weights = self.rules, self.rules.weights
        lora, own = self.offers.loras[place], self.offers.lora_index.claims[place]
        points: Points = {}
        for axis in LOOKS:
            values = getattr(asked.analysis, axis)
            if values:
                points[axis] = weights[axis] * max(_beside(own, claims, axis, value, rules) for value in values)
        if asked.analysis.subject:
            points["subject"] = weights["subject"] * max(
                share_of(own, "subject", value, rules) for value in asked.analysis.subject
            )
        points["popularity"] = weights["popularity"] * popularity_share(lora.card.thumbs_up, own)
        points["learned"] = bounded(self.preferences.effect("lora", lora.name, main_look(asked.analysis)), weights)
        if place in words.mentions:
            points["mention"] = weights["mention"]
        points["similarity"] = weights["similarity"] * words.similarity.get(place, 0.0)
        if model is not None:
            points["base"] = -rules.limits["booru_variants"] * (self.distance(place, model) or 0.0)
        return {feature: value for feature, value in points.items() if value}


def _beside(own: Claims, of_model: Claims, axis: str, value: str, rules: Features) -> float:
    """What a LoRA adds to a look that the model may be trusted with already."""
    share = share_of(own, axis, value, rules)
    return share if share <= 0 else share * (1 - _MODEL_DOES * max(0.0, share_of(of_model, axis, value, rules)))


def choose_loras(
    scorer: LoraScorer,
    asked: Asked,
    told: Told,
    model: ModelCandidate,
    claims: Claims,
    tags: Sequence[tuple[LoraTag, int]],
) -> ChosenLoras:
    """The LoRAs for a prompt and its model. `tags` are those of the prompt that fit, each with the LoRA's place."""
    offers, rules, wishes = scorer.offers, scorer.rules, scorer.wishes
    chosen: list[LoraChoice] = []
    taken: set[int] = set()
    axes: set[str] = set()
    for tag, place in tags:
        if place in taken:
            continue
        lora = offers.loras[place]
        weight = tag.weight if tag.weight is not None else _weight(lora, offers.lora_axes[place], rules)
        reason = Reason("mention", f"the prompt asks for it: <lora:{shown(tag.name)}>", rules.weights["mention"])
        chosen.append(_choice(lora, weight, reason.points, asked, (reason,), asked_for=True))
        taken.add(place)
        axes.add(offers.lora_axes[place])
    own = sum(abs(one.weight) for one in chosen)
    added: list[LoraChoice] = []
    scored, wrong_base = scorer.scored(asked, told, model, claims)
    for one in scored:
        axis = offers.lora_axes[one.place]
        if len(chosen) + len(added) >= wishes.max_loras:
            break
        if one.place in taken or axis in axes:
            continue
        axes.add(axis)
        lora = offers.loras[one.place]
        reasons = _reasons(one, asked, offers)
        added.append(_choice(lora, _weight(lora, axis, rules), one.total, asked, reasons, asked_for=False))
    added, warnings = _scaled(added, own, rules.limits["weight_sum"])
    return ChosenLoras((*chosen, *added), wrong_base, warnings)


def _scaled(added: list[LoraChoice], own: float, most: float) -> tuple[list[LoraChoice], tuple[str, ...]]:
    """Weights that stay within their sum together with those that the prompt sets; one line where they were cut."""
    total = sum(abs(one.weight) for one in added)
    if not added or own + total <= most + 1e-9:
        return added, ()
    factor = max(0.0, most - own) / total
    scaled = [replace(one, weight=round(one.weight * factor, 3)) for one in added]
    kept = [one for one in scaled if abs(one.weight) >= _SMALLEST_WEIGHT]
    if not kept:
        return [], (f"no LoRA was added: those of the prompt have weights of {own:g} together",)
    names = ", ".join(one.chosen for one in kept)
    return kept, (
        f"the weights of {names} are scaled down by {factor:.2f}, so that all LoRAs together have {most:g} "
        f"and not {own + total:g}",
    )


def _weight(lora: LoraCandidate, axis: str, rules: Features) -> float:
    """The author's advice, else the middle of the advised range, else what is usual for the kind."""
    card = lora.card
    if card.weight is not None and 0 < abs(card.weight) <= 2:
        return round(float(card.weight), 3)
    if card.weight_min is not None and card.weight_max is not None and 0 <= card.weight_min <= card.weight_max <= 2:
        return round((card.weight_min + card.weight_max) / 2, 3) or rules.lora_weights[axis]
    return rules.lora_weights[axis]


def _choice(
    lora: LoraCandidate, weight: float, score: float, asked: Asked, reasons: tuple[Reason, ...], *, asked_for: bool
) -> LoraChoice:
    learned = next((one.points for one in reasons if one.feature == "learned"), 0.0)
    return LoraChoice(
        chosen=shown(lora.name),
        reference=lora.reference,
        weight=weight,
        score=score,
        source="asked" if asked_for else "learned" if learned > score / 2 else "rule",
        triggers=_missing_triggers(lora, asked),
        reasons=reasons,
        override=f"selection.exclude=['{_in_quotes(lora.name)}']",
    )


def _in_quotes(name: str) -> str:
    return shown(name).replace("\\", "\\\\").replace("'", "\\'")


def _missing_triggers(lora: LoraCandidate, asked: Asked) -> tuple[str, ...]:
    """The first trigger that plain words can say, unless the prompt has one already."""
    said = {word.text for word in asked.words}
    triggers = [
        trigger
        for trigger in (shown(one, 80).strip(" ,") for one in lora.card.trigger_words[:20])
        if _TRIGGER.fullmatch(trigger) and plain_words(trigger) and not _QUALITY_TAG.search(trigger)
    ]
    if any(said.issuperset(plain_words(trigger)) for trigger in triggers):
        return ()
    return tuple(triggers[:1])


def _reasons(one: Scored, asked: Asked, offers: Offers) -> tuple[Reason, ...]:
    ranked = sorted(one.points.items(), key=lambda item: (-item[1], item[0]))
    lora = offers.loras[one.place]
    claims = offers.lora_index.claims[one.place]
    return tuple(
        Reason(feature, words_for_lora(feature, lora, claims, asked, one.mentioned), points)
        for feature, points in ranked[:_MOST_REASONS]
        if points > 0
    )


def find_tagged(
    offers: Offers, tags: Sequence[LoraTag], allowed: frozenset[int]
) -> list[tuple[LoraTag, tuple[int, ...]]]:
    """For each tag the places of the LoRAs of this name that may be chosen; none where it is not known."""
    if not tags:
        return []
    memo = offers.memo
    by_name = memo.get("lora names")
    if not isinstance(by_name, dict):
        named: dict[str, list[int]] = defaultdict(list)
        for place, lora in enumerate(offers.loras):
            for name in {_key(lora.name), _key(lora.card.title)} - {""}:
                named[name].append(place)
        by_name = memo["lora names"] = dict(named)
    return [(tag, tuple(one for one in by_name.get(_key(tag.name), ()) if one in allowed)) for tag in tags]


def _pairs(key: str) -> set[str]:
    """Neighbouring letters: names without common ones are not alike, and counting them is quick."""
    return {key[place : place + 2] for place in range(len(key) - 1)}


def _key(name: str) -> str:
    """A name without what spellings differ in: capitals, spaces, underscores, endings of files."""
    return "".join(plain_words(name.removesuffix(".safetensors"), 200))
