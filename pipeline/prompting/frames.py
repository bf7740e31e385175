"""Which words are said of the picture and which of a thing in it.

"Gothic" frames the picture in "gothic style" and between commas; in "a gothic cathedral" it belongs to the cathedral.
A "drawing" is the picture at the beginning, and something in it after "holding a".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.prompting.analysis import SOMEONE
from pipeline.prompting.matching import Match
from pipeline.prompting.tokens import Tokens
from pipeline.prompting.vocabulary_files import PromptVocabulary

_FRAMING = frozenset({"medium", "style", "quality", "lighting", "mood", "shot", "aspect"})
_BY = frozenset({"by", "por", "after", "estilo", "like", "style"})
_STYLE_OF = frozenset(
    {"style", "styles", "estilo", "inspired", "manner", "manera", "inspirado", "inspirada", "works", "obras", "spirit"}
)
_BETWEEN = frozenset(
    {"and", "y", "e", "n", "or", "o", "with", "con", "plus", "mixed", "very", "muy", "highly", "more", "slightly"}
    | {"a", "an", "the", "un", "una", "el", "la"}
)
_MATERIALS = frozenset({"stained_glass", "embroidery", "mosaic"})
_MADE = frozenset({"object", "clothing", "interior", "building", "part"})
"""A stained glass lamp is a lamp; a stained glass fox is in stained glass."""

_STEPS = 6
"""Words to look at before a medium for the beginning of its noun phrase."""

_FARTHEST = 20
"""Words to look at on either side for what a word of the picture stands beside; an enumeration may be endless."""


def of_the_picture(tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary) -> list[Match]:
    """The matches of medium and style that are said of the picture; those of other axes as they are."""
    lists = vocabulary.lists
    framing = {at for one in matches if one.axis in _FRAMING for at in range(one.first, one.last)}
    named = {at for one in matches if one.axis in ("medium", "style") for at in range(one.first, one.last)}
    things = {one.first: one.value for one in matches if one.axis in ("subject", "things")}
    someone = {
        at for one in matches if one.axis == "subject" and one.value in SOMEONE for at in (one.first, one.last - 1)
    }
    kept: list[Match] = []
    for match in matches:
        if match.frame:
            if _frames(tokens, match, framing, named, lists):
                kept.append(match)
        elif match.axis != "medium" or not (
            _is_done(tokens, match, vocabulary, someone)
            or (match.value in _MATERIALS and things.get(match.last) in _MADE)
            or _lies_inside(tokens, match, vocabulary, framing)
        ):
            kept.append(match)
    return kept


def _frames(
    tokens: Tokens, match: Match, framing: set[int], named: set[int], lists: Mapping[str, frozenset[str]]
) -> bool:
    words, segments = tokens.words, tokens.segments
    pictures = lists["pictures"]
    segment = segments[match.first]

    def inside(at: int) -> bool:
        near = match.first - _FARTHEST <= at < match.last + _FARTHEST
        return near and 0 <= at < len(words) and segments[at] == segment

    after = match.last
    if inside(after) and (words[after] in pictures or after in named):
        return True
    before = match.first - 1
    while inside(before) and words[before] in ("the", "el", "la", "los", "las", "un", "una"):
        before -= 1
    if inside(before) and (words[before] in _BY or (words[before] in pictures and match.language == "es")):
        return True
    if inside(before - 1) and words[before] in ("of", "de", "del", "by", "en") and words[before - 1] in _STYLE_OF:
        return True
    # Otherwise it must stand alone: nothing of the phrase beside it but other words of the picture.
    while inside(after) and (words[after] in _BETWEEN or words[after] in pictures or after in framing):
        after += 1
    if inside(after) and not (match.axis == "medium" and words[after] in ("of", "de", "on", "sobre")):
        return False
    before = match.first - 1
    while inside(before) and (words[before] in _BETWEEN or before in framing):
        before -= 1
    return not inside(before) or words[before] in lists["of_pictures"] or words[before] in pictures


def _is_done(tokens: Tokens, match: Match, vocabulary: PromptVocabulary, someone: set[int]) -> bool:
    """Whether a painting is what someone is doing: "painting a fence", "is drawing", "a man painting"."""
    words, segments = tokens.words, tokens.segments
    if match.last - match.first > 1 or words[match.first] not in vocabulary.lists["verbs"]:
        return False
    after, before = match.last, match.first - 1
    same = segments[match.first]
    if after < len(words) and segments[after] == same and words[after] in vocabulary.lists["determiner"]:
        return True
    if before < 0 or segments[before] != same:
        return False
    return before in someone or words[before] in ("is", "are", "was", "were", "está", "están", "who", "que", "while")


def _lies_inside(tokens: Tokens, match: Match, vocabulary: PromptVocabulary, framing: set[int]) -> bool:
    """Whether a medium is a thing in the picture: "holding a photo", "a wall with paintings"."""
    words, segments, lists = tokens.words, tokens.segments, vocabulary.lists
    start = _phrase_start(tokens, match.first, vocabulary)
    if start == 0 or segments[start - 1] != segments[match.first]:
        return False
    before = words[start - 1]
    if before in lists["of_pictures"] or before in lists["pictures"] or start - 1 in framing:
        return False
    if start > 1 and (words[start - 2] in _STYLE_OF or words[start - 2] in lists["pictures"] or start - 2 in framing):
        return words[start] in lists["determiner"] and words[start - 2] not in _STYLE_OF
    return words[start] in lists["determiner"] or before in lists["preposition"]


def _phrase_start(tokens: Tokens, at: int, vocabulary: PromptVocabulary) -> int:
    """The place of the first word of the noun phrase around a word: its article, or what follows a function word."""
    words, segments = tokens.words, tokens.segments
    for _ in range(_STEPS):
        if at == 0 or segments[at - 1] != segments[at]:
            return at
        if words[at - 1] in vocabulary.lists["determiner"]:
            return at - 1
        if words[at - 1] in vocabulary.function_words:
            return at
        at -= 1
    return at
