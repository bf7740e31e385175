"""Characters for data sets: as few rows of attributes as show every pair of values, each row with its prompt and tags.

Such rows are a covering array of strength two; `covertable` makes it, since it keeps constraints while it does
(`allpairspy` filters, and then leaves out pairs without a word). What it returns is not believed: every pair that any
row could have is counted here, rows that break a constraint are dropped, and pairs that are lacking get rows of their
own.

Rows are decided by vocabulary, count and seed alone. A longer set begins with the shorter one.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations, product
from typing import Any, TypeAlias

from pipeline.errors import ConfigError
from pipeline.prompting.character_values import Constraint, Vocabulary, changed
from pipeline.prompting.conventions import read_data

Row: TypeAlias = tuple[str, ...]
"""One value of each attribute, in the order of the vocabulary."""

_Pair: TypeAlias = tuple[int, str, int, str]

MAX_PAIRS = 6000
"""An array takes about a second for every 2,000 pairs of values, and longer with constraints."""

MAX_TRIES = 20_000
"""Values tried to complete one row. Constraints that leave so few rows are beyond what anybody would write down."""


@dataclass(frozen=True, slots=True)
class Characters:
    """Rows of attributes. Of `pairs` that constraints allow, `covered` are in the rows; `complete_at` rows have all."""

    vocabulary: Vocabulary
    rows: tuple[Row, ...]
    pairs: int
    covered: int
    complete_at: int

    def prompt(self, index: int) -> str:
        """The text of a row."""
        return self.vocabulary.prompt(self.rows[index])

    def tags(self, index: int) -> tuple[str, ...]:
        """The values of a row as `attribute:value`."""
        return tuple(
            f"{name}:{value}" for name, value in zip(self.vocabulary.attributes, self.rows[index], strict=True)
        )

    @property
    def coverage(self) -> str:
        """`48 rows, pairs 367 of 367`; of a set that is too short, also how many rows would have all."""
        text = f"{len(self.rows):,} rows, pairs {self.covered:,} of {self.pairs:,}"
        return text if self.covered == self.pairs else f"{text}; all of them with {self.complete_at:,} rows"


@cache
def known_vocabulary() -> Vocabulary:
    """The attributes that come with Darkroom, from `characters.toml`."""
    return changed(Vocabulary("", {}), **read_data("characters.toml"))


def draw_characters(vocabulary: Vocabulary, count: int | None = None, seed: int = 0) -> Characters:
    """`count` rows; None takes as many as show every pair. What goes beyond takes the least used values first.

    Raises `ConfigError` where constraints leave a value without any row, and where there are too many pairs of values.
    """
    space = _Space(vocabulary)
    space.check()
    array = _ordered(_evened(space, _array(space, seed), seed))
    complete_at = len(array)
    rows = array[:count] if count is not None else array
    if count is not None and count > complete_at:
        rows = [*rows, *_beyond(space, array, count - complete_at, seed)]
    covered = len(space.allowed.intersection(chain.from_iterable(map(_pairs, rows))))
    return Characters(vocabulary, tuple(rows), len(space.allowed), covered, complete_at)


def _pairs(row: Sequence[str]) -> Iterator[_Pair]:
    for (one, value), (other, second) in combinations(enumerate(row), 2):
        yield one, value, other, second


class _Space:
    """All rows that a vocabulary and its constraints allow."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.names = tuple(vocabulary.attributes)
        self.values = [tuple(values) for values in vocabulary.attributes.values()]
        place = {name: index for index, name in enumerate(self.names)}
        self.constraints = vocabulary.constraints
        self._rules = [
            ([(place[name], values) for name, values in one.when.items()],
             [(place[name], values) for name, values in one.then.items()])
            for one in vocabulary.constraints
        ]  # fmt: skip
        bound = {index for rule in self._rules for index, _ in chain(*rule)}
        # Those that constraints name come first, so that a dead end shows early.
        self._order = sorted(range(len(self.names)), key=lambda index: index not in bound)
        self.allowed: set[_Pair] = set()

    def check(self) -> None:
        """Find the pairs that can occur. Raises `ConfigError`, see `draw_characters`."""
        count = sum(len(one) * len(other) for one, other in combinations(self.values, 2))
        if count > MAX_PAIRS:
            raise ConfigError(
                f"attributes: have {count:,} pairs of values, more than {MAX_PAIRS:,}; leave out attributes "
                "(NAME: null) or values"
            )
        for one, other in combinations(range(len(self.names)), 2):
            for value, second in product(self.values[one], self.values[other]):
                if self.completed({one: value, other: second}) is not None:
                    self.allowed.add((one, value, other, second))
        if not self.allowed:
            raise ConfigError("constraints: no row keeps all of them; loosen them")
        seen = {part for one, value, other, second in self.allowed for part in ((one, value), (other, second))}
        faults = [
            f"attributes.{name}.{value}: fits no row, because constraints leave nothing that it could stand with; "
            "leave it out or loosen them"
            for index, name in enumerate(self.names)
            for value in self.values[index]
            if (index, value) not in seen
        ]
        if faults:
            raise ConfigError(faults)

    def keeps(self, row: Mapping[int, str]) -> bool:
        """Whether no constraint is broken yet by a row of which some values are known."""
        return not any(
            all(row.get(index) in values for index, values in when)
            and any(index in row and row[index] not in values for index, values in then)
            for when, then in self._rules
        )

    def completed(
        self, known: Mapping[int, str], preferred: Sequence[Sequence[str]] | None = None, first: int = 0
    ) -> Row | None:
        """A row with the known values, the others as far in front of `preferred` as constraints let them; or None.

        With `preferred`, attributes choose in turn, beginning with number `first`.
        """
        values = preferred or self.values
        size = len(self.names)
        order = [(first + step) % size for step in range(size)] if preferred else self._order
        row = dict(known)
        if not self.keeps(row):
            return None
        tries = 0
        missing = [index for index in order if index not in known]

        def fill(depth: int) -> bool:
            nonlocal tries
            if depth == len(missing):
                return True
            index = missing[depth]
            for value in values[index]:
                tries += 1
                if tries > MAX_TRIES:
                    raise ConfigError("constraints: leave too few rows to find one; loosen them")
                row[index] = value
                if self.keeps(row) and fill(depth + 1):
                    return True
            del row[index]
            return False

        return tuple(row[index] for index in range(size)) if fill(0) else None


