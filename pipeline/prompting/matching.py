"""Finds the phrases of the vocabulary in a prompt: of each axis the longest, from left to right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipeline.prompting.tokens import Tokens
from pipeline.prompting.vocabulary_files import PromptVocabulary, Sense

_SHORTEST_MISSPELT = 6
_LONGEST_MISSPELT = 24

_NOUNS = frozenset({"subject", "things"})


@dataclass(frozen=True, slots=True)
class Match:
    """A phrase in the prompt: the words from `first` to before `last`, and one thing that it says."""

    first: int
    last: int
    axis: str
    value: str
    language: str
    frame: bool
    read_as: str | None = None


def find_matches(tokens: Tokens, vocabulary: PromptVocabulary) -> list[Match]:
    """All matches in the order of the text. Misspelt words are read as the words next to them.

    Phrases of `homographs.nothing` are not among them; they have silenced what lies inside them.
    """
    words, read_as = _read(tokens, vocabulary)
    lengths, phrases, segments = vocabulary.lengths, vocabulary.phrases, tokens.segments
    count = len(words)
    until: dict[str, int] = {}
    guards: dict[int, tuple[int, int, str]] = {}
    found: list[Match] = []
    for first, word in enumerate(words):
        for length in lengths.get(word, ()):
            last = first + length
            if last > count or segments[last - 1] != segments[first]:
                continue
            senses = phrases.get(tuple(words[first:last]))
            if senses is None:
                continue
            fresh = [sense for sense in senses if until.get(sense.axis, 0) <= first]
            for sense in fresh:
                until[sense.axis] = last
                if sense.axis == "nothing":
                    guards.update(dict.fromkeys(range(first, last), (first, last, sense.language)))
                else:
                    found.append(_match(first, last, sense, read_as))
    if not guards:
        return found
    return [match for match in found if match.first not in guards or not _silenced(match, *guards[match.first])]


def _match(first: int, last: int, sense: Sense, read_as: dict[int, str]) -> Match:
    assumed = None
    if read_as:
        assumed = " ".join(read_as[at] for at in range(first, last) if at in read_as) or None
    return Match(first, last, *sense, assumed)


def _silenced(match: Match, first: int, last: int, language: str) -> bool:
    """Whether a match lies within a phrase that says nothing. Its head stays a noun: the last word, or in Spanish the
    first."""
    if match.first < first or match.last > last or (match.first, match.last) == (first, last):
        return False
    if match.axis not in _NOUNS:
        return True
    return match.first != first if language == "es" else match.last != last


def _read(tokens: Tokens, vocabulary: PromptVocabulary) -> tuple[list[str], dict[int, str]]:
    """The words as they are meant, and by place those that were misspelt."""
    known = vocabulary.known
    words = tokens.words
    unknown = [at for at, word in enumerate(words) if len(word) >= _SHORTEST_MISSPELT and word not in known]
    read_as: dict[int, str] = {}
    for at in unknown:
        if meant := meant_word(words[at], vocabulary):
            if not read_as:
                words = list(words)
            words[at] = read_as[at] = meant
    return words, read_as


@lru_cache(maxsize=20_000)
def meant_word(word: str, vocabulary: PromptVocabulary) -> str | None:
    """The word of the vocabulary at distance 1: one letter more, less, or other, or two exchanged. None if none is."""
    if len(word) > _LONGEST_MISSPELT or not word.isalpha():
        return None
    nearby = vocabulary.by_ends
    candidates = {*nearby.get(word[:3], ()), *nearby.get("-" + word[-3:], ())}
    near = [one for one in candidates if -2 < len(one) - len(word) < 2 and _one_apart(word, one)]
    # Of several, the one that agrees longest from the front: a first letter is seldom mistyped.
    return min(near, key=lambda candidate: (-_common_start(word, candidate), candidate), default=None)


def _one_apart(one: str, other: str) -> bool:
    start = _common_start(one, other)
    rest, rest_of_other = one[start:], other[start:]
    if len(one) == len(other):
        return rest[1:] == rest_of_other[1:] or (rest[:2] == rest_of_other[1::-1] and rest[2:] == rest_of_other[2:])
    return rest[1:] == rest_of_other or rest == rest_of_other[1:]


def _common_start(one: str, other: str) -> int:
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return length
