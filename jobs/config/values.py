"""Values that only YAML has: seeds and ranges as texts, mappings of options; each with its error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from pipeline.ranges import option_fault
from pipeline.request import MAX_SEED

MAX_GRID = 10_000_000
"""Largest number of combinations one grid may ask for; more is a slip, not a wish."""

_RANGE = re.compile(r"^\s*range\(\s*(.+?)\s*\)\s*$")


def _options(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of scheduler arguments, as in {timestep_spacing: trailing}")
    for name, option in value.items():
        if fault := option_fault(option):
            raise ValueError(f"{name}: {fault}")
    return dict(value)


SchedulerOptions = Annotated[dict[str, bool | int | float | str], BeforeValidator(_options)]
"""Arguments of the diffusers scheduler class, by their names there."""


def parse_range(text: str) -> Sequence[int | float] | None:
    """`range(start, stop[, step])` as Python reads it: the stop is excluded. None if the text is no range.

    Whole numbers come as a Python `range`; others are rounded to 9 digits, so that the third of 0.1 is 0.3.
    """
    match = _RANGE.match(text)
    if not match:
        return None
    try:
        numbers = [float(part) if re.search(r"[.eE]", part) else int(part) for part in match[1].split(",")]
    except ValueError:
        raise ValueError(f"{text!r}: a range takes numbers, as in range(5, 30, 5)") from None
    if len(numbers) not in (2, 3):
        raise ValueError(f"{text!r}: a range takes start, stop and an optional step")
    if not all(abs(number) <= MAX_SEED for number in numbers):
        raise ValueError(f"{text!r}: a number is out of range; they go up to 2^53-1 = {MAX_SEED}")
    start, stop = numbers[0], numbers[1]
    step = numbers[2] if len(numbers) == 3 else 1
    if step == 0 or (stop - start) / step <= 0:
        raise ValueError(f"{text!r}: is empty; from start to stop in steps of {step} there is no value")
    count = _range_length(start, stop, step)
    if count > MAX_GRID:
        raise ValueError(f"{text!r}: holds {count:,} values, more than {MAX_GRID:,}")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return range(start, stop, step)
    return [round(start + step * index, 9) for index in range(count)]


def _range_length(start: float, stop: float, step: float) -> int:
    """Number of values below the stop; rounded first, since (1.0 - 0.0) / 0.1 must be 10 and not 11."""
    exact = round((stop - start) / step, 9)
    return int(exact) + (exact % 1 > 0)


def _seeds(value: object) -> object:
    if isinstance(value, Mapping):
        unknown = set(value) - {"start", "count"}
        if unknown or "count" not in value:
            raise ValueError("as a mapping needs start and count, as in {start: 0, count: 4}")
        start, count = value.get("start", 0), value["count"]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in (start, count)):
            raise ValueError("start and count must be whole numbers")
        if not 1 <= count <= MAX_GRID:
            raise ValueError(f"count must be from 1 to {MAX_GRID:,}")
        if start < 0 or start + count - 1 > MAX_SEED:
            raise ValueError(f"seeds run from 0 to 2^53-1 = {MAX_SEED}")
        return range(start, start + count)
    if isinstance(value, str):
        value = parse_range(value)
        if value is None:
            raise ValueError("must be a number, a list, {start, count} or range(start, stop)")
    numbers = value if isinstance(value, range) else list(value) if isinstance(value, Sequence) else [value]
    if not numbers:
        raise ValueError("must name at least one seed")
    for number in (numbers[0], numbers[-1]) if isinstance(numbers, range) else numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{number!r} is not a whole number")
        if not 0 <= number <= MAX_SEED:
            raise ValueError(f"{number} is out of range; seeds run from 0 to 2^53-1 = {MAX_SEED}")
    return numbers


Seeds = Annotated[Any, BeforeValidator(_seeds)]
"""`7`, `[1, 2]`, `{start: 0, count: 4}` or `range(0, 4)`; held as a `range` or a list of ints."""
