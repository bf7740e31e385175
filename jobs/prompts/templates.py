"""Template syntax in prompts, and the wildcard files that it draws from.

    {red|blue|2::green}      one of them; green twice as often when drawn at random
    {2$$a|b|c}               two different ones, joined by a comma
    {1-2$$ and $$a|b|c}      one or two, joined by " and "
    __colour__               a line of wildcards/colour.txt; __beach/sky__ is wildcards/beach/sky.txt
    \\{  \\}  \\|  \\__           the characters themselves

Everything else is kept character by character: white space, `#`, `//`, `(a:1.2)`, `[a]`, `<lora:x:1>`,
`${x}`. That is why templates are not parsed by `dynamicprompts` itself: for it these are comments and
variables, `100%` and `x__y` are errors, its messages name no place, and it takes 6 ms for what takes 0.04 ms
here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from jobs.config.sections import Variants
from jobs.prompts.variants import Alternatives, Node, Template, VariantTexts
from pipeline.errors import PromptFileError
from pipeline.ranges import text_fault

MAX_DEPTH = 32
"""How deep braces and wildcards may be nested."""

_NAME = r"[^\W_](?:[\w/-]{0,98}?[^\W_])?"  # bounded, so that no text makes the search quadratic
_TOKEN = re.compile(rf"\\[{{}}|]|\\__|\$\{{[^{{}}]*\}}|__(?P<wildcard>{_NAME})__|[{{}}|]")
_BOUNDS = re.compile(r"\s*(?:(\d{1,6})(?:\s*(-)\s*(\d{1,6})?)?|-\s*(\d{1,6}))\s*\$\$(?:([^${}]*)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)::")


class Wildcards:
    """The wildcard files of some folders, read when first used. Of two with the same name, the later is used."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._files: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*.txt")):
                self._files[path.relative_to(folder).with_suffix("").as_posix()] = path
        self._choices: dict[str, Alternatives] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def parse(self, text: str, within: tuple[str, ...] = ()) -> Node:
        """The tree of a template; the unchanged text if it contains no syntax.

        `within` names the wildcards that are being read. Raises ValueError saying what is wrong and where in
        the text, PromptFileError for a wildcard file that cannot be read.
        """
        if "{" not in text and "}" not in text and "__" not in text:
            return text
        return _Parser(text, self, within).sequence()

    def choice(self, name: str, within: tuple[str, ...] = ()) -> Alternatives:
        """A choice of one of a wildcard's lines, each of which may contain syntax itself."""
        if name in within:
            raise ValueError(f"wildcard __{name}__ leads back to itself: {' -> '.join([*within, name])}")
        if len(within) >= MAX_DEPTH:
            raise ValueError(f"wildcards are nested more than {MAX_DEPTH} deep: {' -> '.join([*within, name])}")
        if name not in self._choices:
            self._choices[name] = self._read(name, within)
        return self._choices[name]

    def unknown(self, name: str) -> str:
        """The error message for a wildcard that does not exist."""
        near = difflib.get_close_matches(name, self._files, n=1, cutoff=0.5)
        known = ", ".join(f"__{known}__" for known in sorted(self._files)[:10])
        hint = f"did you mean __{near[0]}__?" if near else f"known are {known}" if known else "there are none"
        return (
            f"unknown wildcard __{name}__; {hint} (it would be {name}.txt in conf/wildcards or "
            f"in wildcards/ of --config-dir; for the text itself write \\__{name}__)"
        )

    def _read(self, name: str, within: tuple[str, ...]) -> Alternatives:
        path = self._files[name]
        try:
            lines = path.read_bytes().decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise PromptFileError(f"{path}: is not UTF-8 (byte {error.start:,}); save it as UTF-8") from None
        except OSError as error:
            raise PromptFileError(f"{path}: cannot be read ({error.strerror})") from None
        options: list[Node] = []
        weights: list[float] = []
        for number, line in enumerate(lines, start=1):
            value = line.strip()
            if not value or value.startswith("#"):
                continue
            try:
                if fault := text_fault(value):
                    raise ValueError(fault)
                weight, value = _weighed(value)
                options.append(self.parse(value, (*within, name)))
            except ValueError as error:
                raise PromptFileError(f"{path}:{number}: {error}") from None
            weights.append(weight)
        if not options:
            raise PromptFileError(f"{path}: holds no values; write one per line")
        return Alternatives(tuple(options), tuple(weights))


Texts: TypeAlias = VariantTexts | tuple[str, ...]
"""The prompts behind a line: those of a template, or the line itself."""


