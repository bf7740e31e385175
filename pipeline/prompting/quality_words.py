"""The prompt that a model gets: the user's own, with trigger words of LoRAs and the model's quality words."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.asked_words import Guard, asked_by, quality_guard
from pipeline.prompting.conventions import CLOSED, texts
from pipeline.prompting.lora_tags import lora_tags, without_tags
from pipeline.prompting.proposals import TextChoice

_GAPS = str.maketrans(dict.fromkeys('_,.:;|()[]{}<>!?"', " "))


def model_prompt(
    own: str, analysis: PromptAnalysis, *, family: str | None, convention: str, triggers: Iterable[str] = ()
) -> TextChoice:
    """The user's own text, unchanged, between the convention's quality words, with trigger words that it lacks.

    Triggers stand behind the text and before quality words. Quality words are added only where the prompt has none of
    its own and asks for no draft. Of the embedded model everything stays as it is: its vocabulary is closed.
    """
    if convention == CLOSED or not own.strip():
        return TextChoice(own, own)
    usual, said = texts(convention, family), _plainly(own)
    behind: list[str] = []
    for trigger in triggers:
        words = without_tags(trigger, lora_tags(trigger)).strip(" ,")
        plain = _plainly(words)
        if plain.strip() and plain not in said:
            behind.append(words)
            said += plain
    before: list[str] = []
    if (
        (usual.prefix or usual.suffix)
        and analysis.quality != "draft"
        and not any(words in said for words in _own_quality(usual.own))
    ):
        asked = asked_by(own, analysis)
        before = [one.words for one in _guards(usual.prefix) if one.allows(asked)]
        behind += [one.words for one in _guards(usual.suffix) if one.allows(asked)]
    if not before and not behind:
        return TextChoice(own, own)
    text = own if not before else f"{', '.join(before)}, {own}"
    for words in behind:
        text += _between(text) + words
    return TextChoice(text, own, (*before, *behind))


@functools.cache
def _guards(words: tuple[str, ...]) -> tuple[Guard, ...]:
    return tuple(map(quality_guard, words))


@functools.cache
def _own_quality(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_plainly(one) for one in words)


def _plainly(text: str) -> str:
    """In small letters, with a blank for what parts words and one at either end, so that whole words are found."""
    return f" {' '.join(text.casefold().translate(_GAPS).split())} "


def _between(text: str) -> str:
    """A comma; only a blank behind a sentence, or where there is a comma."""
    stripped = text.rstrip()
    if stripped.endswith((",", ".", "!", "?", ";")):
        return "" if text != stripped else " "
    return ", "
