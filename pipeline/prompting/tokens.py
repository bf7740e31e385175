"""Splits a prompt into words, and sets aside what is no description: quoted text, LoRA tags, weights."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pipeline.prompting.lora_tags import lora_tags

# Whatever is no space, sign or picture: letters of all scripts with their combining marks, and digits.
_LETTER = (
    r"[^\s\x00-\x2f:-@\[-`{-\xbf\xd7\xf7\u2000-\u206f\u2190-\u2bff\u3000-\u303f\ud800-\udfff\ufe00-\ufe0f\ufeff"
    r"\U0001f000-\U0001ffff]"
)
_WORD = re.compile(rf"\d+(?:\.\d+)?(?::\d+)+|\d+\.\d+(?!{_LETTER})|{_LETTER}+(?:['’]{_LETTER}+)*")

_BREAKS = frozenset(",;.:|!?\n\r—–•/\\…¡¿")
"""Signs that end a phrase; brackets, hyphens, underscores and plus signs do not."""

_TITLES = frozenset({"st", "mt", "dr", "mr", "mrs", "ms", "jr", "sr", "no", "vs", "sra", "sta", "sto"})
"""Abbreviations, after which a full stop ends nothing."""

# Every pattern is bounded and cannot begin again inside itself, so that no text costs more than its length.
_QUOTED = re.compile(
    r'(?<!\w)"(?P<straight>[^"\n]{1,300})"|“(?P<curly>[^“”"\n]{1,300})[”"]|«(?P<angle>[^«»\n]{1,300})»'
    r"|„(?P<low>[^„“”\n]{1,300})[“”]"
)
_SINGLE = re.compile(
    r"(?<!\w)'([^'\n]{1,120}(?:'\w[^'\n]{0,120}){0,3})'(?!\w)|‘([^‘’\n]{1,120}(?:’\w[^‘’\n]{0,120}){0,3})’"
)
_WEIGHT = re.compile(
    r":\s{0,2}[-+]?\d{0,4}\.?\d{1,6}\s{0,2}(?=[)\]])|(?<=\))[-+]?\d\.\d{1,4}|::-?\d{1,3}(?:\.\d{1,4})?|(?<=\S)\+{1,6}(?=[\s,)]|$)"
)

Kind = Literal["text", "named", "weight"]


@dataclass(frozen=True, slots=True)
class Aside:
    """A part of the prompt that is no description, and what it holds: the quoted text, or the name of a tag."""

    kind: Kind
    start: int
    end: int
    content: str
    content_span: tuple[int, int]


@dataclass(slots=True)
class Tokens:
    """The words of a prompt in lower case, each with its place, as columns.

    `segments` counts up at every sign that ends a phrase. `glued`: a hyphen joins the word to the one before.
    `owner`: the word had a possessive 's.
    """

    prompt: str
    words: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    glued: set[int] = field(default_factory=set)
    owner: set[int] = field(default_factory=set)
    asides: list[Aside] = field(default_factory=list)

    def text(self, first: int, last: int) -> str:
        """The prompt from the word `first` to before the word `last`."""
        return self.prompt[self.starts[first] : self.ends[last - 1]]

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The characters from the word `first` to before the word `last`."""
        return self.starts[first], self.ends[last - 1]


def words_of(phrase: str) -> tuple[str, ...]:
    """The words of a phrase of a vocabulary, as those of a prompt are written."""
    return tuple(_split(match[0])[0] for match in _WORD.finditer(phrase))


def tokenise(prompt: str, writing: Collection[str] = ()) -> Tokens:
    """The words of a prompt. `writing` are the words after which single quotes hold a text to be written."""
    tokens = Tokens(prompt)
    tokens.asides = _asides(prompt, writing)
    segment = at = 0
    for aside in tokens.asides:
        segment = _add_words(tokens, at, aside.start, segment)
        segment += aside.kind != "weight"
        at = aside.end
    _add_words(tokens, at, len(prompt), segment)
    return tokens


def _add_words(tokens: Tokens, at: int, end: int, segment: int) -> int:
    """Adds the words from one character to another; returns the segment that the last of them is in."""
    prompt = tokens.prompt
    for match in _WORD.finditer(prompt, at, end):
        start, stop = match.span()
        written = match[0]
        word, owner = (written.lower(), False) if written.isalpha() and written.isascii() else _split(written)
        gap = prompt[at:start]
        if gap != " " and gap:
            if gap == "-" and tokens.words:
                tokens.glued.add(len(tokens.words))
            elif (not _BREAKS.isdisjoint(gap) and not _inside(tokens, gap)) or " -" in gap:
                segment += 1
        at = stop
        if written == "BREAK":
            segment += 1
            continue
        if owner:
            tokens.owner.add(len(tokens.words))
        tokens.words.append(word)
        tokens.starts.append(start)
        tokens.ends.append(stop)
        tokens.segments.append(segment)
    return segment + (not _BREAKS.isdisjoint(prompt[at:end]))


def _inside(tokens: Tokens, gap: str) -> bool:
    """Whether signs end no phrase: escapes of brackets, the full stop of a short title, a slash between words."""
    if gap.strip(" ") == ".":
        return bool(tokens.words) and tokens.words[-1] in _TITLES
    return gap == "/" or gap in (".", ":") or _BREAKS.isdisjoint(gap.replace("\\(", "").replace("\\)", ""))


def _split(word: str) -> tuple[str, bool]:
    """A word in lower case, composed, without its possessive 's; whether it had one."""
    if not word.isascii():
        word = unicodedata.normalize("NFC", word).replace("’", "'")
    word = word.lower()
    if word.endswith("'s") and len(word) > 2:
        return word[:-2], True
    return word, False


def _asides(prompt: str, writing: Collection[str]) -> list[Aside]:
    found = sorted(_found(prompt, writing), key=lambda aside: (aside.start, -aside.end))
    apart: list[Aside] = []
    for aside in found:
        if not apart or aside.start >= apart[-1].end:
            apart.append(aside)
    return apart


def _found(prompt: str, writing: Collection[str]) -> Iterator[Aside]:
    if '"' in prompt or "“" in prompt or "«" in prompt or "„" in prompt:
        for match in _QUOTED.finditer(prompt):
            group = match.lastgroup or "straight"
            if not match[group].isspace():
                yield Aside("text", *match.span(), match[group].strip(), match.span(group))
    if "'" in prompt or "‘" in prompt:
        for match in _SINGLE.finditer(prompt):
            content = match.lastindex or 1
            before = prompt[max(0, match.start() - 40) : match.start()]
            if not match[content].isspace() and _says_writing(before, writing):
                yield Aside("text", *match.span(), match[content].strip(), match.span(content))
    for tag in lora_tags(prompt):
        yield Aside("named", tag.start, tag.end, tag.name, (tag.start, tag.end))
    if ")" in prompt or "]" in prompt or "::" in prompt or "+" in prompt:
        for match in _WEIGHT.finditer(prompt):
            yield Aside("weight", *match.span(), "", match.span())


def _says_writing(before: str, writing: Collection[str]) -> bool:
    """Whether one of the last three words before a quote says that something is written."""
    return any(_split(match[0])[0] in writing for match in list(_WORD.finditer(before))[-3:])
