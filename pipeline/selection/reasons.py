"""Says in words what a feature's points stand for. Everything strangers wrote is cut and made printable."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.prompting.analysis import main_look
from pipeline.selection.asked import Asked
from pipeline.selection.candidates import LoraCandidate, ModelCandidate, shown
from pipeline.selection.claims import Claims
from pipeline.selection.features import LOOKS, SCORED, Features
from pipeline.selection.scoring import share_of
from pipeline.system.units import size_text

Shares = Callable[[str, str], tuple[float, float]]
"""For an axis and one of its values: how well the model meets it, and the other."""

_LONGEST_PHRASE = 40


def words_for_model(
    feature: str, model: ModelCandidate, claims: Claims, asked: Asked, rules: Features, shares: Shares
) -> str:
    """Why a model has more points in a feature than the other, or than nothing."""
    if feature in SCORED:
        return _of_values(feature, claims, asked, rules, shares)
    match feature:
        case "mention":
            return "the prompt names it, or a LoRA that it takes"
        case "similarity":
            return "its card speaks of what the prompt describes"
        case "needs":
            return f"it is better at {_listed(asked.analysis.needs)}"
        case "convention":
            return "it was trained on tags, as the prompt is written" if asked.is_tags else "it reads long prose"
        case "unsaid":
            return "the prompt asks for no look, and this model is made for ordinary pictures"
        case "quality":
            size = f" ({size_text(model.bytes)})" if model.bytes else ""
            return f"it is quicker{size}, for a draft" if asked.quality == "draft" else f"it is more capable{size}"
        case "popularity":
            return f"{model.card.thumbs_up or 0:,} people recommend it"
        case "resident":
            return "it is on this machine"
        case "learned":
            return f"your ratings speak for it ({_look(asked)})"
        case "ranking":
            return "the language model put it before the others"
    return feature


def words_for_lora(feature: str, lora: LoraCandidate, claims: Claims, asked: Asked, mentioned: str) -> str:
    """Why a LoRA has points in a feature."""
    if feature in SCORED:
        for value in getattr(asked.analysis, feature):
            for axis in (feature, *LOOKS):
                if sources := claims.sources.get((axis, value)):
                    return f"{_phrase(feature, value, asked)}; its {_listed(sources)} {_say(sources)} so"
        return "it is made for what is near to what the prompt asks for"
    match feature:
        case "mention":
            return f"the prompt says '{shown(mentioned, _LONGEST_PHRASE)}'"
        case "similarity":
            return "its card speaks of what the prompt describes"
        case "popularity":
            return f"{lora.card.thumbs_up or 0:,} people recommend it"
        case "learned":
            return f"your ratings speak for it ({_look(asked)})"
    return feature


def _of_values(axis: str, claims: Claims, asked: Asked, rules: Features, shares: Shares) -> str:
    """The value in which the two differ most, the words that ask for it, and who says that the winner has it."""
    values = getattr(asked.analysis, axis)
    if not values:
        return axis
    value = max(values, key=lambda one: shares(axis, one)[0] - shares(axis, one)[1])
    share, of_other = shares(axis, value)
    asks = _phrase(axis, value, asked)
    for one in LOOKS if axis in LOOKS else (axis,):
        if (sources := claims.sources.get((one, value))) and claims.trust[one, value] > of_other - 1e-6:
            return f"{asks}; its {_listed(sources)} {_say(sources)} so"
    own = share_of(claims, axis, value, rules)
    if axis in LOOKS and share > max(own, 0.0):
        return f"{asks}; a LoRA for it is here that it takes"
    if own > max(of_other, 0.0):
        return f"{asks}; it is made for something near"
    return f"{asks}; the other is made for {'another look' if axis in LOOKS else 'other subjects'}"


def _look(asked: Asked) -> str:
    return f"in the look {main_look(asked.analysis).replace('_', ' ')}"


def _phrase(axis: str, value: str, asked: Asked) -> str:
    """`'óleo' asks for oil`, or the value alone where no words are known."""
    named = value.replace("_", " ")
    for one in asked.analysis.evidence:
        if (one.axis, one.value) == (axis, value) and one.words:
            words = shown(one.words, _LONGEST_PHRASE)
            return f"'{words}' asks for {named}" if words.casefold() != named else f"'{words}' is asked for"
    return f"{named} is asked for"


def _listed(items: tuple[str, ...]) -> str:
    said = [item.replace("_", " ") for item in items]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}" if said else ""


def _say(sources: tuple[str, ...]) -> str:
    return "say" if len(sources) > 1 or sources[0].endswith("s") else "says"
