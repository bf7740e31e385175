"""The score of every model for a prompt: a sum of bounded features, of which each is a weight times a share.

What a prompt asks for in looks and subjects decides most, and many prompts ask for the same: these sums are made once
for all models and kept. What single words name (triggers, names, words of a card) is added for the few models that it
concerns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from heapq import merge
from typing import Protocol

from pipeline.prompting.analysis import main_look
from pipeline.selection.asked import Asked, Span
from pipeline.selection.bases import TAGGED, fit_of_lora, root_of
from pipeline.selection.candidates import ModelCandidate, Offers
from pipeline.selection.claims import Claims
from pipeline.selection.features import LOOKS, SCORED, Features
from pipeline.selection.wishes import Wishes
from pipeline.weights.families import FAMILIES

Points = dict[str, float]
"""Points by feature."""

LEAST_SIMILARITY = 0.2
"""Below it encoders tell nothing apart (measured on PartiPrompts)."""

_MOST_KEPT = 20_000
_PER_WORD = 0.5
"""Of the similarity's share, for a rare word that prompt and card have in common."""

_TRIGGER_OF_LORA = 0.25
"""Of a mention's share, for a model that can take a LoRA of which the prompt says a trigger word. A tag gives all."""


class Preferences(Protocol):
    """What ratings say: points from -1.5 to 1.5 for a model or LoRA (`kind`) by its name, for prompts of one look."""

    def effect(self, kind: str, name: str, cell: str) -> float:
        """The points."""


@dataclass(frozen=True, slots=True)
class Told:
    """What others say of candidates for this one prompt, by reference.

    `similarity` is that of meaning between prompt and card, from -1 to 1, rounded to 3 digits; None where no encoder
    was asked. `ranking` has the offered references in the order of a language model, the best first. `tagged` are the
    places of LoRAs that the prompt asks for by tags.
    """

    similarity: Mapping[str, float] | None = None
    ranking: Sequence[str] = ()
    tagged: tuple[int, ...] = ()

    def similar(self, places: Mapping[str, int]) -> dict[int, float]:
        """The share of the feature `similarity`, by the places of these references."""
        return {
            places[reference]: min(1.0, round(similarity, 3))
            for reference, similarity in (self.similarity or {}).items()
            if similarity >= LEAST_SIMILARITY and reference in places
        }


@dataclass(slots=True)
class Scores:
    """Points of all models for one prompt. `kept` are by place, and shared; `extra` only for some places."""

    kept: dict[str, list[float]]
    totals: list[float]
    order: list[int]
    extra: dict[int, Points]
    spans: list[Span]

    def total(self, place: int) -> float:
        """The score of one model."""
        more = self.extra.get(place)
        return round(self.totals[place] + (sum(more.values()) if more else 0.0), 6)

    def points(self, place: int) -> Points:
        """The score of one model by feature."""
        found = {feature: values[place] for feature, values in self.kept.items()}
        for feature, points in self.extra.get(place, {}).items():
            found[feature] = found.get(feature, 0.0) + points
        return found

    def best_first(self) -> Iterator[int]:
        """The places of models, the best first; equal scores in the order of the candidates."""
        rest = ((-self.total(place), place) for place in self.order if place not in self.extra)
        few = sorted((-self.total(place), place) for place in self.extra)
        return (place for _, place in merge(rest, few))


