"""Strangers' JSON as the bounded, plain values of a model's card; what has a wrong type is as if it were not there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from pipeline.registry.records import ModelCard
from pipeline.storage.foreign_names import plain
from pipeline.storage.plain_text import plain_text

MOST_WORDS = 100
"""So many trigger words, tags or names are kept of one list."""

MOST_PROMPTS = 6
"""So many example prompts; a hub shows up to 20 pictures, which are alike."""

MOST_TAG_COUNTS = 200
"""So many tags of a training table, the commonest: those after them stand for single pictures."""

LONGEST_DESCRIPTION = 2_000
LONGEST_PROMPT = 600
_LONGEST_TAG = 80
_WIDEST = 1e6
_MOST_COUNTED = 2**53
"""Larger counts are nonsense, and no longer exact in JSON."""


def parse_json(text: str | bytes) -> Any:
    """The JSON value of an untrusted text; None if it is none, however deep, long or malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; empty for what is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """A JSON list; empty for what is none."""
    return value if isinstance(value, list) else []


def words(value: Any) -> tuple[str, ...]:
    """Words from a list, or from a text in which commas part them; without duplicates."""
    parts = value.split(",", 2 * MOST_WORDS) if isinstance(value, str) else sequence(value)
    return distinct((plain(part) for part in parts[: 2 * MOST_WORDS]), MOST_WORDS)


def word_sets(value: Any) -> tuple[str, ...]:
    """Trigger words of a text: of several lines each is a set that stays together, one alone is parted at commas."""
    lines = [line for line in value.splitlines() if line.strip(" ,")] if isinstance(value, str) else []
    if len(lines) < 2:
        return words(value)
    return distinct((plain(line).strip(" ,") for line in lines[: 2 * MOST_WORDS]), MOST_WORDS)


def distinct(lines: Iterable[str], most: int) -> tuple[str, ...]:
    """Texts that are not empty, each once, up to a limit."""
    return tuple(dict.fromkeys(line for line in lines if line))[:most]


def amount(value: Any) -> float | None:
    """A number, also one that is written as text; None for what is none, or none that anybody means."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= _WIDEST else None


def count(value: Any) -> int | None:
    """A whole number from 0 on, as hubs count downloads; None for what is none."""
    return value if type(value) is int and 0 <= value < _MOST_COUNTED else None


def prompts(texts: Iterable[Any]) -> tuple[str, ...]:
    """Example prompts, each as one line; those without a letter are no prompts."""
    lines = (plain(text, LONGEST_PROMPT) for text in texts)
    return distinct((line for line in lines if any(map(str.isalpha, line))), MOST_PROMPTS)


def text_of(parts: Iterable[Any]) -> str:
    """What authors have written, HTML or Markdown, as plain text with line breaks: whole, as settings are sought in."""
    return "\n\n".join(distinct((plain_text(part) for part in parts), MOST_WORDS))


def description(text: str) -> str:
    """The part of a plain text that is kept."""
    return text[:LONGEST_DESCRIPTION].strip()


def tag_counts(tables: Iterable[Any]) -> tuple[tuple[str, int], ...]:
    """The commonest tags of training tables, `{folder: {tag: count}}`, summed over folders; ties by name."""
    summed: dict[str, int] = {}
    for tag, times in _counted(tables):
        summed[tag] = summed.get(tag, 0) + times
    cleaned: dict[str, int] = {}
    for tag, times in sorted(summed.items(), key=_commonest)[: 2 * MOST_TAG_COUNTS]:
        if line := plain(tag, _LONGEST_TAG):
            cleaned[line] = cleaned.get(line, 0) + times
    return tuple(sorted(cleaned.items(), key=_commonest)[:MOST_TAG_COUNTS])


def merged(first: ModelCard, second: ModelCard) -> ModelCard:
    """Both cards together; where they differ, the first wins. The three weights belong together."""
    names = [one.name for one in fields(ModelCard)]
    gaps = {name: getattr(second, name) for name in names if getattr(first, name) in _EMPTY}
    if any(one is not None for one in (first.weight, first.weight_min, first.weight_max)):
        for name in ("weight", "weight_min", "weight_max"):
            gaps.pop(name, None)
    return replace(first, **gaps)


_EMPTY = ("", (), None, False)


def _counted(tables: Iterable[Any]) -> Iterator[tuple[str, int]]:
    for table in tables:
        for folder in mapping(table).values():
            for tag, times in mapping(folder).items():
                if type(times) is int and 0 < times < 2**31:
                    yield tag.strip(), times


def _commonest(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]
