"""What may be chosen at all: each filter leaves candidates out and counts them under its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from pipeline.selection.candidates import LoraCandidate, ModelCandidate, Offers, shown
from pipeline.selection.choice import Excluded
from pipeline.selection.licences import commercial_use
from pipeline.selection.wishes import Wishes
from pipeline.selection.words import plain_words
from pipeline.weights.families import FAMILIES

INCOMPLETE = "incomplete"
TOO_LARGE = "too large for the memory"
WRONG_BASE = "LoRAs for other models"
COPIES = "copies"
FOR_WANT = "the demo model, which is there for want of others"
_EXAMPLES = 2


ExcludedNames: TypeAlias = defaultdict[str, list[str]]
"""The names that each reason left out, in the order found."""


def counted(excluded: ExcludedNames) -> dict[str, Excluded]:
    """Counts with two examples each."""
    return {
        reason: Excluded(len(names), tuple(shown(name, 80) for name in names[:_EXAMPLES]))
        for reason, names in excluded.items()
    }


def allowed_models(offers: Offers, wishes: Wishes, excluded: ExcludedNames) -> tuple[int, ...]:
    """The places of models that may win, as far as memory allows; the demo model comes last if it may at all."""
    unwanted = _keys(wishes.exclude)
    allowed: list[int] = []
    demos: list[int] = []
    for place, model in enumerate(offers.models):
        if wishes.model is not None and model.reference != wishes.model:
            continue
        if reason := None if wishes.model is not None else _fault(model, wishes, unwanted):
            excluded[reason].append(model.name)
        else:
            (demos if model.is_demo else allowed).append(place)
    if allowed:
        for place in demos:
            excluded[FOR_WANT].append(offers.models[place].name)
    return (*allowed, *demos)


def allowed_loras(offers: Offers, wishes: Wishes, excluded: ExcludedNames) -> frozenset[int]:
    """The places of LoRAs that may be applied, as far as the model allows."""
    unwanted = _keys(wishes.exclude)
    allowed = set()
    for place, lora in enumerate(offers.loras):
        is_unwanted = bool(_keys((lora.name, lora.reference)) & unwanted)
        reason = "excluded by you" if is_unwanted else _licence_fault(lora, wishes)
        if reason:
            excluded[reason].append(lora.name)
        else:
            allowed.add(place)
    return frozenset(allowed)


def _fault(model: ModelCandidate, wishes: Wishes, unwanted: frozenset[str]) -> str | None:
    if _keys((model.name, model.reference)) & unwanted:
        return "excluded by you"
    if wishes.families and model.family not in wishes.families:
        return "of other families than you want"
    if model.is_demo:
        return None
    if model.family not in FAMILIES:
        return "of no known family"
    if not model.complete:
        return INCOMPLETE
    return _licence_fault(model, wishes)


def _licence_fault(one: ModelCandidate | LoraCandidate, wishes: Wishes) -> str | None:
    if wishes.licence != "commercial":
        return None
    known = commercial_use(one.licence or one.card.licence)
    if known is None:
        return "of a licence that is not known"
    return None if known else "not licensed for commercial use"


def _keys(names: Iterable[str]) -> frozenset[str]:
    """Names without what spellings differ in."""
    return frozenset(key for name in names if (key := "".join(plain_words(name, 1_000))))
