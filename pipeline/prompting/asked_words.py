"""What a prompt asks for, as word stems and axis values, so that nothing we add works against it."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass, replace
from operator import attrgetter

from pipeline.prompting.analysis import AXES, Evidence, PromptAnalysis
from pipeline.prompting.conventions import read_data

MANY = 3
"""From so many of the main subject, a picture is a group, and what repeats in it is asked for."""

_WORD = re.compile(r"[^\W_]+")
_BODIES = ("person", "group", "animal", "creature")
_PLURALS = frozenset({"people", "men", "women", "children", "geese", "mice", "gente"})
_OF_AXES = attrgetter(*AXES)
_ENDINGS = (
    ("ings", 3),
    ("ing", 3),
    ("ies", 3),
    ("ied", 3),
    ("ed", 3),
    ("es", 3),
    ("s", 3),
    ("ly", 3),
    ("y", 4),
    ("e", 3),
)
"""Endings with the letters that must be left before them: *many* is no form of *man*."""

_NEUTRAL = frozenset({"low", "bad", "worst", "extra", "qualit", "out", "of", "scor"})
"""Stems that say nothing of what a word of a negative prompt is about: *low poly* does not ask for low quality."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Stems of the words of a prompt without what it excludes, and values such as `medium photo` or `count many`."""

    stems: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Guard:
    """When a word or phrase must not be used: see `negatives.toml`.

    A prompt asks against it by one stem of `against`, by all stems of one of `phrases`, or by one of `values`; with
    `only`, the prompt must have one of these.
    """

    words: str
    stems: frozenset[str]
    against: frozenset[str]
    phrases: tuple[frozenset[str], ...]
    values: frozenset[str]
    only: frozenset[str]

    def allows(self, asked: Asked) -> bool:
        """Whether the prompt does not ask against the words, and has what they need."""
        return (
            self.against.isdisjoint(asked.stems)
            and self.values.isdisjoint(asked.values)
            and not (self.only and self.only.isdisjoint(asked.values))
            and not any(phrase <= asked.stems for phrase in self.phrases)
        )


@functools.lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without accents and the endings of English and of Spanish plurals, alike for *blurred* and *blurry*."""
    word = "".join(one for one in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(one))
    for ending, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


@functools.lru_cache(maxsize=4_096)
def stems_of(text: str) -> frozenset[str]:
    """The stems of all words of a text; underscores part words, as in tags."""
    return frozenset(map(stem, _WORD.findall(text)))


def asked_by(prompt: str, analysis: PromptAnalysis) -> Asked:
    """What the prompt asks for: its words without the phrases that it excludes, and the values of its analysis."""
    text = _without_negated(prompt, analysis) if analysis.negated else prompt
    return Asked(stems_of(text), _values(analysis))


def quality_guard(words: str) -> Guard:
    """When a quality word must not be added to a prompt."""
    table = read_data("negatives.toml")["words"].get(words, {})
    asked = [stems_of(phrase) for phrase in table.get("asked", ())]
    return Guard(
        words=words,
        stems=stems_of(words),
        against=frozenset(next(iter(one)) for one in asked if len(one) == 1),
        phrases=tuple(one for one in asked if len(one) > 1),
        values=frozenset(table.get("values", ())),
        only=frozenset(table.get("only", ())),
    )


def negative_guard(words: str) -> Guard:
    """When a word or phrase must not be added to a negative prompt: also where the prompt has it itself."""
    one = quality_guard(words)
    return replace(one, against=one.against | (one.stems - _NEUTRAL), phrases=(*one.phrases, one.stems))


def _values(analysis: PromptAnalysis) -> frozenset[str]:
    said = [f"{axis} {value}" for axis, values in zip(AXES, _OF_AXES(analysis), strict=True) for value in values]
    if (analysis.count or 0) >= MANY:
        said += ["count several", "count many"]
    elif analysis.count == 2 or (analysis.count is None and any(map(_is_plural, analysis.evidence))):
        said.append("count several")
    if analysis.text:
        said.append("text written")
    if analysis.quality:
        said.append(f"quality {analysis.quality}")
    return frozenset(said)


def _is_plural(one: Evidence) -> bool:
    """Whether these words name bodies in the plural. Singulars such as *octopus* are taken for one, and do no harm."""
    if one.axis != "subject" or one.value not in _BODIES:
        return False
    return one.words.endswith("s") or one.words.rpartition(" ")[2].casefold() in _PLURALS


def _without_negated(prompt: str, analysis: PromptAnalysis) -> str:
    """Each phrase is taken out where the evidence has it, or where it stands last if it is not there."""
    said = [one.span for one in analysis.evidence if one.axis == "negated"]
    places: set[tuple[int, int]] = set()
    for phrase in analysis.negated:
        here = [(start, end) for start, end in said if prompt[start:end] == phrase]
        start = prompt.rfind(phrase)
        places |= set(here or ([(start, start + len(phrase))] if start >= 0 else []))
    for start, end in sorted(places, reverse=True):
        prompt = f"{prompt[:start]} {prompt[end:]}"
    return prompt
