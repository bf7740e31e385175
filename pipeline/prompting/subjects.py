"""What the picture is of: the subjects, the main one first, and how many of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.prompting.analysis import SOMEONE
from pipeline.prompting.matching import Match
from pipeline.prompting.tokens import Tokens
from pipeline.prompting.vocabulary_files import PromptVocabulary

_ADJECTIVES = 4
"""Words that may stand between a number and its noun."""

_MOST = 999
"""Larger numbers are years and models."""

_OF = frozenset({"of", "de", "del"})
_AND = frozenset({"and", "y", "e"})
_PEOPLE = frozenset({"person", "group"})
_MIXED = frozenset({"animal", "creature", "food", "robot"})
_MODIFIED = frozenset({"clothing", "body", "object"})
_ONLY_MAIN = frozenset({"abstract", "text"})
"""What is a subject only as the first: later it is a pattern or what is written on a sign."""

_LOGO_IS_FOR = _ONLY_MAIN | {"interior", "building", "group"}

_THING_SUBJECTS = {"clothing": "object", "object": "object", "body": "person", "scenery": "landscape"}


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of something, with its place."""

    number: int
    first: int
    last: int


def find_subjects(
    tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary
) -> tuple[list[Match], Counted | None]:
    """The subjects, the main one first, and how many there are of that."""
    places = _places(matches)
    nouns = [one for one in matches if one.axis == "subject" and _is_subject(tokens, one, places, vocabulary)]
    if not nouns:
        things = [one for one in matches if one.axis == "things" and one.value in _THING_SUBJECTS][:1]
        nouns = [replace(one, axis="subject", value=_THING_SUBJECTS[one.value]) for one in things]
    elif worn := _worn_alone(tokens, matches, nouns, vocabulary):
        nouns.insert(0, replace(worn, axis="subject", value=_THING_SUBJECTS[worn.value]))
    heads = _heads_first(tokens, nouns)
    numbers = numbers_of(tokens, matches, vocabulary)
    starts_by_end = {noun.last: noun.first for noun in nouns}
    subjects: list[Match] = []
    main: Counted | None = None
    for place, noun in enumerate(heads):
        counted = _number_before(tokens, _compound_start(tokens, noun, starts_by_end), numbers, vocabulary)
        if place == 0:
            main = counted
        subjects.append(_person_or_group(noun, counted))
    if heads and heads[0].value in _PEOPLE and _people(tokens, heads, numbers, starts_by_end, vocabulary) > 2:
        others = [one for one in subjects[1:] if one.value not in _PEOPLE]
        subjects = [replace(subjects[0], value="group"), *others]
    if not nouns:
        main = _first_counted(tokens, numbers, places.media, vocabulary)
    without = _LOGO_IS_FOR if subjects and subjects[0].value == "logo" else _ONLY_MAIN
    return subjects[:1] + [one for one in subjects[1:] if one.value not in without], main


@dataclass(frozen=True, slots=True)
class _Places:
    """Words inside of media; inside of phrases on camera, light or clothing; and first words of nouns and of things."""

    media: frozenset[int]
    phrases: Mapping[int, Match]
    nouns: frozenset[int]
    things: Mapping[int, str]


def _places(matches: Sequence[Match]) -> _Places:
    phrases: dict[int, Match] = {}
    things: dict[int, str] = {}
    for one in matches:
        if one.axis in ("shot", "lighting", "things") and one.last - one.first > 1:
            phrases.update(dict.fromkeys(range(one.first, one.last), one))
        if one.axis == "things":
            things[one.first] = one.value
    return _Places(
        frozenset(at for one in matches if one.axis == "medium" for at in range(one.first, one.last)),
        phrases,
        frozenset(one.first for one in matches if one.axis == "subject"),
        things,
    )


def _is_subject(tokens: Tokens, noun: Match, places: _Places, vocabulary: PromptVocabulary) -> bool:
    words, segments = tokens.words, tokens.segments
    after, before = noun.last, noun.first - 1
    if noun.first in places.media and after - 1 in places.media:
        return False
    phrase = places.phrases.get(noun.first)
    if (
        phrase
        and phrase.first <= noun.first
        and after <= phrase.last
        and phrase.last - phrase.first > after - noun.first
    ):
        return False
    if before >= 0 and segments[before] == segments[noun.first]:
        if words[before] == "by" and noun.value == "person":
            return False
        if before and words[before] in _OF and words[before - 1] in ("style", "estilo", "styles", "manner"):
            return False
    if after >= len(words) or segments[after] != segments[noun.first]:
        return True
    if after in tokens.glued and after not in places.nouns:  # dream-like, well-dressed
        return False
    # A train conductor's hat is no train, a dog's bowl no dog; an old man's face is his.
    thing = places.things.get(after)
    if thing == "body" and noun.value in SOMEONE:
        return True
    if after - 1 in tokens.owner or after in tokens.owner or (thing in _MODIFIED and noun.language == "en"):
        return False
    # A bowl of soup is soup.
    if words[after] in _OF and words[after - 1] in vocabulary.lists["measures"]:
        return not _noun_follows(tokens, after + 1, places, vocabulary)
    return True


def _noun_follows(tokens: Tokens, at: int, places: _Places, vocabulary: PromptVocabulary) -> bool:
    """Whether a noun begins within the phrase that begins here."""
    for near in range(at, min(at + _ADJECTIVES, len(tokens.words))):
        if near in places.nouns:
            return True
        word = tokens.words[near]
        if word in vocabulary.function_words and word not in vocabulary.lists["determiner"]:
            return False
    return False


