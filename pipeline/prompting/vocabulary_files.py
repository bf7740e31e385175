"""Reads the vocabulary files: phrases of English and Spanish, and what each says.

A file is TOML, named after an axis (`style.toml`) or after what it is for (`negation.toml`). A section is a value; `en`
and `es` hold its phrases, `;` between phrases and `,` between the forms of one. `en_frame` and `es_frame` hold words
that count only where they frame the picture (`pipeline.prompting.frames`). A person's own files have the names, the
sections and the form of ours, and add to them.
"""

from __future__ import annotations

import difflib
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.prompting.analysis import AXES
from pipeline.prompting.tokens import words_of

KEYS = ("en", "es", "en_frame", "es_frame")
WORD_LISTS = ("grammar", "homographs", "real_words")
"""Files of single words that are asked one by one; `homographs` has phrases besides, in its section `nothing`."""

MAX_FILE_BYTES = 2**20
LONGEST_PHRASE = 8
"""Words; a longer phrase is refused, so that matching stays linear."""

_SHORTEST_WITHOUT_ACCENTS = 4
"""Letters from which a phrase is also known without its accents: shorter ones become other words (té, te)."""


class Sense(NamedTuple):
    """One thing that a phrase says. `frame`: only where it frames the picture."""

    axis: str
    value: str
    language: str
    frame: bool = False


Phrases = dict[tuple[str, ...], tuple[Sense, ...]]


@dataclass(frozen=True, eq=False)
class PromptVocabulary:
    """All phrases, by their words. `lengths` has, by first word, how long the phrases are that begin so, longest first.

    `lists` holds the single words of `grammar`, `homographs` and `real_words` by section, of both languages together.
    """

    phrases: Mapping[tuple[str, ...], tuple[Sense, ...]]
    lengths: Mapping[str, tuple[int, ...]]
    lists: Mapping[str, frozenset[str]]
    english: frozenset[str]
    spanish: frozenset[str]
    """Function words that tell the language: those of the other are left out."""

    @cached_property
    def function_words(self) -> frozenset[str]:
        """Determiners, prepositions, conjunctions and verbs: what ends a noun phrase."""
        return frozenset().union(*(self.lists[role] for role in ("determiner", "preposition", "conjunction", "verb")))

    @cached_property
    def known(self) -> frozenset[str]:
        """Every word that is somewhere in the vocabulary, and therefore no misspelling."""
        words = {word for phrase in self.phrases for word in phrase}
        return frozenset(words.union(*self.lists.values()))

    @cached_property
    def by_ends(self) -> Mapping[str, tuple[str, ...]]:
        """The words of five letters or more by their first three letters, and by "-" with their last three.

        One wrong letter leaves either the beginning or the end as it was.
        """
        nearby: dict[str, list[str]] = {}
        for word in sorted({word for phrase in self.phrases for word in phrase if len(word) > 4 and word.isalpha()}):
            nearby.setdefault(word[:3], []).append(word)
            nearby.setdefault("-" + word[-3:], []).append(word)
        return {ends: tuple(words) for ends, words in nearby.items()}


def load_vocabulary(folder: Path | None = None) -> PromptVocabulary:
    """Our phrases, with those of the `*.toml` files of a folder added, if there are any. Loaded once.

    Raises `ConfigError` with a line for every fault in the files of the folder.
    """
    own = sorted(folder.glob("*.toml")) if folder is not None and folder.is_dir() else []
    return _loaded(tuple((path, path.stat().st_mtime_ns) for path in own))


@lru_cache(maxsize=4)
def _loaded(own: tuple[tuple[Path, int], ...]) -> PromptVocabulary:
    ours = {
        entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text(encoding="utf-8"))
        for entry in resources.files("pipeline.prompting").joinpath("vocabulary").iterdir()
        if entry.name.endswith(".toml")
    }
    phrases: Phrases = {}
    lists: dict[str, set[str]] = {}
    languages: dict[str, set[str]] = {"en": set(), "es": set()}
    faults: list[str] = []
    _add(ours, phrases, lists, languages)
    for path, _ in own:
        try:
            _add(_checked(path, ours), phrases, lists, languages)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    lengths: dict[str, tuple[int, ...]] = {}
    for words in phrases:
        before = lengths.get(words[0], ())
        if len(words) not in before:
            lengths[words[0]] = (*before, len(words))
    return PromptVocabulary(
        phrases=phrases,
        lengths={word: tuple(sorted(several, reverse=True)) for word, several in lengths.items()},
        lists={section: frozenset(words) for section, words in lists.items()},
        english=frozenset(languages["en"] - languages["es"]),
        spanish=frozenset(languages["es"] - languages["en"]),
    )


