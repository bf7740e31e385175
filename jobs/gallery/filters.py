"""What a page asks for: words, facets, dates and an order, bounded and typed, as SQL over the index.

Values go in as parameters only, names are those of the closed lists here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from jobs.manifest.query import quoted
from pipeline.errors import ConfigError
from pipeline.storage.foreign_names import plain

MAX_WORDS, MAX_WORDS_LENGTH = 20, 500
MAX_VALUES, MAX_VALUE_LENGTH = 50, 400


@dataclass(frozen=True, slots=True)
class Facet:
    """A side of pictures that they are chosen by. `values` is SQL for one value as text, or for a list of them."""

    title: str
    values: str
    is_list: bool = False


FACETS: Mapping[str, Facet] = {
    "rating": Facet("Rating", ""),
    "model": Facet("Model", "model"),
    "lora": Facet("LoRA", "loras", is_list=True),
    "size": Facet("Size", "width || ' × ' || height"),
    "steps": Facet("Steps", "steps::VARCHAR"),
    "scheduler": Facet("Scheduler", "scheduler"),
    "tag": Facet("Tags", "tags", is_list=True),
    "trait": Facet("In the prompt", "traits", is_list=True),
    "run": Facet("Run", "run_id"),
}
"""In the order of the page. Tags are those of the run and the user's own."""

_SAID = "SELECT n FROM live.said WHERE"

RATINGS: Mapping[str, str] = {
    **{f"{stars}": f"n IN ({_SAID} rating = {stars})" for stars in (5, 4, 3, 2, 1)},
    "unrated": f"n NOT IN ({_SAID} rating IS NOT NULL OR picked OR rejected)",
    "picked": f"n IN ({_SAID} picked)",
    "rejected": f"n IN ({_SAID} rejected)",
}
"""The values of the facet `rating`, with their conditions."""

SORTS: Mapping[str, tuple[str, str]] = {
    "newest": ("Newest first", "created_at DESC, n DESC"),
    "oldest": ("Oldest first", "created_at, n"),
    "rating": ("Best rated first", "rating DESC NULLS LAST, created_at DESC, n DESC"),
    "model": ("By model", "model, created_at DESC, n DESC"),
    "prompt": ("By prompt", "prompt, created_at DESC, n DESC"),
    "steps": ("By steps", "steps, created_at DESC, n DESC"),
    "guidance": ("By guidance", "guidance_scale, created_at DESC, n DESC"),
    "slowest": ("Slowest first", "seconds DESC NULLS LAST, created_at DESC, n DESC"),
}
"""What pictures can be sorted by: title, and SQL."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Pictures that have all words, were made from `since` until the end of `until`, and of each facet one value."""

    words: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    facets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sort: str = "newest"

    @property
    def key(self) -> tuple[Any, ...]:
        """What two equal filters have in common."""
        return self.words, self.since, self.until, tuple(sorted(self.facets.items())), self.sort

    @property
    def narrows_runs(self) -> bool:
        """Whether it may leave out images of a run, of which it finds others."""
        return bool(self.words or self.since or self.until or self.facets.keys() - {"run"})

    def failures(self) -> str | None:
        """SQL over the manifest for the failures that meet all but the words; None where no failure has what a facet
        asks for.
        """
        if self.facets.keys() & {"rating", "trait"}:
            return None
        parts = ["status <> 'done'"]
        if self.since:
            parts.append(f"created_at >= DATE '{self.since}'")
        if self.until:
            parts.append(f"created_at < DATE '{self.until + timedelta(days=1)}'")
        for name, chosen in self.facets.items():
            facet = FACETS[name]
            each = f"list_has_any({facet.values}, [{{}}])" if facet.is_list else f"{facet.values} IN ({{}})"
            parts.append(each.format(quoted(chosen)))
        return " AND ".join(parts)

    def condition(self, *, basic_only: bool = False) -> tuple[str, list[Any]]:
        """SQL over `pictures` and its parameters; with `basic_only` without the facets."""
        parts, values = [f"n NOT IN ({_SAID} removed)"], list[Any]()
        for word in self.words:
            parts.append("contains(words, ?)")
            values.append(word)
        if self.since:
            parts.append("created_at >= ?")
            values.append(self.since)
        if self.until:
            parts.append("created_at < ?")
            values.append(self.until + timedelta(days=1))
        for name, chosen in () if basic_only else self.facets.items():
            part, more = _one_of(name, chosen)
            parts.append(part)
            values += more
        return " AND ".join(parts), values


def _one_of(name: str, chosen: tuple[str, ...]) -> tuple[str, list[Any]]:
    facet = FACETS[name]
    if name == "rating":
        return f"({' OR '.join(RATINGS[one] for one in chosen)})", []
    if name == "tag":
        own = f"n IN ({_SAID} list_has_any(user_tags, ?::VARCHAR[]))"
        return f"(list_has_any(tags, ?::VARCHAR[]) OR {own})", [[*chosen], [*chosen]]
    if facet.is_list:
        return f"list_has_any({facet.values}, ?::VARCHAR[])", [[*chosen]]
    return f"list_contains(?::VARCHAR[], {facet.values})", [[*chosen]]


def read_filter(items: Iterable[tuple[str, str]]) -> Filter:
    """The filter of a query string's names and values. Raises `ConfigError` for what is none."""
    words: tuple[str, ...] = ()
    dates: dict[str, date] = {}
    facets: dict[str, list[str]] = {}
    sort = "newest"
    for name, value in items:
        if name == "q":
            if len(value) > MAX_WORDS_LENGTH or len(value.split()) > MAX_WORDS:
                raise ConfigError(f"q: expected at most {MAX_WORDS} words of {MAX_WORDS_LENGTH} characters in all")
            words = tuple(sorted({*value.lower().split()}))
        elif name in ("since", "until"):
            dates[name] = _date(name, value)
        elif name == "sort":
            if value not in SORTS:
                raise ConfigError(f"sort: expected one of {', '.join(SORTS)}")
            sort = value
        elif name in FACETS:
            _check_value(name, value)
            facets.setdefault(name, []).append(value)
            if len(facets[name]) > MAX_VALUES:
                raise ConfigError(f"{name}: expected at most {MAX_VALUES} values")
        else:
            raise ConfigError(f"{plain(name)!r}: no such parameter")
    chosen = {name: tuple(sorted({*values})) for name, values in facets.items()}
    return Filter(words, dates.get("since"), dates.get("until"), chosen, sort)


def _check_value(name: str, value: str) -> None:
    if len(value) > MAX_VALUE_LENGTH:
        raise ConfigError(f"{name}: expected at most {MAX_VALUE_LENGTH} characters")
    if name == "rating" and value not in RATINGS:
        raise ConfigError(f"rating: expected one of {', '.join(RATINGS)}")


def _date(name: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a day, as 2026-01-31") from None
    if not 1900 <= found.year <= 2999:
        raise ConfigError(f"{name}: expected a day of this time, as 2026-01-31")
    return found
