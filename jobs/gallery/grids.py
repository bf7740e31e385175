"""The pictures of a filter laid out as `darkroom grid` lays them out, for the page to arrange: axes, cells, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.archive.asked_for import AskedFor, asked_for
from jobs.archive.grid import (
    FIGURES,
    MAX_IMAGES,
    NONE,
    TEXTS,
    Grid,
    found_rows,
    laid_out,
    mean_figures,
    run_ids,
    with_left_out,
)
from jobs.archive.grid_axes import Axis
from jobs.archive.grid_figures import MAX_SIDE, figure_text, share_of
from jobs.archive.search import Found
from jobs.gallery.filters import Filter
from jobs.gallery.views import Views, usual_ratio
from jobs.manifest.layout import Layout
from jobs.manifest.query import quoted
from pipeline.errors import ConfigError

_WAY_OUT = "choose a run, a model or days among the filters, or search for words"


class Grids:
    """Grids of one output folder, for any number of threads."""

    def __init__(self, output_dir: Path, views: Views) -> None:
        self._output_dir = output_dir
        self._views = views
        self._asked: tuple[frozenset[str], AskedFor] = (frozenset(), AskedFor())

    def grid(self, wanted: Filter) -> dict[str, Any]:
        """Axes with their labels, pictures by their ids, and cells: where they are, which pictures or why none.

        Raises `ConfigError` where there are too many.
        """
        found = self._found(wanted)
        if found is None:
            return {"axes": [], "images": [], "cells": [], "ratio": 1, "constant": "", "figures": [], "none": NONE}
        if found.tells_all:
            found = with_left_out(found, self._output_dir)
        rows = found.rows
        return {
            "axes": [{"name": one.name, "labels": one.labels, "keys": _keys(one)} for one in found.axes],
            "images": [row["image_id"] for row in rows],
            "cells": [*found.cells()],
            "ratio": usual_ratio((row["width"], row["height"]) for row in rows),
            "constant": found.constant_text(private=False),
            "figures": [name for name in FIGURES if any(row[name] is not None for row in rows)],
            "none": NONE,
        }

    def figures(self, wanted: Filter, by: str, x: str, y: str) -> dict[str, Any]:
        """Means of a column over the values of two axes, each with its share between the least and the greatest.

        An axis that does not vary has one value. Raises `ConfigError` for what cannot be drawn.
        """
        if by not in FIGURES:
            raise ConfigError(f"by: expected one of {', '.join(FIGURES)}")
        found = self._found(wanted)
        if found is None:
            raise ConfigError("nothing found to lay out")
        names = [axis.name for axis in found.axes]
        across, down = (names.index(one) if one in names else None for one in (x, y))
        labels = [found.axes[one].labels if one is not None else ("",) for one in (across, down)]
        if max(map(len, labels)) > MAX_SIDE:
            raise ConfigError(f"{by}: an axis has more than {MAX_SIDE} values; choose other axes")
        means = mean_figures(found, by, across, down)
        cells = [[means.get((x, y)) for x in range(len(labels[0]))] for y in range(len(labels[1]))]
        return {
            "labels": labels,
            "rows": [[[figure_text(by, value), share_of(means, value)] for value in row] for row in cells],
            "count": found.count,
        }

    def _found(self, wanted: Filter) -> Grid | None:
        """The pictures, and the failures that meet the same words and facets; None where there is neither."""
        view = self._views.view(wanted)
        if len(view.numbers) > MAX_IMAGES:
            raise ConfigError(
                f"{len(view.numbers):,} pictures are more than the {MAX_IMAGES:,} that a grid lays out; {_WAY_OUT}"
            )
        if not Layout(self._output_dir).root.is_dir():
            return None
        conditions = [f"image_id IN ({quoted(self._views.ids(wanted)) or 'NULL'})", wanted.failures()]
        condition = " OR ".join(f"({one})" for one in conditions if one)
        rows = list(found_rows(self._output_dir, " ".join(wanted.words), condition))
        if len(rows) > MAX_IMAGES:
            raise ConfigError(f"more than {MAX_IMAGES:,} pictures and failures are found; {_WAY_OUT}")
        return laid_out(rows, self._asked_for(rows), to_come=not wanted.narrows_runs) if rows else None

    def _asked_for(self, rows: Sequence[Found]) -> AskedFor:
        """What the runs were asked for, which never changes: it is read once as long as the runs are the same."""
        ids = run_ids(rows)
        known, asked = self._asked
        if ids != known:
            asked = asked_for(self._output_dir, ids)
            self._asked = (ids, asked)
        return asked


def _keys(axis: Axis) -> list[str]:
    """A short name of each value, for addresses: its label without the axis' name; of a text a hash, which says nothing
    of it in a bookmark.
    """
    if axis.name in TEXTS:
        return [hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:8] for value in axis.values]
    return [label.removeprefix(f"{axis.name} ") for label in axis.labels]