def _add(
    files: Mapping[str, Mapping[str, Mapping[str, str]]],
    phrases: Phrases,
    lists: dict[str, set[str]],
    languages: dict[str, set[str]],
) -> None:
    for name, sections in files.items():
        for value, keys in sections.items():
            listed = name in WORD_LISTS and value != "nothing"
            for key, text in keys.items():
                language, _, frame = key.partition("_")
                if listed:
                    heads = [words[:1] for words in forms_of(text)]
                    words = {word for head in heads for word in (*head, *_bare(head))}
                    lists.setdefault(value, set()).update(words)
                    if name == "grammar":
                        languages[language] |= words
                    continue
                axis = "nothing" if name == "homographs" else name
                alone = (Sense(axis, value, language, bool(frame)),)
                ascii_only = text.isascii()
                for words_of_it in forms_of(text):
                    phrases[words_of_it] = _with(phrases.get(words_of_it), alone)
                    if not ascii_only and (bare := _bare(words_of_it)) is not words_of_it:
                        phrases[bare] = _with(phrases.get(bare), alone)


def _with(senses: tuple[Sense, ...] | None, more: tuple[Sense]) -> tuple[Sense, ...]:
    return more if senses is None else senses if more[0] in senses else senses + more


def forms_of(text: str) -> Iterator[tuple[str, ...]]:
    """The forms in the text of a key, each as its words."""
    for form in text.replace(";", ",").lower().split(","):
        # Nearly all forms are plain words, for which splitting is ten times as fast.
        words = form.split()
        if "".join(words).isalpha():
            yield tuple(words)
        elif apart := words_of(form):
            yield apart


def _bare(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words without accents, as people type them who have no such keys; an ñ stays."""
    if all(word.isascii() for word in words) or sum(map(len, words)) < _SHORTEST_WITHOUT_ACCENTS:
        return words
    return tuple(_without_accents(word) for word in words)


def _without_accents(word: str) -> str:
    apart = unicodedata.normalize("NFD", word)
    return unicodedata.normalize(
        "NFC", "".join(one for one in apart if one == "\u0303" or not unicodedata.combining(one))
    )


def _checked(path: Path, ours: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, dict[str, str]]]:
    """A person's own file, as {its name: its sections}."""
    name = path.stem
    if name not in ours or name == "real_words":
        raise ConfigError(f"{path}: no vocabulary is called {name!r}; {_instead(name, ours)}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than 1 MiB; split it or leave phrases out")
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    known = AXES.get(name, tuple(ours[name]))
    faults = [fault for value, keys in sections.items() for fault in _faults(path, name, value, keys, known)]
    if faults:
        raise ConfigError(faults)
    return {name: sections}


def _faults(path: Path, name: str, value: str, keys: object, known: Iterable[str]) -> Iterator[str]:
    if value not in known and not (name == "physical" and ": " in value):
        yield f"{path}: [{value}] is no value of {name}; {_instead(value, known)}"
        return
    if not isinstance(keys, dict):
        yield f"{path}: {value} must be a section, [{value}], with en = '...' or es = '...'"
        return
    for key, text in keys.items():
        if key not in KEYS:
            yield f"{path}: {value}.{key}: no such key; {_instead(key, KEYS)}"
        elif not isinstance(text, str):
            yield f"{path}: {value}.{key}: must be text, phrases with ';' between them, not {text!r:.60}"
        elif too_long := next((words for words in forms_of(text) if len(words) > LONGEST_PHRASE), None):
            yield f"{path}: {value}.{key}: {' '.join(too_long)[:60]!r} has more than {LONGEST_PHRASE} words"


def _instead(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, tuple(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
