"""A prompt as it is compared with candidates: its values, and its words without what it excludes or quotes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.prompting.analysis import PromptAnalysis, Quality
from pipeline.selection.claims import Read
from pipeline.selection.features import LOOKS, SCORED
from pipeline.selection.words import LONGEST_PROMPT, Word, words_of

Span = tuple[int, int]

_TAG_LIKE = re.compile(
    r"\b(?:[1-6](?:girl|boy)s?|score_\d\w*|masterpiece|absurdres|newest|rating_\w+|[a-z]+_[a-z_]+)\b"
)
_LONG_PROSE = 60
"""Words from which a prompt is long prose; CLIP reads about as many at once."""

_REMOVABLE = (*SCORED, "needs")


@dataclass(frozen=True, slots=True)
class Asked:
    """`words` are those of `text` that are meant: not excluded, not to be written. `is_tags`: written in booru tags.

    `quality` is the user's, else that of the prompt; `wished_quality` is the user's alone.
    """

    text: str
    analysis: PromptAnalysis
    words: tuple[Word, ...]
    quality: Quality | None
    wished_quality: Quality | None
    is_tags: bool
    is_prose: bool

    def without(self, span: Span) -> Asked:
        """The same prompt without the words at this place, and without the values that only they gave."""
        start, end = span
        analysis = self.analysis
        evidence = tuple(
            one for one in analysis.evidence if not (one.words and one.span[0] < end and start < one.span[1])
        )
        changed: dict[str, Any] = {}
        if len(evidence) < len(analysis.evidence):
            still = {(one.axis, one.value) for one in evidence}
            lost = {(one.axis, one.value) for one in analysis.evidence} - still
            for axis in {axis for axis, _ in lost if axis in _REMOVABLE}:
                changed[axis] = tuple(value for value in getattr(analysis, axis) if (axis, value) not in lost)
        return replace(
            self,
            analysis=replace(analysis, evidence=evidence, **changed),
            words=tuple(word for word in self.words if word.end <= start or word.start >= end),
        )

    def read_without(self, span: Span, read: Read) -> Asked:
        """The prompt without the words at this place, read anew; what later stages had found is kept where it is open.

        Slower than `without`, and true: other words may mean something else then.
        """
        text = f"{self.text[: span[0]]}{self.text[span[1] :]}"
        analysis = read(text)
        later = {one.axis for one in self.analysis.evidence if one.stage != "rules"}
        kept: dict[str, Any] = {
            axis: getattr(self.analysis, axis) for axis in later if axis in _REMOVABLE and not getattr(analysis, axis)
        }
        return asked_by(text, replace(analysis, **kept), self.wished_quality)

    def outside_looks(self) -> list[Word]:
        """The words that ask for no look: what they have in common with a card is not counted under a look already."""
        starts = [word.start for word in self.words]
        within = {
            place
            for one in self.analysis.evidence
            if one.axis in LOOKS and one.words
            for place in range(bisect_left(starts, one.span[0]), bisect_left(starts, one.span[1]))
        }
        return [word for place, word in enumerate(self.words) if place not in within]

    def phrases(self, spans: Iterable[Span]) -> list[Span]:
        """The places of phrases that decided something, in the order of the text: of the values, and `spans`."""
        said = {one.span for one in self.analysis.evidence if one.words and one.axis in _REMOVABLE}
        return sorted({*said, *spans})


def asked_by(prompt: str, analysis: PromptAnalysis, quality: Quality | None) -> Asked:
    """What a prompt without `<lora:...>` tags asks for. `quality` is the user's, which counts before the prompt's."""
    prompt = prompt[:LONGEST_PROMPT]
    meant = prompt
    for phrase in (*analysis.negated, *analysis.text):
        if phrase:
            meant = meant.replace(phrase, " " * len(phrase))  # all places stay
    words = tuple(words_of(meant))
    return Asked(
        text=prompt,
        analysis=analysis,
        words=words,
        quality=quality or analysis.quality,
        wished_quality=quality,
        is_tags=len(_TAG_LIKE.findall(meant.casefold())) >= 2,
        is_prose=len(words) > _LONG_PROSE,
    )
