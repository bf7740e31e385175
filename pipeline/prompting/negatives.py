"""The negative prompt: the user's own text, what the prompt excludes, and what is usual for model and medium."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.asked_words import Asked, Guard, asked_by, negative_guard, stems_of
from pipeline.prompting.conventions import CLOSED, read_data, texts
from pipeline.prompting.proposals import TextChoice
from pipeline.weights.families import FAMILIES

MOST_TOKENS = 39
"""Of what is added: under forty, since text encoders read 75 and what stands behind has little effect."""

IGNORED = "none: this model ignores it"
NOTHING = "none: nothing that is usual for this model suits the prompt"
UNKNOWN_WORDS = "none: this model knows only the words that it was trained with"

_UNGUIDED: dict[str | None, float] = {"z_image": 0.0}
"""Guidance up to which a model makes no use of a negative prompt, where that is not 1 (diffusers, ZImagePipeline)."""

_TOKEN = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_PARTS = re.compile(r"[,;|\n]|\bBREAK\b")
_WEIGHT = re.compile(r":\s*[\d.]+\s*[)\]]")


def negative_prompt(
    own: str,
    prompt: str,
    analysis: PromptAnalysis,
    *,
    family: str | None,
    convention: str,
    uses_negative: bool,
    guidance: float | None,
) -> TextChoice:
    """What stands against a prompt: `own` first and unchanged, then what the prompt excludes, then what is usual.

    `own` is the negative prompt that the user gave, `prompt` the text that `analysis` is of. `uses_negative` is false
    for distilled models; `guidance` is the scale that is used, None where the model's own default stands.
    Nothing is added that the prompt asks for, and nothing where the model makes no use of it.
    """
    if convention == CLOSED:
        return TextChoice(own, own, why=UNKNOWN_WORDS)
    known = FAMILIES.get(family or "")
    if not uses_negative or (known is not None and known.guidance == "embedded"):
        return TextChoice(own, own, why=IGNORED)
    if guidance is not None and guidance <= _UNGUIDED.get(family, 1.0):
        return TextChoice(own, own, why=f"{IGNORED} at guidance {guidance:g}")
    # What is there already is left out last, so that adding to a text twice adds nothing.
    chosen = _under_limit(_proposed(analysis, asked_by(prompt, analysis), family, convention))
    there = {_meaning(part) for part in _PARTS.split(own)} if own else set()
    added = tuple(words for words, stems in chosen if stems not in there)
    if not added:
        return TextChoice(own, own, why="" if chosen else NOTHING)
    return TextChoice(own + _between(own) + ", ".join(added), own, added)


def _proposed(
    analysis: PromptAnalysis, asked: Asked, family: str | None, convention: str
) -> Iterator[tuple[str, frozenset[str]]]:
    """Words and their stems in the order of importance: what is excluded, the opposite of the medium, what is usual."""
    for phrase in analysis.negated:
        for part in _PARTS.split(phrase):
            if not (stems := _meaning(part)) <= asked.stems:
                yield " ".join(part.split()), stems
    for one in _usual(convention, family, _kind(analysis)):
        if one.allows(asked):
            yield one.words, one.stems


def _under_limit(proposed: Iterator[tuple[str, frozenset[str]]]) -> list[tuple[str, frozenset[str]]]:
    chosen: dict[frozenset[str], str] = {}
    left = MOST_TOKENS
    for words, stems in proposed:
        if stems not in chosen and (tokens := count_tokens(words)) <= left:
            chosen[stems] = words
            left -= tokens
    return [(words, stems) for stems, words in chosen.items()]


@functools.cache
def _usual(convention: str, family: str | None, kind: str) -> tuple[Guard, ...]:
    """The opposite of this kind of picture, defects, quality."""
    usual = texts(convention, family)
    groups = read_data("negatives.toml")["opposites"].values() if usual.contradicts else ()
    opposite = [words for group in groups if kind in group["values"] for words in group["words"]]
    return tuple(map(negative_guard, (*opposite, *usual.defects, *usual.quality)))


@functools.lru_cache(maxsize=4_096)
def count_tokens(words: str) -> int:
    """How many tokens of CLIP a phrase and the comma behind it take at most.

    Of what is usual the data say it. What else a prompt may say is cut into pieces of a few letters, and into bytes
    where it is not ASCII.
    """
    found = _TOKEN.findall(words)
    usual = read_data("negatives.toml")["words"].get(words)
    if usual is not None:
        return 1 + int(usual.get("tokens", len(found)))
    return 1 + sum(1 + len(token) // 4 + 2 * (len(token.encode(errors="replace")) - len(token)) for token in found)


def _meaning(part: str) -> frozenset[str]:
    """The stems of a phrase without its weight, by which two are the same."""
    return stems_of(_WEIGHT.sub("", part))


def _kind(analysis: PromptAnalysis) -> str:
    """The first value of the medium, else of the style, as `negatives.toml` writes it."""
    if analysis.medium:
        return f"medium {analysis.medium[0]}"
    return f"style {analysis.style[0]}" if analysis.style else ""


def _between(own: str) -> str:
    stripped = own.rstrip()
    if not stripped:
        return ""
    if stripped.endswith(","):
        return "" if own != stripped else " "
    return ", "
