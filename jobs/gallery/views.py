"""What the wall shows: the pictures of a filter in an order, pages of them, and how many each facet has.

The numbers of all pictures that a filter finds are kept for a while, so that any place of a million is a moment away,
and so that nothing moves under a reader while new pictures arrive.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.gallery.filters import FACETS, RATINGS, SORTS, Filter
from jobs.gallery.index import Index

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from duckdb import DuckDBPyConnection

MAX_PAGE = 500
"""Pictures of one page."""

_KEPT_VIEWS, _KEPT_FACETS = 16, 32

_MAX_VALUES = 200
"""Values of one facet that are counted out."""

SHOWN = (
    "n", "image_id", "created_at", "width", "height", "prompt", "model", "loras", "steps", "guidance_scale",
    "scheduler", "seed", "seconds", "tags", "run_id", "file_sha256",
)  # fmt: skip
"""What a page says of a picture, besides what was said of it."""

_SAID = ("rating", "picked", "rejected", "user_tags", "note")


@dataclass(frozen=True, slots=True)
class View:
    """The pictures of a filter: their numbers, in order. `ratio` is the width over the height of most pictures."""

    id: str
    numbers: npt.NDArray[np.int32]
    ratio: float


class Views:
    """Views of an index, for any number of threads."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._views: OrderedDict[str, View] = OrderedDict()
        self._facets: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()

    def view(self, wanted: Filter) -> View:
        """The pictures that a filter finds now."""
        versions = (self._index.pictures_version, self._index.said_version)
        view_id = hashlib.sha256(repr((wanted.key, versions)).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        if known := self.known(view_id):
            return known
        condition, values = wanted.condition()
        source = "pictures LEFT JOIN live.said USING (n)" if wanted.sort == "rating" else "pictures"
        query = f"SELECT n FROM {source} WHERE {condition} ORDER BY {SORTS[wanted.sort][1]}"
        with self._index.cursor() as connection:
            numbers = connection.execute(query, values).fetchnumpy()["n"]
            view = View(view_id, numbers, _ratio(connection))
        with self._lock:
            _keep(self._views, view_id, view, _KEPT_VIEWS)
        return view

    def known(self, view_id: str) -> View | None:
        """A view that was asked for before, as it was; None if it is forgotten."""
        with self._lock:
            if view := self._views.get(view_id):
                self._views.move_to_end(view_id)
            return view

    def page(self, view: View, start: int, count: int) -> list[dict[str, Any]]:
        """So many pictures of a view from a place on, counted from 0, with what was said of them by now."""
        return self._rows([int(n) for n in view.numbers[start : start + min(count, MAX_PAGE)]])

    def place(self, view: View, image_id: str) -> int | None:
        """Where a picture is in a view."""
        with self._index.cursor() as connection:
            found = connection.execute("SELECT n FROM pictures WHERE image_id = ?", [image_id]).fetchone()
        if found is None:
            return None
        places = (view.numbers == found[0]).nonzero()[0]
        return int(places[0]) if len(places) else None

    def pictures(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Pictures by their ids, with their paths and jobs; unknown ones are left out."""
        with self._index.cursor() as connection:
            found = connection.execute(
                "SELECT n, image_id, job_id, path FROM pictures WHERE list_contains(?::VARCHAR[], image_id)",
                [[*image_ids]],
            ).fetchall()
        rows = {row["image_id"]: row for row in self._rows([n for n, *_ in found])}
        return {one: {**rows[one], "job_id": job_id, "path": path} for _, one, job_id, path in found if one in rows}

    def ids(self, wanted: Filter) -> list[str]:
        """The ids of all pictures that a filter finds now, in no particular order."""
        condition, values = wanted.condition()
        with self._index.cursor() as connection:
            found = connection.execute(f"SELECT image_id FROM pictures WHERE {condition}", values).fetchall()
        return [image_id for (image_id,) in found]

    def file_of(self, image_id: str) -> tuple[str, str] | None:
        """The path and the hash of a picture's file, as its row has them."""
        with self._index.cursor() as connection:
            return connection.execute(
                "SELECT path, coalesce(file_sha256, '') FROM pictures WHERE image_id = ?", [image_id]
            ).fetchone()

    def facets(self, wanted: Filter) -> dict[str, Any]:
        """Of each facet its values with how many pictures of the filter have them, its own choice left out."""
        asked = wanted.words, wanted.since, wanted.until, tuple(sorted(wanted.facets.items()))
        key = (*asked, self._index.pictures_version, self._index.said_version)
        with self._lock:
            if key in self._facets:
                return self._facets[key]
        with self._index.cursor() as connection:
            source = _basis(connection, wanted)
            counted = {name: _values(connection, source, wanted, name) for name in FACETS}
        with self._lock:
            _keep(self._facets, key, counted, _KEPT_FACETS)
        return counted

    def _rows(self, numbers: list[int]) -> list[dict[str, Any]]:
        if not numbers:
            return []
        names = (*(f"pictures.{name}" for name in SHOWN), *(f"said.{name}" for name in _SAID))
        wanted = ", ".join(map(str, numbers))
        with self._index.cursor() as connection:
            found = connection.execute(
                f"SELECT {', '.join(names)} FROM (FROM pictures WHERE n IN ({wanted})) AS pictures "
                f"LEFT JOIN live.said USING (n)"
            ).fetchall()
        rows = {row[0]: _shown(row) for row in found}
        return [rows[n] for n in numbers if n in rows]


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    values = dict(zip((*SHOWN, *_SAID), row, strict=True))
    del values["n"]
    values["created_at"] = values["created_at"].isoformat(timespec="seconds") + "Z"
    values["user_tags"] = values["user_tags"] or []
    values["picked"], values["rejected"] = bool(values["picked"]), bool(values["rejected"])
    return values


def _ratio(connection: DuckDBPyConnection) -> float:
    found = connection.execute(
        "SELECT width, height FROM pictures WHERE height > 0 GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1"
    ).fetchall()
    return usual_ratio(found)


def usual_ratio(sizes: Iterable[tuple[int, int]]) -> float:
    """The width over the height of most of these pictures, within what a cell can have."""
    ratios = Counter(width / height for width, height in sizes if height > 0)
    return min(2.0, max(0.5, *(ratio for ratio, _ in ratios.most_common(1)))) if ratios else 1.0


def _basis(connection: DuckDBPyConnection, wanted: Filter) -> str:
    """The table whose rows are counted: that of all pictures, or where words or days narrow it, one of these."""
    if not (wanted.words or wanted.since or wanted.until):
        return "pictures"
    condition, values = wanted.condition(basic_only=True)
    connection.execute(
        "CREATE TEMP TABLE basis AS SELECT n, model, loras, width, height, steps, scheduler, run_id, tags, traits "
        f"FROM pictures WHERE {condition}",
        values,
    )
    return "basis"


def _values(connection: DuckDBPyConnection, source: str, wanted: Filter, name: str) -> dict[str, Any]:
    facets = {one: values for one, values in wanted.facets.items() if one != name}
    condition, values = Filter(facets=facets).condition()
    if source == "pictures":
        condition, values = Filter((), wanted.since, wanted.until, facets).condition()
    if name == "rating":
        return {"values": _ratings(connection, source, condition, values), "more": 0}
    facet = FACETS[name]
    of = facet.values
    if name == "tag":
        own = "coalesce((SELECT user_tags FROM live.said WHERE said.n = pictures.n), [])"
        said = connection.execute("SELECT 1 FROM live.said WHERE len(user_tags) > 0 LIMIT 1").fetchall()
        of = f"list_distinct(list_concat(tags, {own}))" if said else "tags"
    each = f"unnest({of})" if facet.is_list else of
    order = "value DESC" if name == "run" else "count DESC, value"
    found = connection.execute(
        f"SELECT value, count(*) AS count, count(*) OVER () FROM (SELECT {each} AS value FROM {source} AS pictures "
        f"WHERE {condition}) WHERE value IS NOT NULL GROUP BY value ORDER BY {order} LIMIT {_MAX_VALUES}",
        values,
    ).fetchall()
    counted = [[value, count] for value, count, _ in found]
    listed = {value for value, _ in counted}
    counted += [[value, 0] for value in wanted.facets.get(name, ()) if value not in listed]
    if name == "steps":
        counted.sort(key=lambda one: int(one[0]) if str(one[0]).isdecimal() else 0)
    return {"values": counted, "more": max(0, found[0][2] - len(found)) if found else 0}


def _ratings(connection: DuckDBPyConnection, source: str, condition: str, values: list[Any]) -> list[list[Any]]:
    ((total,),) = connection.execute(f"SELECT count(*) FROM {source} WHERE {condition}", values).fetchall()
    ((rated, *by),) = connection.execute(
        "SELECT count(*) FILTER (rating IS NOT NULL OR picked OR rejected), "
        + ", ".join(f"count(*) FILTER (rating = {stars})" for stars in (5, 4, 3, 2, 1))
        + f", count(*) FILTER (picked), count(*) FILTER (rejected) FROM live.said "
        f"JOIN (SELECT n FROM {source} WHERE {condition}) USING (n)",
        values,
    ).fetchall()
    counts = dict(zip(("5", "4", "3", "2", "1", "picked", "rejected"), by, strict=True))
    counts["unrated"] = total - rated
    return [[name, counts[name]] for name in RATINGS]


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