def _array(space: _Space, seed: int) -> list[Row]:
    """Rows that show every allowed pair."""
    from covertable import make

    factors = dict(zip(space.names, map(list, space.values), strict=True))
    made = make(factors, salt=str(seed), constraints=[_declared(one) for one in space.constraints] or None)
    rows = [tuple(one[name] for name in space.names) for one in made]
    rows = [row for row in dict.fromkeys(rows) if space.keeps(dict(enumerate(row)))]
    missing = space.allowed.difference(chain.from_iterable(map(_pairs, rows)))
    for one, value, other, second in sorted(missing):
        if row := space.completed({one: value, other: second}):
            rows.append(row)
    return rows


def _declared(constraint: Constraint) -> dict[str, Any]:
    """A constraint in the words of `covertable`, which then can look ahead."""

    def within(name: str, values: Iterable[str]) -> dict[str, Any]:
        return {"operator": "in", "left": name, "values": sorted(values)}

    unless = [{"operator": "not", "condition": within(*one)} for one in constraint.when.items()]
    then = [within(*one) for one in constraint.then.items()]
    return {"operator": "or", "conditions": [*unless, {"operator": "and", "conditions": then}]}


def _evened(space: _Space, rows: list[Row], seed: int) -> list[Row]:
    """The same cover with values used as evenly as it lets them.

    Where no pair depends on a value, because other rows have all of its pairs, a less used one takes its place: the
    array's last rows are otherwise filled up with the first value of each attribute.
    """
    used = _times_used(space, rows)
    times = Counter(chain.from_iterable(map(_pairs, rows)))
    generator = random.Random(f"evened {seed}")
    evened = []
    for row in rows:
        current = dict(enumerate(row))
        for index in range(len(row)):
            value = current[index]
            touched = [pair for pair in _pairs(tuple(current.values())) if index in (pair[0], pair[2])]
            if any(times[pair] < 2 for pair in touched):
                continue
            for other in sorted(space.values[index], key=lambda one: (used[index][one], generator.random())):
                if used[index][other] + 1 >= used[index][value]:
                    break
                if space.keeps({**current, index: other}):
                    current[index] = other
                    used[index][value] -= 1
                    used[index][other] += 1
                    for pair in touched:
                        times[pair] -= 1
                    for pair in _pairs(tuple(current.values())):
                        if index in (pair[0], pair[2]):
                            times[pair] += 1
                    break
        evened.append(tuple(current.values()))
    return list(dict.fromkeys(evened))


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """The rows so that each next one shows most pairs that none before it has; rows that show none are left out."""
    seen: set[_Pair] = set()
    # A row's gain only falls, so one that is still ahead when counted anew is the best.
    queue = [(-len(set(_pairs(row))), number) for number, row in enumerate(rows)]
    heapq.heapify(queue)
    ordered = []
    while queue:
        _, number = heapq.heappop(queue)
        gain = sum(pair not in seen for pair in _pairs(rows[number]))
        if not gain:
            continue
        if queue and (-gain, number) > queue[0]:
            heapq.heappush(queue, (-gain, number))
            continue
        seen.update(_pairs(rows[number]))
        ordered.append(rows[number])
    return ordered


def _beyond(space: _Space, rows: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    """Further rows, of the least used values, none of them there already as long as others are found."""
    used = _times_used(space, rows)
    known = set(rows)
    generator = random.Random(f"beyond {seed}")
    size = len(space.names)
    for number in range(count):
        found: Row | None = None
        # Attributes that constraints tie together cannot all have their least used value: each is first in its turn.
        for turn in range(size):
            preferred = [
                sorted(values, key=lambda one: (times[one], generator.random()))
                for values, times in zip(space.values, used, strict=True)
            ]
            found = space.completed({}, preferred, number + turn)
            if found not in known:
                break
        assert found is not None  # the array has rows, so there are some
        known.add(found)
        for index, value in enumerate(found):
            used[index][value] += 1
        yield found


def _times_used(space: _Space, rows: Iterable[Row]) -> list[dict[str, int]]:
    """Of each attribute, how many rows have which value."""
    used = [dict.fromkeys(values, 0) for values in space.values]
    for row in rows:
        for index, value in enumerate(row):
            used[index][value] += 1
    return used
