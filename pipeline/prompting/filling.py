"""What a later stage adds to an analysis: values of axes that are still empty, never of what the prompt excludes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.prompting.analysis import AXES, SOMEONE, Evidence, PromptAnalysis, Stage
from pipeline.prompting.rules import analyse

_TAG = re.compile(r"<[^<>\n]{1,200}>")
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»")
_WEIGHT = re.compile(r":\s*[-+]?\d+(?:\.\d+)?(?=[)\]])")
_MARKS = re.compile(r"\bBREAK\b|[()\[\]{}<>|_\\]")


def open_axes(analysis: PromptAnalysis) -> tuple[str, ...]:
    """The axes of closed lists of which nothing is known yet."""
    return tuple(axis for axis in AXES if not getattr(analysis, axis))


def filled(analysis: PromptAnalysis, found: Mapping[str, Sequence[str]], stage: Stage, prompt: str) -> PromptAnalysis:
    """The analysis with what a later `stage` found in the whole prompt, by axis.

    Only open axes are filled, only with values of the closed lists, and never with what the prompt excludes; an emotion
    only where somebody can have it. The evidence of such a value spans the whole prompt and repeats no words of it.
    """
    excluded = _excluded(analysis.negated)
    added: dict[str, Any] = {}
    evidence: list[Evidence] = []
    feels = {*analysis.subject, *found.get("subject", ())} & SOMEONE
    for axis in open_axes(analysis):
        if axis == "emotion" and not feels:
            continue
        wanted = dict.fromkeys(found.get(axis, ()))
        values = tuple(value for value in wanted if value in AXES[axis] and (axis, value) not in excluded)
        if values:
            added[axis] = values
            evidence += [Evidence(axis, value, "", (0, len(prompt)), stage) for value in values]
    return replace(analysis, **added, evidence=(*analysis.evidence, *evidence)) if added else analysis


def affirmed(prompt: str, analysis: PromptAnalysis) -> str:
    """What the prompt asks for, for readers who do not know its marks: one line without the phrases that it excludes,
    without what is to be written in the picture, without LoRA tags, weights and brackets.
    """
    text = _words(_QUOTED.sub(" ", _TAG.sub(" ", prompt)))
    for phrase in sorted({_words(one) for one in (*analysis.negated, *analysis.text)} - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w)['‘]?{re.escape(phrase)}(?!\w)['’]?", " ", text, flags=re.IGNORECASE)
    return re.sub(r"\s+([,.;])", r"\1", " ".join(text.split())).strip(" ,.;")


def _words(text: str) -> str:
    """A text without the marks of prompts: weights, brackets, alternatives, underscores."""
    return " ".join(_MARKS.sub(" ", _WEIGHT.sub("", text)).split())


def _excluded(negated: Sequence[str]) -> set[tuple[str, str]]:
    """The values that phrases name, by axis: as rules read them, and where a word is a value's own name."""
    named = {_stem(word) for phrase in negated for word in re.findall(r"\w+", phrase)}
    values = {
        (axis, one)
        for axis, all_of_it in AXES.items()
        for one in all_of_it
        if not named.isdisjoint(map(_stem, one.split("_")))
    }
    for phrase in negated:
        read = analyse(phrase)
        values |= {(axis, one) for axis in AXES for one in getattr(read, axis)}
    if ("subject", "person") in values or ("subject", "group") in values:
        values |= {("subject", "person"), ("subject", "group")}  # without people, without anybody
    return values


def _stem(word: str) -> str:
    """Enough for the plurals of both languages; what it takes for the same is left out, which is the safe side."""
    return re.sub(r"(?:es|s)$", "", word.casefold())
