"""Images laid out by what varies among them: a cell for each combination of values, or why it is empty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from jobs.archive.asked_for import AskedFor, asked_for
from jobs.archive.grid_axes import AXES, COLUMNS, PART_OF, Axis, axes_of, value_of
from jobs.archive.runs import find_run
from jobs.archive.search import Found, search
from jobs.config.faults import nearest
from jobs.manifest.query import quoted
from jobs.manifest.schema import DONE
from pipeline.errors import ConfigError

MAX_IMAGES = 10_000
"""So many images are laid out at most; a page of more is slow to make and to look at."""

MAX_TOLD = 20_000
"""Empty cells of which pages say why; beyond, they say that there is no image."""

NOT_MADE, NOT_ASKED, NONE = "not made", "not asked for", "no image"
LEFT_OUT, REMOVED = "left out by the filter", "rejected and removed"

_MAX_COMPARED = 200
"""Values of one column that a condition names; of columns with more, all are read."""

_NEEDED = ("image_id", "job_id", "name", "status", "error_kind", "path", "run_id", "created_at")
_TOLD = (
    "path", "image_id", "prompt", "negative_prompt", "model", "loras", "embeddings", "controlnets",
    "controlnet_strengths", "ip_adapters", "ip_adapter_scales", "init_image", "strength", "steps", "guidance_scale",
    "scheduler", "width", "height", "seed", "seconds", "rating", "created_at", "run_id",
)  # fmt: skip
FIGURES = ("seconds", "rating", "peak_vram_bytes")
"""Columns that can be drawn as figures."""

TEXTS = ("prompt", "negative_prompt")
"""What private images do not tell."""

_NEEDED_COLUMNS = tuple(dict.fromkeys((*_NEEDED, *FIGURES, *COLUMNS)))

Place = tuple[int, ...]
"""One value of each axis, by its number, in the order of the axes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """`axes`: the first is x, the second y, the others select. `images` of each place, `failures` where there are none.

    `constant` is what all have in common: names and labels. `left_out`: why places have no image though one was made.
    """

    axes: tuple[Axis, ...]
    images: dict[Place, list[Found]]
    failures: dict[Place, str]
    constant: tuple[tuple[str, str], ...]
    asked: AskedFor = field(repr=False)
    left_out: Mapping[Place, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Found]:
        """All images, place by place."""
        return [row for rows in self.images.values() for row in rows]

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(map(len, self.images.values()))

    def values(self, axis: int) -> tuple[str, ...]:
        """The labels on an axis; of an axis that there is not, one without text."""
        return self.axes[axis].labels if axis < len(self.axes) else ("",)

    def constant_text(self, *, private: bool) -> str:
        """What all have in common, on one line; without prompts, if these are private."""
        return ", ".join(label for name, label in self.constant if not private or name not in TEXTS)

    def blocks(self) -> list[Place]:
        """The combinations of the selectors that have images or failures, in order."""
        return sorted({place[2:] for place in (*self.images, *self.failures)})

    def place(self, x: int, y: int, block: Place) -> Place:
        """The place of a cell within a block."""
        return (x, y, *block)[: len(self.axes)]

    @property
    def tells_all(self) -> bool:
        """Whether pages say of every empty cell why it is."""
        return math.prod(len(axis.values) for axis in self.axes) <= MAX_TOLD + self.count

    def cells(self) -> Iterator[tuple[Place, list[int], str | None]]:
        """The places with images, by their numbers among `rows`, and those of which it is known why they have none."""
        before = 0
        for place, rows in self.images.items():
            yield place, [*range(before, before + len(rows))], None
            before += len(rows)
        for place in self.failures:
            yield place, [], self.why_empty(place)
        if self.tells_all:
            for place in product(*(range(len(axis.values)) for axis in self.axes)):
                if place not in self.images and place not in self.failures:
                    yield place, [], self.why_empty(place)

    def why_empty(self, place: Place) -> str:
        """Why a place has no image, in few words."""
        if why := self.left_out.get(place) or self.failures.get(place):
            return why
        said: dict[str, Any] = {}
        for axis, number in zip(self.axes, place, strict=True):
            value = axis.values[number]
            said |= dict(zip(axis.columns, value if len(axis.columns) > 1 else (value,), strict=True))
        known = self.asked.includes(said)
        return NONE if known is None else NOT_MADE if known else NOT_ASKED


