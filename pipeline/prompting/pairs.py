"""Colours with what has them, and what people and animals look like."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.prompting.analysis import SOMEONE
from pipeline.prompting.matching import Match
from pipeline.prompting.tokens import Tokens
from pipeline.prompting.vocabulary_files import PromptVocabulary

_REACH = 4
"""Words between a colour and the noun that has it."""

_AND = frozenset({"and", "y", "e", "or", "o", "&"})
_IS = frozenset(
    {"is", "are", "was", "were", "es", "son", "era", "in", "de", "color"}
    | {"painted", "colored", "coloured", "dyed", "turned", "pintado", "pintada"}
)
_HAIR = frozenset(
    {"hair", "hairs", "pelo", "cabello", "cabellos", "melena", "locks", "braids", "trenzas", "curls", "cabellera"}
)
_EYES = frozenset({"eye", "eyes", "ojo", "ojos"})
_NEEDS_NOUN = frozenset({"age", "build"})


@dataclass(frozen=True, slots=True)
class Pair:
    """Two words that belong together (red, car; hair, red), and the words of the prompt that say so."""

    left: str
    right: str
    first: int
    last: int


def find_colours(tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary) -> tuple[list[Pair], set[int]]:
    """Colours with their things; and the places of words that are colours here and things elsewhere (orange)."""
    nouns: dict[int, int] = {}
    ends: dict[int, int] = {}
    colours = [one for one in matches if one.axis == "colours"]
    if not colours:
        return [], set()
    doubtful = {(one.first, one.last) for one in colours} & {
        (one.first, one.last) for one in matches if one.axis in ("subject", "things")
    }
    for one in matches:
        if one.axis in ("subject", "things") and (one.first, one.last) not in doubtful:
            _remember(one, nouns, ends)
    coloured = {at for one in colours for at in range(one.first, one.last)}
    things: list[tuple[Match, tuple[int, int]]] = []
    # Words that may be either first: those that are no colours are what other colours are said of.
    for colour in sorted(colours, key=lambda one: (one.first, one.last) not in doubtful):
        is_doubtful = (colour.first, colour.last) in doubtful
        thing = _thing(tokens, colour, nouns, ends, coloured, vocabulary, is_doubtful)
        if thing is not None:
            things.append((colour, thing))
        elif is_doubtful:
            _remember(colour, nouns, ends)
            coloured.difference_update(range(colour.first, colour.last))
    pairs: list[Pair] = []
    said: set[int] = set()
    for colour, (first, last) in sorted(things, key=lambda one: one[0].first):
        said.update(range(colour.first, colour.last))
        name = tokens.text(first, last).lower().removesuffix("'s")
        pairs.append(Pair(colour.value, name, min(first, colour.first), max(last, colour.last)))
    return pairs, said


def _remember(noun: Match, nouns: dict[int, int], ends: dict[int, int]) -> None:
    nouns[noun.first] = max(nouns.get(noun.first, 0), noun.last)
    ends[noun.last] = min(ends.get(noun.last, noun.first), noun.first)


def _thing(
    tokens: Tokens,
    colour: Match,
    nouns: dict[int, int],
    ends: dict[int, int],
    coloured: set[int],
    vocabulary: PromptVocabulary,
    doubtful: bool,
) -> tuple[int, int] | None:
    before = _noun_before(tokens, colour, ends, coloured, vocabulary, doubtful)
    if colour.language == "es" and before and not _is_english_here(tokens, colour, nouns):
        return before
    after = None if colour.language == "es" and doubtful else _noun_after(tokens, colour, nouns, coloured, vocabulary)
    if after is None and not doubtful:
        return before or _noun_said_of(tokens, colour, ends, vocabulary)
    return after


def _is_english_here(tokens: Tokens, colour: Match, nouns: dict[int, int]) -> bool:
    """A word of both languages (magenta, beige) right before a noun."""
    return colour.last in nouns and tokens.words[colour.first].isascii() and colour.value == tokens.words[colour.first]


def _noun_after(
    tokens: Tokens, colour: Match, nouns: dict[int, int], coloured: set[int], vocabulary: PromptVocabulary
) -> tuple[int, int] | None:
    words, segments = tokens.words, tokens.segments
    count, segment = len(words), segments[colour.first]
    at = colour.last
    reach = min(count, at + 2 * _REACH)
    while at < reach and segments[at] <= segment + 1 and (at in coloured or (words[at] in _AND and at + 1 in coloured)):
        if segments[at] != segment and at not in coloured:
            break
        at += 1
    if at >= count or (segments[at] != segment and at == colour.last):
        return None
    segment = segments[at]
    start = at
    while at < count and at < start + _REACH and segments[at] == segment:
        if at in nouns:
            last = nouns[at]
            while last in nouns and segments[last] == segment and last < at + _REACH:
                last = nouns[last]
            return at, last
        if words[at] in vocabulary.function_words:
            break
        at += 1
    known = at == start or start >= count or words[start] in vocabulary.function_words
    if known or segments[start] != segment or colour.language == "es":
        return None
    return start, start + 1


def _noun_before(
    tokens: Tokens,
    colour: Match,
    ends: dict[int, int],
    coloured: set[int],
    vocabulary: PromptVocabulary,
    doubtful: bool,
) -> tuple[int, int] | None:
    """The noun before a Spanish colour: ojos de color azul; but tazas de café are of coffee."""
    words, segments = tokens.words, tokens.segments
    of = () if doubtful else ("de", "color")
    for at in range(colour.first, max(0, colour.first - _REACH - 1), -1):
        if segments[at - 1] != segments[colour.first]:
            return None
        if at in ends and words[at - 1] != "color":
            return ends[at], at
        word = words[at - 1]
        passes = at - 1 in coloured or word in _AND or word in of or word not in vocabulary.function_words
        if not passes or colour.language != "es":
            return None
    return None


def _noun_said_of(
    tokens: Tokens, colour: Match, ends: dict[int, int], vocabulary: PromptVocabulary
) -> tuple[int, int] | None:
    """The noun of "the car is red" and "a dress in red"."""
    words, segments = tokens.words, tokens.segments
    for at in range(colour.first, max(0, colour.first - _REACH - 1), -1):
        if segments[at - 1] != segments[colour.first]:
            return None
        if at in ends:
            return ends[at], at
        if words[at - 1] in vocabulary.function_words and words[at - 1] not in _IS | _AND:
            return None
    return None


def find_physical(
    tokens: Tokens,
    matches: Sequence[Match],
    subjects: Sequence[Match],
    colours: Sequence[Pair],
    vocabulary: PromptVocabulary,
) -> list[Pair]:
    """What someone looks like: nothing where the prompt has neither person, animal, creature nor robot."""
    if not any(one.value in SOMEONE for one in subjects):
        return []
    pairs = [*_said(tokens, matches, subjects, vocabulary)]
    for pair in colours:
        head = pair.right.split()[-1:] or [""]
        for part, words in (("hair", _HAIR), ("eyes", _EYES)):
            if head[0] in words or pair.right.split()[:1] == ["pelo"]:
                pairs.append(replace(pair, left=part, right=pair.left))
                break
    return sorted(pairs, key=lambda pair: pair.first)


def _said(
    tokens: Tokens, matches: Sequence[Match], subjects: Sequence[Match], vocabulary: PromptVocabulary
) -> Iterator[Pair]:
    someone = {at for one in subjects if one.value in SOMEONE for at in range(one.first, one.last)}
    main = (subjects[0].first, subjects[0].last)
    for one in matches:
        if one.axis == "physical":
            kind, _, value = one.value.partition(": ")
            if kind not in _NEEDS_NOUN or _is_of_someone(tokens, one, someone, vocabulary):
                yield Pair(kind, value, one.first, one.last)
        elif one.axis == "things" and one.value == "clothing" and (one.first, one.last) != main:
            yield Pair("clothing", tokens.text(one.first, one.last).lower(), one.first, one.last)
        elif one.axis == "things" and one.value == "body" and one.last == one.first + 1:
            yield from _adjectives(tokens, one.first, vocabulary)


def _adjectives(tokens: Tokens, at: int, vocabulary: PromptVocabulary) -> Iterator[Pair]:
    """What is said of hair with a colour between: long red hair, pelo rubio y largo."""
    words, segments = tokens.words, tokens.segments
    for near in (at - 3, at - 2, at + 2, at + 3):
        if 0 <= near < len(words) and segments[near] == segments[at]:
            phrase = (words[near], words[at]) if near < at else (words[at], words[near])
            for sense in vocabulary.phrases.get(phrase, ()):
                if sense.axis == "physical":
                    kind, _, value = sense.value.partition(": ")
                    yield Pair(kind, value, min(near, at), max(near, at) + 1)


def _is_of_someone(tokens: Tokens, match: Match, someone: Collection[int], vocabulary: PromptVocabulary) -> bool:
    """Whether an adjective stands at a person or animal: an old man, not an old house."""
    if any(at in someone for at in range(match.first, match.last)):
        return True
    words, segments = tokens.words, tokens.segments
    for places in (range(match.last, match.last + 3), range(match.first - 1, match.first - 4, -1)):
        for at in places:
            outside = not 0 <= at < len(words) or segments[at] != segments[match.first]
            if outside or words[at] in vocabulary.function_words:
                break
            if at in someone:
                return True
    return False
