"""Says a choice in sentences, from the numbers that decided it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.selection.choice import Choice, Excluded, LoraChoice, ModelChoice, Reason
from pipeline.selection.filters import COPIES
from pipeline.storage.foreign_names import plain

_LONGEST = 400
"""Characters of a sentence's part that came from elsewhere."""

_SOURCES = {
    "learned": "because of your ratings",
    "ollama": "because the language model prefers it",
}


def paragraph(choice: Choice) -> str:
    """The whole choice as one paragraph of plain sentences, from the model to what was left out."""
    return " ".join(_sentences(choice))


def _sentences(choice: Choice) -> Iterator[str]:
    yield from (plain(sentence, 2 * _LONGEST) for sentence in _of_model(choice.model))
    for lora in choice.loras:
        yield plain(_of_lora(lora), 2 * _LONGEST)
    if choice.vae:
        reasons = f": {_reasons(choice.vae.reasons)}" if choice.vae.reasons else ""
        yield plain(f"{choice.vae.chosen} decodes{reasons}.", _LONGEST)
    if choice.sampling:
        settings = ", ".join(f"{name} {one.value} ({one.source})" for name, one in choice.sampling.items())
        yield plain(f"Settings: {settings}.", 2 * _LONGEST)
    if choice.prompt.added:
        yield plain(f"Added to the prompt: {', '.join(choice.prompt.added)}.", _LONGEST)
    if choice.negative_prompt.text or choice.negative_prompt.why:
        negative = choice.negative_prompt
        why = f" ({negative.why})" if negative.why and negative.text else ""
        yield plain(f"Negative prompt: {negative.text or negative.why}{why}.", 2 * _LONGEST)
    if left_out := _left_out(choice.excluded):
        yield plain(f"Left out as {left_out}.", 2 * _LONGEST)
    for warning in choice.warnings:
        yield plain(f"Note: {warning}.", _LONGEST)


def _of_model(model: ModelChoice) -> Iterator[str]:
    if model.source == "asked":
        yield f"{model.chosen}, as you set it."
        return
    if model.runner_up is None:
        yield f"{model.chosen}: no other model may be taken here."
        return
    name, score = model.runner_up
    decided = f", {_SOURCES[model.source]}" if model.source in _SOURCES else ""
    because = f": {_reasons(model.reasons)}" if model.reasons else "; they are equal, and the name decides"
    yield f"{model.chosen} ({model.score:.2f}) before {name} ({score:.2f}){decided}{because}."
    if model.against:
        yield f"In favour of {name}: {model.against.words} ({-model.against.points:+.2f})."
    if model.flip:
        change, _, instead = model.flip.rpartition(": ")
        yield f"{change[:1].upper()}{change[1:]} it would be {instead}."
    if model.override:
        yield f"To take {name}: {model.override}."


def _of_lora(lora: LoraChoice) -> str:
    triggers = f", with '{', '.join(lora.triggers)}' in the prompt" if lora.triggers else ""
    return f"LoRA {lora.chosen} at {lora.weight:g}{triggers}: {_reasons(lora.reasons)}."


def _reasons(reasons: tuple[Reason, ...]) -> str:
    return "; ".join(f"{one.words} ({one.points:+.2f})" if one.points else one.words for one in reasons)


def _left_out(excluded: Mapping[str, Excluded]) -> str:
    return "; ".join(
        f"{reason}: {one.count} ({', '.join(one.examples)}{', ...' if one.count > len(one.examples) else ''})"
        for reason, one in excluded.items()
        if reason != COPIES  # the same for every prompt, and nobody misses them
    )
