"""How a model wants to be spoken to: in Pony's or a booru's tags, in plain words, or in prose.

One architecture has several: Pony, Illustrious, NoobAI and plain SDXL differ in nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from pipeline.registry.records import ModelCard

Convention = Literal["pony", "booru", "plain", "prose"]

_CLIP_ALONE = ("sd15", "sdxl")
"""Families whose only encoders are CLIP; those with T5, Qwen or Gemma read sentences."""

_BASES: tuple[tuple[Convention, re.Pattern[str]], ...] = (
    ("pony", re.compile(r"pony(?!tail)", re.IGNORECASE)),
    ("booru", re.compile(r"illustrious|noob[ _-]?(?:ai|xl)|animagine", re.IGNORECASE)),
    (
        "prose",
        re.compile(
            r"(?<![a-z])(?:flux|qwen|z-?image|pixart|stable-diffusion-3|sd ?3(?!\d)|(?:sana|lumina|chroma)(?![a-z]))",
            re.IGNORECASE,
        ),
    ),
)
"""Words in the names of bases, as CivitAI (`base-model.constants.ts`) and authors write them."""

_SCORES = re.compile(r"\bscore_\d(?:_up)?\b")
"""The quality tags that Pony alone was trained with."""

_SCORE_TAGS = re.compile(r"^score_\d(?:_up)?$", re.MULTILINE)
_BOORU = frozenset({"1girl", "1boy", "2girls", "2boys", "1other", "masterpiece", "best quality", "absurdres"})
_SHARE = 0.2
"""Of a training table's commonest count: a booru's tag that is rarer was no habit of the captions."""

_UNDERSCORED = re.compile(r"^[a-z]+_[a-z_]+$", re.MULTILINE)
_LEAST_UNDERSCORED = 5
"""So many tags with underscores are no accident."""


def convention_by(family: str | None, bases: Sequence[str], card: ModelCard, name: str) -> Convention:
    """The convention of what has this family, these names of its base, this card and, of a checkpoint, this name.

    It is `plain` where nothing tells of another one.
    The family comes first, which the tensors tell; then the base's own name; then triggers, training table and example
    prompts; then the mark of v-prediction, among SDXL models NoobAI's. A checkpoint's own name comes last, since
    anybody may choose it.
    """
    if family is not None and family not in _CLIP_ALONE:
        return "prose"
    named = next((found for base in bases if (found := convention_of_base(base))), None)
    if named and (named != "prose" or family is None):
        return named
    shown = _of_texts(card.trigger_words, 0) or _of_table(card) or _of_texts(card.example_prompts, 0.5)
    if shown:
        return shown
    if card.v_prediction and family == "sdxl":
        return "booru"
    own = convention_of_base(name)
    return own if own and own != "prose" else "plain"


def convention_of_base(name: str) -> Convention | None:
    """The convention that the name of a base model tells; None for names that tell none."""
    return next((convention for convention, known in _BASES if known.search(name)), None)


def _of_texts(texts: Sequence[str], share: float) -> Convention | None:
    """By the words of one of these texts at least, and of this share of them."""
    found = [_of_text(text) for text in texts]
    told: tuple[Convention, ...] = ("pony", "booru")
    return next((one for one in told if one in found and found.count(one) >= share * len(found)), None)


def _of_text(text: str) -> Convention | None:
    words = text.casefold()
    if "score_" in words and _SCORES.search(words):
        return "pony"
    return None if _BOORU.isdisjoint(map(str.strip, words.split(","))) else "booru"


def _of_table(card: ModelCard) -> Convention | None:
    if not card.tag_counts:
        return None
    tags = "\n".join(tag for tag, _ in card.tag_counts).casefold()  # one text: thousands of tables are looked at
    if "score_" in tags and _SCORE_TAGS.search(tags):
        return "pony"
    least = _SHARE * card.tag_counts[0][1]
    habits = bisect_right(card.tag_counts, -least, key=lambda counted: -counted[1])
    if not _BOORU.isdisjoint(tags.split("\n", habits)[:habits]):
        return "booru"
    return "booru" if "_" in tags and len(_UNDERSCORED.findall(tags)) >= _LEAST_UNDERSCORED else None
