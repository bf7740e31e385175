"""What a prompt excludes: from a word such as "without" to the end of its phrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.prompting.matching import Match
from pipeline.prompting.tokens import Tokens
from pipeline.prompting.vocabulary_files import PromptVocabulary

_LONGEST_PHRASE = 8
_LONGEST_CLAUSE = 20
_OR = frozenset({"or", "nor", "and", "y", "e", "o", "u", "ni"})
_BUT = frozenset({"but", "pero", "sino", "just", "only", "sólo", "solo"})
_SKIPPED = frozenset(
    {"any", "a", "an", "the", "some", "single", "visible", "of", "more"}
    | {"un", "una", "el", "la", "los", "las", "ningún", "ninguna", "ningun", "de", "más"}
)
_CONTINUES = frozenset({"of", "de", "del"})


def negated_spans(
    tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary, language: str
) -> list[tuple[int, int, int]]:
    """Each excluded phrase: the place of the negation, and of its first word and after its last."""
    spans: list[tuple[int, int, int]] = []
    negations = [match for match in matches if match.axis == "negation"]
    harmless = {at for match in negations if match.value == "harmless" for at in range(match.first, match.last)}
    kinds: dict[tuple[int, int], set[str]] = {}
    for match in negations:
        kinds.setdefault((match.first, match.last), set()).add(match.value)
    covered = 0
    for match in negations:
        if match.first < covered or match.first in harmless or _said_otherwise(match, kinds, language):
            continue
        for first, last in _phrases(tokens, match.last, match.value == "clause", vocabulary):
            spans.append((match.first, first, last))
            covered = max(covered, last)
    found = {(first, last) for _, first, last in spans}
    for at in tokens.glued:  # text-free
        if tokens.words[at] == "free" and (at - 1, at) not in found:
            spans.append((at - 1, at - 1, at))
    return sorted(spans, key=lambda span: span[1])


def _said_otherwise(match: Match, kinds: Mapping[tuple[int, int], set[str]], language: str) -> bool:
    """Whether the words are a negation of the other language too, and the prompt is in that: "no" reaches further in
    Spanish."""
    if len(kinds[match.first, match.last]) == 1:
        return False
    return match.language != ("es" if language == "es" else "en")


def _phrases(tokens: Tokens, first: int, clause: bool, vocabulary: PromptVocabulary) -> list[tuple[int, int]]:
    words, segments = tokens.words, tokens.segments
    count = len(words)
    if not 0 < first < count or segments[first] != segments[first - 1]:
        return []
    found: list[tuple[int, int]] = []
    while first < count and words[first] in _SKIPPED and segments[first] == segments[first - 1]:
        first += 1
    at = first
    limit = min(count, first + (_LONGEST_CLAUSE if clause else _LONGEST_PHRASE))
    while at < limit and segments[at] == segments[first]:
        word = words[at]
        if word in _BUT:
            break
        if word in _OR and not clause:
            if at + 1 >= limit or _ends(words[at + 1], vocabulary):
                break
            if at > first:
                found.append((first, at))
            first = at + 1
            while first < limit and words[first] in _SKIPPED:
                first += 1
            at = first
            continue
        ends = word in vocabulary.function_words and word not in _CONTINUES and words[at - 1] not in _CONTINUES
        if ends and not clause and at > first:
            break
        at += 1
    if at > first:
        found.append((first, at))
    return found


def _ends(word: str, vocabulary: PromptVocabulary) -> bool:
    """Whether what follows an "and" is no more excluded: it begins with an article, a preposition, a verb."""
    return word in vocabulary.function_words and word not in ("any", "ningún", "ninguna", "ni")