def _worn_alone(
    tokens: Tokens, matches: Sequence[Match], nouns: Sequence[Match], vocabulary: PromptVocabulary
) -> Match | None:
    """A thing that the picture is of: a noun of its own before all others (a dress on a chair, hands holding a cup)."""
    thing = next((one for one in matches if one.axis == "things" and one.value in _MODIFIED), None)
    first = min(noun.first for noun in nouns)
    if thing is None or thing.last >= first or tokens.segments[thing.first] != tokens.segments[0]:
        return None
    before = range(max(0, thing.first - _ADJECTIVES), thing.first)
    articles = [at for at in before if tokens.words[at] in vocabulary.lists["determiner"]]
    ends = tokens.segments[thing.last] != tokens.segments[thing.first]
    if not ends and tokens.words[thing.last] not in vocabulary.function_words:
        return None
    if not articles:
        return thing if before.start == 0 and not ends else None
    start = articles[0]
    return thing if start == 0 or tokens.words[start - 1] in _OF else None


def _heads_first(tokens: Tokens, nouns: list[Match]) -> list[Match]:
    """Of nouns side by side, the head before the others: the last in English (cat logo), the first in Spanish.

    Of the others only those stay that are more than a kind of it: a corgi pizza is both, a beach house is no beach.
    """
    ordered: list[Match] = []
    run: list[Match] = []
    for noun in nouns:
        beside = run and run[-1].last == noun.first and tokens.segments[run[-1].first] == tokens.segments[noun.first]
        if run and not beside:
            ordered += _run(run)
            run = []
        run.append(noun)
    return ordered + _run(run)


def _run(run: list[Match]) -> list[Match]:
    if len(run) < 2:
        return run
    ordered = run if run[-1].language == "es" else run[::-1]
    head = ordered[0]
    return [head, *(one for one in ordered[1:] if head.value == "logo" or one.value in _MIXED)]


def _compound_start(tokens: Tokens, noun: Match, starts: Mapping[int, int]) -> int:
    """Where a compound begins: at the first of its nouns (three apple trees)."""
    first = noun.first
    for _ in range(_ADJECTIVES):
        if first not in starts or tokens.segments[starts[first]] != tokens.segments[first]:
            break
        first = starts[first]
    return first


def numbers_of(tokens: Tokens, matches: Sequence[Match], vocabulary: PromptVocabulary) -> dict[int, Counted]:
    """The numbers that count something, by the place after their last word."""
    words, segments, units = tokens.words, tokens.segments, vocabulary.lists["units"]
    found: dict[int, Counted] = {}
    spoken = [Counted(int(one.value), one.first, one.last) for one in matches if one.axis == "numbers"]
    digits = [Counted(int(word), at, at + 1) for at, word in enumerate(words) if word.isdecimal() and len(word) <= 3]
    for counted in (*spoken, *digits):
        after = counted.last
        joined = after in tokens.glued or counted.first in tokens.glued
        if not 1 <= counted.number <= _MOST or joined:
            continue
        if after < len(words) and segments[after] == segments[counted.first] and words[after] in units:
            continue
        if counted.number == 2 and counted.last - counted.first > 1 and _is_one_pair(tokens, after, vocabulary):
            continue
        found[after] = counted
    return found


def _is_one_pair(tokens: Tokens, at: int, vocabulary: PromptVocabulary) -> bool:
    return any(word in vocabulary.lists["one_pair"] for word in tokens.words[at : at + 3])


def _number_before(
    tokens: Tokens, first: int, numbers: dict[int, Counted], vocabulary: PromptVocabulary
) -> Counted | None:
    """The number of a noun, before it with adjectives between at most."""
    words, segments = tokens.words, tokens.segments
    if not numbers:
        return None
    if (itself := numbers.get(first + 1)) and itself.first == first:  # 2girls
        return itself
    for at in range(first, max(-1, first - _ADJECTIVES - 1), -1):
        if at in numbers and (at == len(words) or segments[at - 1] == segments[first]):
            return numbers[at]
        if at == 0 or segments[at - 1] != segments[first] or words[at - 1] in vocabulary.function_words:
            return None
    return None


def _people(
    tokens: Tokens,
    heads: Sequence[Match],
    numbers: dict[int, Counted],
    starts: Mapping[int, int],
    vocabulary: PromptVocabulary,
) -> int:
    """How many people an enumeration has from the first on: a mother and her two children are three."""
    total, end = 0, heads[0].first
    for noun in heads:
        between = tokens.words[end : noun.first]
        joined = not total or (len(between) <= 2 * _ADJECTIVES and _AND.intersection(between))
        words = [word for word in between if word in vocabulary.function_words and word not in _AND]
        if noun.value not in _PEOPLE or not joined or any(word not in vocabulary.lists["determiner"] for word in words):
            break
        counted = _number_before(tokens, _compound_start(tokens, noun, starts), numbers, vocabulary)
        total += counted.number if counted else 1
        end = noun.last
    return total


def _first_counted(
    tokens: Tokens, numbers: dict[int, Counted], media: frozenset[int], vocabulary: PromptVocabulary
) -> Counted | None:
    """The number before the first noun that no vocabulary knows."""
    for at in sorted(numbers):
        known = at >= len(tokens.words) or at in media or tokens.words[at] in vocabulary.function_words
        if not known and tokens.words[at] not in vocabulary.lists["pictures"]:
            return numbers[at]
    return None


def _person_or_group(noun: Match, counted: Counted | None) -> Match:
    """One or two people are a person, three or more a group."""
    if counted is not None and noun.value == "group" and counted.number <= 2:
        return replace(noun, value="person")
    if counted is not None and noun.value == "person" and counted.number > 2:
        return replace(noun, value="group")
    return noun
