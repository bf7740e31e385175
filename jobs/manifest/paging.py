"""Query results of any size in little memory: only row numbers are sorted, and rows are read page by page.

DuckDB would sort whole rows, each with its record, and hold all of them for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.manifest.query import BATCH_ROWS, connect_retried, raise_if_vanished
from jobs.manifest.snapshot import Snapshot

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    Select = Callable[[DuckDBPyRelation], DuckDBPyRelation]

PAGE_ROWS = 5_000
"""Rows that DuckDB holds at a time, some 6 KB each where they come with their records."""

_MOST_PAGES = 50
"""More rows are read in larger pages: in an order unlike that of the parts, each page goes through all parts."""

_IDENTITY = ("job_id", "attempt", "status", "created_at")
"""What tells a row from all others, wherever it is moved to."""


def stream_pages(
    output_dir: Path, select: Select, columns: Sequence[str], *, feedback: bool = True
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows that `select` finds in `images`, in its order, page by page; further pages are read while iterating.

    `columns` are SQL over those of `images`, `feedback` is as in `query.connect`. The first page is read at once, so
    that what is wrong is known before anything is printed. A part that is compacted away, then or later, is no fault:
    what has not been given yet is looked for again. Errors of DuckDB itself are let through.
    """
    given: list[tuple[Any, ...]] = []

    def read(connection: DuckDBPyConnection, snapshot: Snapshot) -> tuple[_Found, list[tuple[Any, ...]]]:
        found = _Found(connection, snapshot, select, columns, given)
        return found, found.begin_page(0)

    def look() -> tuple[_Found, list[tuple[Any, ...]]]:
        # Each further thread would hold what it reads.
        return connect_retried(output_dir, read, threads=1, feedback=feedback, placed=True)

    def batches(found: _Found, batch: list[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
        place = 0
        try:
            while batch:
                yield batch
                batch = found.connection.fetchmany(BATCH_ROWS)
                if batch:
                    continue
                place += found.page_rows
                try:
                    batch = found.begin_page(place)
                except FileNotFoundError:
                    given.extend(found.identities(place))
                    found.connection.close()
                    found, batch = look()
                    place = 0
        finally:
            found.connection.close()

    return batches(*look())


class _Found:
    """The places of all rows of a result but the `given` ones (by their identities), and the rows by `page_rows`."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        snapshot: Snapshot,
        select: Select,
        columns: Sequence[str],
        given: Sequence[tuple[Any, ...]],
    ) -> None:
        import duckdb

        self.connection, self._snapshot, self._columns = connection, snapshot, ", ".join(columns)
        sorted_rows = select(connection.view("placed"))
        sorted_rows.select(*map(duckdb.ColumnExpression, ("_part", "_row", *_IDENTITY))).create("sorted")
        self._number(given)
        self.page_rows = max(PAGE_ROWS, -(-len(self.connection.table("found")) // _MOST_PAGES))

    def begin_page(self, start: int) -> list[tuple[Any, ...]]:
        """The first rows from this place on; the connection has the others of the page."""
        page = f"SELECT _part, _row, place FROM found WHERE place >= {start} AND place < {start + self.page_rows}"
        with raise_if_vanished(self._snapshot):
            return self.connection.execute(
                f"SELECT {self._columns} FROM placed JOIN ({page}) USING (_part, _row) ORDER BY place"
            ).fetchmany(BATCH_ROWS)

    def identities(self, end: int) -> list[tuple[Any, ...]]:
        """Those of the rows before this place."""
        names = ", ".join(f"{name}::VARCHAR" for name in _IDENTITY)
        return self.connection.execute(f"SELECT {names} FROM found WHERE place < {end}").fetchall()

    def _number(self, given: Sequence[tuple[Any, ...]]) -> None:
        """Number the rows that are sorted, without the given ones."""
        rows = "sorted"
        if given:
            columns = ", ".join(f"unnest(?::VARCHAR[]) AS {name}" for name in _IDENTITY)
            self.connection.execute(
                f"CREATE TABLE given AS SELECT {columns}", [list(column) for column in zip(*given, strict=True)]
            )
            same = " AND ".join(f"sorted.{name}::VARCHAR IS NOT DISTINCT FROM given.{name}" for name in _IDENTITY)
            rows = f"(SELECT sorted.* FROM sorted ANTI JOIN given ON {same} ORDER BY sorted.rowid)"
        self.connection.execute(f"CREATE TABLE found AS SELECT *, row_number() OVER () - 1 AS place FROM {rows}")