@dataclass(slots=True)
class Scorer:
    """Scores models of these offers under these wishes and ratings. `allowed` are the places that may win.

    `allowed_loras` are the places of LoRAs that may be applied where they fit.
    """

    offers: Offers
    rules: Features
    wishes: Wishes
    preferences: Preferences
    allowed: Sequence[int]
    allowed_loras: Set[int]
    _sums: dict[object, tuple[dict[str, list[float]], list[float], list[int]]] = field(default_factory=dict)
    _columns: dict[object, list[float]] = field(default_factory=dict)
    _may_win: frozenset[int] = field(default=frozenset())

    def __post_init__(self) -> None:
        self._may_win = frozenset(self.allowed)

    def scores(self, asked: Asked, told: Told) -> Scores:
        """The points of all models for a prompt."""
        kept, totals, order = self._sum(asked)
        extra: dict[int, Points] = defaultdict(dict)
        spans: list[Span] = []
        weights = self.rules.weights
        for place, start, end in self.offers.model_index.mentions(asked.words):
            if place in self._may_win:
                spans.append((start, end))
                extra[place]["mention"] = weights["mention"]
        self._add_loras(asked, told, extra, spans)
        self._add_similarity(asked, told, extra, spans)
        for rank, reference in enumerate(told.ranking):
            place = self.offers.model_index.places.get(reference, -1)
            if place in self._may_win:
                extra[place]["ranking"] = weights["ranking"] * (1 - rank / len(told.ranking))
        return Scores(kept, totals, order, extra, spans)

    def _add_loras(self, asked: Asked, told: Told, extra: dict[int, Points], spans: list[Span]) -> None:
        """Points for the models that can take the LoRAs that the prompt names."""
        if not self.wishes.set_loras or not self.wishes.max_loras:
            return
        most = self.rules.weights["mention"]
        shares = dict.fromkeys(told.tagged, 1.0)
        for place, start, end in self.offers.lora_index.mentions(asked.words):
            shares.setdefault(place, _TRIGGER_OF_LORA)
            spans.append((start, end))
        for lora, share in shares.items():
            for place in self._takes(lora):
                points = extra[place]
                points["mention"] = min(most, points.get("mention", 0.0) + most * share)

    def _takes(self, lora: int) -> list[int]:
        key = ("takes", lora)
        found = self._columns.get(key)
        if found is None:
            one = self.offers.loras[lora]
            found = self._columns[key] = [
                place
                for place in self.allowed
                if fit_of_lora(
                    (model := self.offers.models[place]).family, model.convention, one.family, one.convention
                )
                is not None
            ]
        return found  # type: ignore[return-value]

    def _add_similarity(self, asked: Asked, told: Told, extra: dict[int, Points], spans: list[Span]) -> None:
        weight = self.rules.weights["similarity"]
        if told.similarity is not None:
            for place, share in told.similar(self.offers.model_index.places).items():
                if place in self._may_win:
                    extra[place]["similarity"] = weight * share
            return
        for place, (share, found) in shared_words(self.offers.model_index.by_word, asked).items():
            if place in self._may_win:
                extra[place]["similarity"] = weight * share
                spans.extend(found)

    def _sum(self, asked: Asked) -> tuple[dict[str, list[float]], list[float], list[int]]:
        analysis = asked.analysis
        key = (
            analysis.medium, analysis.style, analysis.subject, analysis.needs, asked.quality, asked.is_tags,
            asked.is_prose,
        )  # fmt: skip
        found = self._sums.get(key)
        if found is None:
            if len(self._sums) > _MOST_KEPT:
                self._sums.clear()
            kept = self._features(asked)
            totals = [sum(values) for values in zip(*kept.values(), strict=True)]
            order = sorted(self.allowed, key=lambda place: (-round(totals[place], 6), place))
            found = self._sums[key] = (kept, totals, order)
        return found

    def _features(self, asked: Asked) -> dict[str, list[float]]:
        analysis, weights = asked.analysis, self.rules.weights
        kept = {}
        for axis in SCORED:
            values = getattr(analysis, axis)
            columns = [self.shares(axis, value) for value in values]
            if columns:
                share = weights[axis] / len(columns)
                kept[axis] = [share * sum(shares) for shares in zip(*columns, strict=True)]
        for need in analysis.needs:
            if known := self.rules.needs.get(need):
                share = weights["needs"] / len(analysis.needs)
                points = [share * known.get(model.family or "", 0.0) for model in self.offers.models]
                old = kept.get("needs")
                kept["needs"] = points if old is None else [a + b for a, b in zip(old, points, strict=True)]
        models, claims = self.offers.models, self.offers.model_index.claims
        if asked.is_tags or asked.is_prose:
            kept["convention"] = [weights["convention"] * _convention(model, asked) for model in models]
        if not (analysis.medium or analysis.style):
            kept["unsaid"] = [weights["unsaid"] * general_share(one) for one in claims]
        kept["quality"] = [weights["quality"] * quality_share(model, asked.quality) for model in models]
        kept["popularity"] = [
            weights["popularity"] * popularity_share(model.card.thumbs_up, one)
            for model, one in zip(models, claims, strict=True)
        ]
        kept["resident"] = [weights["resident"] * (model.source != "hub") for model in models]
        cell = main_look(analysis)
        learned = [bounded(self.preferences.effect("model", model.name, cell), weights) for model in models]
        if any(learned):
            kept["learned"] = learned
        return kept

    def shares(self, axis: str, value: str) -> list[float]:
        """How well each model meets a value, from -1 to 1; a look also by a LoRA that is here and fits the model."""
        key = (axis, value)
        found = self._columns.get(key)
        if found is None:
            all_claims = self.offers.model_index.claims
            if axis in LOOKS:
                own = [share_of(claims, axis, value, self.rules) for claims in all_claims]
                found = self._with_loras(own, axis, value)
            else:
                found = [subject_share(claims, value, self.rules) for claims in all_claims]
            self._columns[key] = found
        return found

    def _with_loras(self, own: list[float], axis: str, value: str) -> list[float]:
        """The shares of models in a look, where a LoRA that would be added has more of it than the model."""
        best: dict[tuple[str | None, str], float] = {}
        if self.wishes.set_loras and self.wishes.max_loras:
            index = self.offers.lora_index
            for place in {one for look in LOOKS for one in index.by_value.get((look, value), ())} & self.allowed_loras:
                share = share_of(index.claims[place], axis, value, self.rules)
                if share * self.rules.weights[axis] > self.rules.limits["least_reason"]:
                    base = (self.offers.loras[place].family, self.offers.loras[place].convention)
                    best[base] = max(best.get(base, 0.0), share)
        if not best:
            return own
        lifted = []
        for model, share in zip(self.offers.models, own, strict=True):
            fitting = (
                one for base, one in best.items() if fit_of_lora(model.family, model.convention, *base) is not None
            )
            lifted.append(max(share, self.rules.limits["by_lora"] * max(fitting, default=0.0) + min(0.0, share)))
        return lifted


