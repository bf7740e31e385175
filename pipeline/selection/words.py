"""Words of prompts and cards as they are compared: small letters, without weights, underscores or punctuation."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

LONGEST_PROMPT = 20_000
"""Characters of a prompt that are compared; no text encoder reads as many."""

_WORD = re.compile(r"[^\W_]+")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OF_NAMES = frozenset(
    word
    for line in (
        "a an and by for in of on the to with style mix merge model models checkpoint lora locon lycoris dora base",
        "final full pruned ema emaonly safetensors version ver new best sd sd1 sd15 sdxl xl sd3 sd35 flux flux1 flux2",
        "dev schnell klein turbo lightning hyper lcm pony pdxl illustrious illu il noob noobai animagine qwen image",
        "zimage sana pixart sigma lumina chroma fp16 bf16 fp32 fp8 step steps",
    )
    for word in line.split()
)
"""Words of file names that name a kind or a base, and no model."""

_VERSION = re.compile(r"v?\d+(?:[a-z]|step|steps|k|e\d+)?")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a prompt with its place, as slices count."""

    text: str
    start: int
    end: int


def words_of(text: str, longest: int = LONGEST_PROMPT) -> list[Word]:
    """The words of a text in order."""
    return [Word(found[0].casefold(), *found.span()) for found in _WORD.finditer(text[:longest])]


def plain_words(text: str, longest: int = 1_000) -> list[str]:
    """The words alone."""
    return [word.casefold() for word in _WORD.findall(text[:longest])]


def spoken_name(name: str) -> str:
    """A file's name as words: `OilPainting_v2` is `Oil Painting v2`."""
    return " ".join(_WORD.findall(_CAPITAL.sub(" ", name[:200])))


def naming_words(name: str) -> tuple[str, ...]:
    """What of a name a person would say in a prompt: without versions, bases and kinds of files."""
    words = plain_words(name, 200)
    return tuple(word for word in words if word not in _OF_NAMES and not _VERSION.fullmatch(word))[:8]


@lru_cache(maxsize=1)
def ordinary_words() -> frozenset[str]:
    """Words that ordinary prompts use, from `ordinary_words.toml`."""
    said = tomllib.loads((Path(__file__).parent / "ordinary_words.toml").read_text(encoding="utf-8"))
    return frozenset(said["words"].split())


def is_rare(word: str, seen: Collection[str]) -> bool:
    """Whether a word can name something by itself: not ordinary, not among the words `seen` in several cards."""
    if len(word) < 3 or word.isdecimal() or word in seen or word in _OF_NAMES:
        return False
    return not any(form in ordinary_words() for form in (word, word.removesuffix("s"), word.removesuffix("es")))


@dataclass(slots=True)
class Phrases:
    """Phrases, each with those that it belongs to: looked up in a prompt word by word."""

    _owners: dict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    _lengths: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, phrase: Sequence[str], owner: int) -> None:
        """One more phrase; an empty one is none."""
        if phrase:
            self._owners[tuple(phrase)].append(owner)
            self._lengths[phrase[0]].add(len(phrase))

    def found_in(self, words: Sequence[Word]) -> Iterable[tuple[int, int, int]]:
        """The owner of each phrase that stands in these words, with the span of its words."""
        lengths = self._lengths
        for place, word in enumerate(words):
            for length in lengths.get(word.text, ()):
                phrase = tuple(one.text for one in words[place : place + length])
                for owner in self._owners.get(phrase, ()):
                    yield owner, word.start, words[place + length - 1].end
