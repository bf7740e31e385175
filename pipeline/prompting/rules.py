"""The first stage of understanding a prompt: rules over vocabularies. No network, no model, microseconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from pipeline.prompting.analysis import AXES, SOMEONE, Aspect, Evidence, PromptAnalysis, Quality
from pipeline.prompting.frames import of_the_picture
from pipeline.prompting.matching import Match, find_matches
from pipeline.prompting.negation import negated_spans
from pipeline.prompting.pairs import Pair, find_colours, find_physical
from pipeline.prompting.subjects import Counted, find_subjects
from pipeline.prompting.tokens import Tokens, tokenise
from pipeline.prompting.vocabulary_files import PromptVocabulary, load_vocabulary
from pipeline.ranges import MAX_TEXT_LENGTH

_NO_COLOURS = frozenset({"style", "medium", "lighting", "time"})
"""Axes whose phrases hold words of colour that colour nothing: black and white photography."""

_NOUNS = frozenset({"subject", "things"})
_MANY = 3
"""From this number on a picture has many subjects, as people become a group."""

_MIXED = 0.2
"""The share of words of the other language from which a prompt is of both."""


def analyse(prompt: str, vocabulary: PromptVocabulary | None = None) -> PromptAnalysis:
    """What a prompt asks for, as far as words say it. Any text is allowed; nothing is read beyond the longest prompt
    that a job may have (`pipeline.ranges.MAX_TEXT_LENGTH`)."""
    vocabulary = load_vocabulary() if vocabulary is None else vocabulary
    tokens = tokenise(prompt[:MAX_TEXT_LENGTH], vocabulary.lists["writing"])
    return _Reading(tokens, vocabulary).analysis()


class _Reading:
    """One prompt being read: what was found so far, with its evidence."""

    def __init__(self, tokens: Tokens, vocabulary: PromptVocabulary) -> None:
        self.tokens = tokens
        self.vocabulary = vocabulary
        self.evidence: list[Evidence] = []
        self.seen: set[tuple[str, str]] = set()

    def analysis(self) -> PromptAnalysis:
        tokens, vocabulary = self.tokens, self.vocabulary
        matches = find_matches(tokens, vocabulary)
        language = _language(tokens, matches, vocabulary)
        matches = _in_language(tokens, matches, vocabulary, language)
        negated = self._negated(matches, language)
        matches = of_the_picture(tokens, self._without(matches, negated), vocabulary)
        matches = _outside_phrases(_outside_phrases(matches, {"aspect"}), _NO_COLOURS, {"colours"})
        colours, coloured = find_colours(tokens, matches, vocabulary)
        matches = _settled(matches, coloured)
        subjects, counted = find_subjects(tokens, matches, vocabulary)
        subjects = _with_sitter(subjects, matches)
        physical = find_physical(tokens, matches, subjects, colours, vocabulary)
        felt = any(one.value in SOMEONE for one in subjects)

        values: dict[str, list[str]] = {axis: [] for axis in (*AXES, "aspect", "quality")}
        for match in subjects:
            self._add(values, match)
        for match in matches:
            if match.axis in values and match.axis != "subject" and (felt or match.axis != "emotion"):
                self._add(values, match)
        text, named = self._asides("text"), self._asides("named")
        if text:
            values["needs"].insert(0, "text")
            self._note("needs", "text", next(one.span for one in self.evidence if one.axis == "text"))
        self._many(values, subjects, counted)
        if counted is not None:
            self._note("count", str(counted.number), tokens.span(counted.first, counted.last))
        of_axes: dict[str, Any] = {axis: tuple(dict.fromkeys(values[axis])) for axis in AXES}
        return PromptAnalysis(
            **of_axes,
            count=None if counted is None else counted.number,
            colours=self._pairs("colours", colours),
            physical=self._pairs("physical", physical),
            text=text,
            aspect=cast("Aspect | None", next(iter(values["aspect"]), None)),
            quality=cast("Quality | None", next(iter(values["quality"]), None)),
            negated=tuple(dict.fromkeys(tokens.text(first, last) for _, first, last in negated)),
            language=language,
            named=named,
            evidence=tuple(sorted(self.evidence, key=lambda one: (one.span, one.axis, one.value))),
        )

    def _negated(self, matches: Sequence[Match], language: str) -> list[tuple[int, int, int]]:
        negated = negated_spans(self.tokens, matches, self.vocabulary, language)
        for _, first, last in negated:
            self._note("negated", self.tokens.text(first, last), self.tokens.span(first, last))
        return negated

    def _without(self, matches: Iterable[Match], negated: Sequence[tuple[int, int, int]]) -> list[Match]:
        """The matches outside of what is excluded. A phrase that begins with the negation itself (no background)
        stays."""
        excluded = {at for start, first, last in negated for at in (*range(first, last), *range(start + 1, first))}
        if not excluded:
            return [one for one in matches if one.axis != "negation"]
        return [
            one
            for one in matches
            if one.axis != "negation"
            and one.first not in excluded
            and (one.axis == "needs" or one.last - 1 not in excluded)
        ]

    def _add(self, values: dict[str, list[str]], match: Match) -> None:
        values[match.axis].append(match.value)
        self._note(match.axis, match.value, self.tokens.span(match.first, match.last), match.read_as)

    def _note(self, axis: str, value: str, span: tuple[int, int], read_as: str | None = None) -> None:
        """Keeps the first words that say a value."""
        if (axis, value) not in self.seen:
            self.seen.add((axis, value))
            words = self.tokens.prompt[span[0] : span[1]]
            self.evidence.append(Evidence(axis, value, words, span, read_as=read_as))

    def _pairs(self, axis: str, pairs: Sequence[Pair]) -> tuple[tuple[str, str], ...]:
        for pair in pairs:
            self._note(axis, f"{pair.left}: {pair.right}", self.tokens.span(pair.first, pair.last))
        return tuple(dict.fromkeys((pair.left, pair.right) for pair in pairs))

    def _asides(self, kind: str) -> tuple[str, ...]:
        found = [aside for aside in self.tokens.asides if aside.kind == kind]
        for aside in found:
            self._note(kind, aside.content, aside.content_span)
        return tuple(dict.fromkeys(aside.content for aside in found))

    def _many(self, values: dict[str, list[str]], subjects: Sequence[Match], counted: Counted | None) -> None:
        if counted is not None and counted.number >= _MANY:
            span = self.tokens.span(counted.first, counted.last)
        elif group := next((one for one in subjects if one.value == "group"), None):
            span = self.tokens.span(group.first, group.last)
        else:
            return
        values["needs"].append("many_subjects")
        self._note("needs", "many_subjects", span)


def _outside_phrases(
    matches: Sequence[Match], axes: Collection[str], silenced: Collection[str] | None = None
) -> list[Match]:
    """Without what lies within a longer phrase of these axes: there is no landscape in "landscape format", and nothing
    gold in "golden hour". `silenced`: only matches of these axes are left out."""
    longest = {at: one for one in matches if one.axis in axes for at in range(one.first, one.last)}
    if not longest:
        return list(matches)
    return [
        one
        for one in matches
        if (silenced is not None and one.axis not in silenced)
        or one.first not in longest
        or one.last - one.first >= longest[one.first].last - longest[one.first].first
    ]


def _settled(matches: Sequence[Match], coloured: set[int]) -> list[Match]:
    """Without the nouns that turned out to be colours (an orange cat), and without the colours that are nouns."""
    return [
        one
        for one in matches
        if (
            one.first in coloured
            if one.axis == "colours"
            else not (one.axis in _NOUNS and one.first in coloured and one.last - 1 in coloured)
        )
    ]


def _with_sitter(subjects: list[Match], matches: Sequence[Match]) -> list[Match]:
    """A portrait of nobody that is known is one of a person."""
    if not subjects:
        return [replace(one, axis="subject", value="person") for one in matches if _is_portrait(one)][:1]
    return subjects


def _is_portrait(match: Match) -> bool:
    return (match.axis, match.value) == ("shot", "portrait") or match.axis == "emotion"


def _in_language(tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary, language: str) -> list[Match]:
    """Of words that both languages have, what they say in the one that is spoken: a Spanish "mesa" is a table."""
    both: dict[tuple[str, int, int], set[str]] = {}
    for one in matches:
        both.setdefault((one.axis, one.first, one.last), set()).add(one.language)
    if all(len(languages) < 2 for languages in both.values()):
        return list(matches)
    kept: list[Match] = []
    for one in matches:
        spoken = language
        if len(both[one.axis, one.first, one.last]) < 2:
            spoken = one.language
        elif language == "mixed":
            before = tokens.words[one.first - 1] if one.first else ""
            spoken = "es" if before in vocabulary.spanish else "en"
        if one.language == spoken or one.axis == "negation":
            kept.append(one)
    return kept


def _language(tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary) -> str:
    english = len([word for word in tokens.words if word in vocabulary.english])
    spanish = len([word for word in tokens.words if word in vocabulary.spanish])
    by_place: dict[tuple[int, int], set[str]] = {}
    for match in matches:
        by_place.setdefault((match.first, match.last), set()).add(match.language)
    english += len([one for one in by_place.values() if one == {"en"}])
    spanish += len([one for one in by_place.values() if one == {"es"}])
    if min(english, spanish) >= 1 and min(english, spanish) / (english + spanish) >= _MIXED:
        return "mixed"
    return "es" if spanish > english else "en"