def subject_share(claims: Claims, subject: str, rules: Features) -> float:
    """How well a model shows a subject, from 0 to 1: most models show any, and some are known for one."""
    share = share_of(claims, "subject", subject, rules)
    if share > 0:
        unclaimed = rules.limits["unclaimed_subject"]
        return unclaimed + (1 - unclaimed) * share
    known_for = sum(axis == "subject" for axis, _ in claims.trust)
    return rules.limits["other_subject" if known_for in (1, 2) else "unclaimed_subject"]


def share_of(claims: Claims, axis: str, value: str, rules: Features) -> float:
    """How well what is claimed meets a value that is asked for, from -1 to 1.

    The trust in the claim, or in one that is akin to it; below 0 for what is made for an opposed look alone.
    """
    axes = LOOKS if axis in LOOKS else (axis,)
    best = max((claims.trust.get((one, value), 0.0) for one in axes), default=0.0)
    for (claimed_axis, claimed), trust in claims.trust.items():
        if claimed_axis in axes and trust > best:
            best = max(best, trust * rules.akin.get((claimed, value), 0.0))
    camp = rules.camp_of.get(value) if axis in LOOKS else None
    if camp is None or camp in claims.camps or not claims.camps:
        return best
    distance = min(rules.opposed.get((own, camp), 0.0) for own in claims.camps)
    return best - distance * max(claims.camps.values())


def general_share(claims: Claims) -> float:
    """How far a model is made for ordinary pictures, where no look is asked for, from 0 to 1.

    All of it for general and photographic models, most for those of which no look is told, none for what is made for
    other looks, and for what is doubtful.
    """
    if claims.doubts:
        return 0.0
    looks = sum(axis in LOOKS for axis, _ in claims.trust)
    if "camera" in claims.camps or (looks > 2 and not claims.camps):
        return 1.0
    return 0.0 if looks else 0.75


def quality_share(model: ModelCandidate, quality: str | None) -> float:
    """How capable a model is, from 0 to 1, by its size; how quick for a draft; half of it where nothing is asked.

    1 GB is least and 32 GB most; what is not here has the bytes of its family's parameters in 16 bits.
    """
    family = FAMILIES.get(model.family or "")
    size = model.bytes or (2 * sum(family.parameters.values()) if family else 0)
    capable = min(1.0, max(0.0, math.log2(max(size, 1) / 1e9) / 5)) * (0.6 if model.is_distilled else 1.0)
    if quality == "draft":
        return max(1 - capable, 0.9 if model.is_distilled else 0.0)
    return capable if quality == "high" else capable / 2


def popularity_share(thumbs_up: int | None, claims: Claims) -> float:
    """`log10(1 + thumbs) / 6`, at most 1; 0 where no hub told, or the card says nothing or is doubtful."""
    return min(1.0, math.log10(1 + max(0, thumbs_up or 0)) / 6) if claims.is_described else 0.0


def bounded(effect: float, weights: Mapping[str, float]) -> float:
    """A preference within its bounds; what is no number is none."""
    most = weights["learned"]
    return max(-most, min(most, effect)) if math.isfinite(effect) else 0.0


def shared_words(
    by_word: Mapping[str, tuple[tuple[int, float], ...]], asked: Asked
) -> dict[int, tuple[float, list[Span]]]:
    """For each candidate whose card has rare words of the prompt: a share from 0 to 1, and their places.

    Words that ask for a look do not count: they are features of their own.
    """
    found: dict[int, tuple[float, list[Span]]] = {}
    said = set[str]()
    for word in asked.outside_looks():
        if word.text in said:
            continue
        said.add(word.text)
        for place, share in by_word.get(word.text, ()):
            before, spans = found.get(place, (0.0, []))
            found[place] = (min(1.0, before + _PER_WORD * share), [*spans, (word.start, word.end)])
    return found


def _convention(model: ModelCandidate, asked: Asked) -> float:
    if asked.is_tags:
        return float(root_of(model.convention) in TAGGED)
    return float(model.convention == "prose")