def grid_of(
    output_dir: Path,
    text: str = "",
    where: str | None = None,
    run: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Grid:
    """The images that match words, condition and run, laid out; `x` and `y` name axes to take for the first ones.

    Raises `ConfigError` for axes that there are not and where there is nothing or too much, `ReadError` without a
    manifest.
    """
    run_id = find_run(output_dir, run).id if run is not None else None
    rows = list(found_rows(output_dir, text, where, f"run_id = '{run_id}'" if run_id else None))
    if not rows:
        raise ConfigError("nothing found to lay out; darkroom search shows what is there")
    if len(rows) > MAX_IMAGES:
        raise ConfigError(
            f"more than {MAX_IMAGES:,} images and failures found; narrow them with words, --where or --run"
        )
    asked = asked_for(output_dir, (run_id,) if run_id else run_ids(rows))
    if run_id:
        rows = [*_made_before(output_dir, text, where, rows, asked), *rows]
    grid = laid_out(rows, asked, x, y, to_come=not (text or where))
    return with_left_out(grid, output_dir) if text or where else grid


def laid_out(
    rows: Sequence[Found], asked: AskedFor, x: str | None = None, y: str | None = None, *, to_come: bool = False
) -> Grid:
    """A grid of the rows of images and failures, one at least, the latest last; with `to_come`, and of what runs were
    asked for and have not made yet. Raises `ConfigError` as `grid_of`.
    """
    axes = _arranged(axes_of(rows, asked, to_come=to_come), x, y)
    images: dict[Place, list[Found]] = {}
    failures: dict[Place, str] = {}
    numbers = _numbers(axes)
    for row in rows:  # the latest last
        place = tuple(one[value_of(row, axis.columns)] for one, axis in zip(numbers, axes, strict=True))
        if row["status"] == DONE:
            images.setdefault(place, []).append(row)
        else:
            failures[place] = f"{row['status']}: {row['error_kind']}" if row["error_kind"] else row["status"]
    return Grid(
        tuple(axes),
        images,
        {place: why for place, why in failures.items() if place not in images},
        tuple(_constant(rows, axes)),
        asked,
    )


def with_left_out(grid: Grid, output_dir: Path) -> Grid:
    """The grid, which knows of its empty places the images that were made for them and are not among those found."""
    if len(grid.images) >= math.prod(len(axis.values) for axis in grid.axes):
        return grid
    found = grid.rows
    if not found:
        return grid
    seen = {column: [found[0][column]] for column in COLUMNS}
    for axis in grid.axes:
        columns = zip(*axis.values, strict=True) if len(axis.columns) > 1 else [axis.values]
        seen |= {column: [*values] for column, values in zip(axis.columns, columns, strict=True)}
    fixed = [column for column in COLUMNS if not any(column in axis.columns for axis in grid.axes)]
    conditions = [f"status = '{DONE}'"]
    for column, values in seen.items():
        if len(values) <= _MAX_COMPARED and all(isinstance(value, str | int) for value in values):
            conditions.append(f"{column} IN ({quoted(map(str, values))})")
    numbers = _numbers(grid.axes)
    known = {row["image_id"] for row in found}
    left_out: dict[Place, str] = {}
    wanted = ("image_id", "removed", *COLUMNS)
    for row in search(output_dir, "", " AND ".join(conditions), wanted, "-created_at", MAX_TOLD):
        if row["image_id"] in known or any(row[column] != found[0][column] for column in fixed):
            continue
        own = [value_of(row, axis.columns) for axis in grid.axes]
        place = tuple(one[value] for one, value in zip(numbers, own, strict=True) if value in one)
        if len(place) == len(own) and place not in grid.images and left_out.get(place) != LEFT_OUT:
            left_out[place] = REMOVED if row["removed"] else LEFT_OUT
    return replace(grid, left_out=left_out)


def mean_figures(grid: Grid, column: str, x: int | None = 0, y: int | None = 1) -> dict[tuple[int, int], float]:
    """The mean of a column over all images of two axes, whatever the others; where it is known of one.

    An axis that there is not, or that is None, has one value.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for place, rows in grid.images.items():
        across, down = (place[one] if one is not None and one < len(place) else 0 for one in (x, y))
        found.setdefault((across, down), []).extend(float(row[column]) for row in rows if row[column] is not None)
    return {cell: math.fsum(values) / len(values) for cell, values in found.items() if values}


def found_rows(output_dir: Path, text: str, *conditions: str | None) -> Iterator[Found]:
    """The rows of images and failures that have all words and meet all conditions, the latest last; one more than can
    be laid out.
    """
    # Speaking of the status brings the failures, which say why a cell is empty.
    condition = " AND ".join([*(f"({one}\n)" for one in conditions if one), "status IS NOT NULL"])
    return search(output_dir, text, condition, _NEEDED_COLUMNS, "created_at,image_id", MAX_IMAGES + 1)


def run_ids(rows: Sequence[Found]) -> frozenset[str]:
    """The runs that made rows."""
    return frozenset(row["run_id"] for row in rows if row["run_id"])


def _made_before(
    output_dir: Path, text: str, where: str | None, rows: Sequence[Found], asked: AskedFor
) -> Iterator[Found]:
    """What a run was asked for and did not make, because an earlier one had: of its name, with values that it has or
    was asked for. Prompts may be others, since all of a prompt's images may have been there.
    """
    names = quoted({row["name"] for row in rows if row["name"]})
    run_id = rows[0]["run_id"]
    if not names:
        return
    condition = f"name IN ({names}) AND status = '{DONE}' AND run_id <> '{run_id}'"
    condition = f"({where}\n) AND {condition}" if where else condition
    fixed = [column for column in COLUMNS if column not in ("prompt", *asked.columns)]
    seen = {column: {value_of(row, (column,)) for row in rows} for column in fixed}
    for row in search(output_dir, text, condition, _NEEDED_COLUMNS, "created_at,image_id", MAX_IMAGES - len(rows) + 1):
        if asked.includes(row) and all(value_of(row, (column,)) in seen[column] for column in fixed):
            yield row


def _numbers(axes: Sequence[Axis]) -> list[dict[Any, int]]:
    """Of each axis the number of each of its values."""
    return [{value: number for number, value in enumerate(axis.values)} for axis in axes]


def _arranged(axes: list[Axis], x: str | None, y: str | None) -> list[Axis]:
    """With the named axes in front. One that does not vary has a single value."""
    names = [axis.name for axis in axes]
    for option, name in (("--x", x), ("--y", y)):
        if name is not None and name not in names:
            reason = "does not vary among these images" if name in AXES else f"no such axis{nearest(name, [*AXES])}"
            raise ConfigError(f"{option} {name}: {reason}; there are {', '.join(names) or 'none'}")
    if x is not None and x == y:
        raise ConfigError(f"--x and --y: both are {x}; name two")
    by_name = dict(zip(names, axes, strict=True))
    rest = [name for name in names if name not in (x, y)]
    first = x or (rest.pop(0) if rest else None)
    second = y or (rest.pop(0) if rest else None)
    return [by_name[name] for name in (first, second, *rest) if name is not None]


def _constant(rows: Sequence[Found], axes: Sequence[Axis]) -> Iterator[tuple[str, str]]:
    varying = {axis.name for axis in axes}
    for name, (columns, label) in AXES.items():
        value = value_of(rows[0], columns)
        if name in varying or value in (None, "", (), ((), ())):
            continue
        if name not in PART_OF or all(value_of(row, columns) == value for row in rows):
            yield name, label(value)


def row_of(row: Found) -> dict[str, Any]:
    """What is told of an image where it is looked at more closely, by column."""
    return {name: row[name] for name in _TOLD if row[name] not in (None, "", [])}