def texts_of(text: str, variants: Variants, wildcards: Wildcards) -> Texts:
    """The prompts behind a text; one that uses no template syntax is left as it is, to the last byte.

    Raises `ConfigError` and ValueError for a template that is none.
    """
    node = text if variants.mode == "literal" else wildcards.parse(text)
    return (text,) if node == text else VariantTexts(text, node, variants)


class _Parser:
    """Reads one template from left to right."""

    def __init__(self, text: str, wildcards: Wildcards, within: tuple[str, ...]) -> None:
        self._text, self._wildcards, self._within = text, wildcards, within
        self._at = 0

    def sequence(self, depth: int = 0) -> Node:
        """Up to the end, or within braces up to their next `|` or `}`, which is left to be read."""
        nodes: list[Node] = []
        while token := _TOKEN.search(self._text, self._at):
            word, start = token[0], token.start()
            if depth and word in ("|", "}"):
                break
            nodes.append(self._text[self._at : start])
            self._at = token.end()
            if word == "{":
                nodes.append(self._choice(depth + 1, start))
            elif word == "}":
                raise ValueError(f"'}}' at character {start + 1} has no '{{' before it; for the sign itself write \\}}")
            elif word in (r"\{", r"\}", r"\__") or (word == r"\|" and depth):
                nodes.append(word[1:])
            elif token["wildcard"] and self._is_wildcard(token):
                nodes.append(self._wildcard(token))
            else:
                nodes.append(word)
        end = token.start() if token else len(self._text)
        nodes.append(self._text[self._at : end])
        self._at = end
        return _in_one(nodes)

    def _choice(self, depth: int, start: int) -> Node:
        if depth > MAX_DEPTH:
            raise ValueError(f"braces at character {start + 1} are nested more than {MAX_DEPTH} deep")
        bounds = _BOUNDS.match(self._text, self._at)
        self._at = bounds.end() if bounds else self._at
        options: list[Node] = []
        weights: list[float] = []
        while True:
            weight, rest = _weighed(self._text[self._at : self._at + 32])
            self._at += min(32, len(self._text) - self._at) - len(rest)
            options.append(self.sequence(depth))
            weights.append(weight)
            if self._at >= len(self._text):
                raise ValueError(f"'{{' at character {start + 1} is never closed; for the sign itself write \\{{")
            self._at += 1
            if self._text[self._at - 1] == "}":
                break
        if options == [""]:
            raise ValueError(f"the braces at character {start + 1} are empty; for the signs themselves write \\{{\\}}")
        if bounds and len(options) == 1:
            only = options[0]
            if isinstance(only, Alternatives) and only.least == only.most == 1:  # {2$$__colour__}: two of its lines
                options, weights = list(only.options), list(only.weights)
        least, most = _limits(bounds, len(options)) if bounds else (1, 1)
        if not least <= most <= len(options) or not most:
            raise ValueError(f"the braces at character {start + 1} ask for {least} to {most} of {len(options)} options")
        separator = bounds[5] if bounds and bounds[5] is not None else ","
        return Alternatives(tuple(options), tuple(weights), least, most, separator)

    def _is_wildcard(self, token: re.Match[str]) -> bool:
        """`__name__` that stands alone, or that is known; `foo__bar__baz` of a LoRA's name is text."""
        around = (
            self._text[max(0, token.start() - 1) : token.start()],
            self._text[token.end() : token.end() + 1],
        )
        return token["wildcard"] in self._wildcards or not any(character.isalnum() for character in around)

    def _wildcard(self, token: re.Match[str]) -> Node:
        name = token["wildcard"]
        if name not in self._wildcards:
            raise ValueError(f"{self._wildcards.unknown(name)}, at character {token.start() + 1}")
        return self._wildcards.choice(name, self._within)


def _in_one(nodes: list[Node]) -> Node:
    """The nodes as one, with texts that stand side by side put together."""
    merged: list[Node] = []
    for is_text, group in groupby([node for node in nodes if node != ""], key=lambda node: isinstance(node, str)):
        if is_text:
            merged.append("".join(map(str, group)))
        else:
            merged.extend(group)
    return merged[0] if len(merged) == 1 else Template(tuple(merged)) if merged else ""


def _weighed(option: str) -> tuple[float, str]:
    match = _WEIGHT.match(option)
    if not match:
        return 1.0, option
    if not float(match[1]):
        raise ValueError(f"weight {match[1]}:: must be above 0; leave the option out instead")
    return float(match[1]), option[match.end() :]


def _limits(bounds: re.Match[str], options: int) -> tuple[int, int]:
    """`2$$` two, `1-2$$` one or two, `2-$$` two or more, `-2$$` up to two (at least one)."""
    first, dash, last, up_to = bounds[1], bounds[2], bounds[3], bounds[4]
    if up_to:
        return 1, int(up_to)
    return int(first), int(last) if last else options if dash else int(first)
