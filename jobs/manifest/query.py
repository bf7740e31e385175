"""The manifest as one DuckDB view, on a connection that can read no other files.

Parts stay lazily scanned Parquet; committed rows of live journals are a small table beside them, and what people said
of images is joined from another (`ratings_view`). Once the view
stands, the file system is closed but for exactly these parts, extensions can be neither installed nor loaded, and
the settings are locked. What users write goes in only as one `duckdb.SQLExpression`, never as a statement: a `COPY`
of our own could still name a part. Nothing here imports pyarrow unless a run is live or every part lacks a column.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.manifest import events
from jobs.manifest.parts import VERSION_KEY, checked_version, damaged, incomplete
from jobs.manifest.ratings_view import create_feedback, joined
from jobs.manifest.schema import Feedback, Row, row_from_json
from jobs.manifest.snapshot import Snapshot, reading_retried
from pipeline.errors import ReadError
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

T = TypeVar("T")

_log = logging.getLogger("darkroom.manifest")

BATCH_ROWS = 500

ROW_COLUMNS = tuple(Row.__annotations__)

COLUMNS = (*ROW_COLUMNS, *Feedback.__annotations__)


def stream(
    output_dir: Path, select: Callable[[DuckDBPyConnection], DuckDBPyRelation], *, feedback: bool = True
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows that `select` makes of the view `images`, in chunks; further chunks are read while iterating.

    Of many whole rows in an order, `paging.stream_pages` needs less memory. `feedback` is as in `connect`.

    The first are read at once, so that what is wrong is known before anything is printed, and a part that was
    compacted away meanwhile is no fault. Errors of DuckDB itself are let through.
    """

    def read(connection: DuckDBPyConnection, _snapshot: Snapshot) -> tuple[DuckDBPyConnection, list[tuple[Any, ...]]]:
        select(connection).create_view("selected")
        return connection, connection.execute("FROM selected").fetchmany(BATCH_ROWS)

    return _batches(*connect_retried(output_dir, read, feedback=feedback))


def _batches(connection: DuckDBPyConnection, batch: list[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    with connection:
        while batch:
            yield batch
            batch = connection.fetchmany(BATCH_ROWS)


def open_manifest(output_dir: str | Path = DEFAULT_OUTPUT_DIR) -> DuckDBPyConnection:
    """A locked connection with the view `images` of all rows that exist now; the caller closes it.

    It can read nothing but the manifest. `stream` also survives compactions. Raises `ReadError` for a damaged manifest.
    """
    return connect_retried(Path(output_dir), lambda connection, _snapshot: connection)


def connect_retried(
    output_dir: Path,
    use: Callable[[DuckDBPyConnection, Snapshot], T],
    *,
    threads: int | None = None,
    feedback: bool = True,
    placed: bool = False,
) -> T:
    """Call `use` with a connection as of `connect`, and again with a new one if a file vanished during it.

    `use` keeps the connection, unless it raises. It is the one with which footers were read: opening another one would
    take as long as reading them.
    """

    def read(snapshot: Snapshot) -> T:
        connection = footers.hand_over()
        try:
            with raise_if_vanished(snapshot):
                _make_views(connection, snapshot, threads, feedback=feedback, placed=placed)
                return use(connection, snapshot)
        except BaseException:
            connection.close()
            raise

    with _Footers() as footers:
        return reading_retried(output_dir, read, footers.version)


def read_retried(output_dir: Path, read: Callable[[Snapshot], T]) -> T:
    """Like `snapshot.reading_retried`, with DuckDB for the footers."""
    with _Footers() as footers:
        return reading_retried(output_dir, read, footers.version)


class _Footers:
    """As `parts.part_version`, by the library that reads the rows here: importing the other one takes longer.

    Those of a whole folder are read at once, which is four times as fast as one by one.
    """

    def __init__(self) -> None:
        self._open: DuckDBPyConnection | None = None
        self._versions: dict[str, bytes] = {}
        self._folders: set[Path] = set()

    def version(self, path: Path) -> int:
        import duckdb

        if path.parent not in self._folders:
            self._folders.add(path.parent)
            with suppress(duckdb.Error):  # one is no part, or gone: they are asked one by one
                self._versions.update(self._read([str(one) for one in path.parent.glob("*.parquet")]))
        try:
            found = self._versions.get(str(path)) or dict(self._read([str(path)])).get(str(path))
        except duckdb.IOException as error:
            if not path.exists():
                raise FileNotFoundError(path) from None
            raise ReadError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
        except duckdb.Error:
            raise incomplete(path) from None
        return checked_version(path, found)

    def _read(self, paths: list[str]) -> list[tuple[str, bytes]]:
        query = "SELECT file_name, value FROM parquet_kv_metadata(?) WHERE key = ?"
        return self._connection.execute(query, [paths, VERSION_KEY]).fetchall()

    def hand_over(self) -> DuckDBPyConnection:
        """The connection, which is the caller's to close now."""
        connection, self._open = self._connection, None
        return connection

    @property
    def _connection(self) -> DuckDBPyConnection:
        self._open = self._open or _opened()
        return self._open

    def __enter__(self) -> _Footers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._open.close()


@contextmanager
def raise_if_vanished(snapshot: Snapshot) -> Iterator[None]:
    """Raise FileNotFoundError for a DuckDB error that was caused by a part that no longer exists."""
    import duckdb

    try:
        yield
    except duckdb.Error:
        for path in snapshot.parts:
            if not path.exists():
                raise FileNotFoundError(path) from None
        raise


def connect(snapshot: Snapshot, *, feedback: bool = True) -> DuckDBPyConnection:
    """A locked connection with the view `images`.

    Without `feedback` it lacks what people said of images: joining it to a million rows takes a second. Raises errors
    of DuckDB.
    """
    connection = _opened()
    try:
        _make_views(connection, snapshot, feedback=feedback)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened() -> DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    )
    # Moments are compared and shown in UTC, and a part's footer is read once, not once per step below.
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET parquet_metadata_cache = true")
    return connection


def _make_views(
    connection: DuckDBPyConnection,
    snapshot: Snapshot,
    threads: int | None = None,
    *,
    feedback: bool,
    placed: bool = False,
) -> None:
    """Make the view `images`, and lock the connection. `threads` is how many DuckDB may use, None for its own choice.

    `placed` is for a view of that name, too, whose columns `_part` and `_row` say where a row is.
    """
    live_rows = [row for path in snapshot.journals for row in events.replay(path).finished]
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    parts, present = _readable(connection, [str(path) for path in snapshot.parts])
    sources = [(_scan(parts), "file_index", "file_row_number")] if parts else []
    if live_rows or not set(ROW_COLUMNS) <= present:
        _create_live_table(connection, live_rows)
        sources.append(("live", "-1", "rowid"))
    if feedback:
        create_feedback(connection, snapshot.ratings)
    create_view = partial(_create_view, connection, feedback=feedback)
    create_view("images", ROW_COLUMNS, [f"SELECT * FROM {source}" for source, _, _ in sources])
    if placed:
        rows = [f"SELECT *, {part} AS _part, {row} AS _row FROM {source}" for source, part, row in sources]
        create_view("placed", (*ROW_COLUMNS, "_part", "_row"), rows)
    connection.execute(f"SET allowed_paths = {_literal(parts)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _readable(connection: DuckDBPyConnection, parts: list[str]) -> tuple[list[str], set[str]]:
    """The parts that DuckDB can open, and the columns that they have together."""
    import duckdb

    if not parts:
        return [], set()
    try:
        return parts, set(connection.sql(f"SELECT * FROM {_scan(parts)}").columns)
    except duckdb.Error as error:
        if len(parts) == 1:
            if not Path(parts[0]).exists():
                raise
            _log.warning("%s", damaged(Path(parts[0]), error))
            return [], set()
        one_by_one = [_readable(connection, [part]) for part in parts]
        return [p for found, _ in one_by_one for p in found], set().union(*(present for _, present in one_by_one))


def _create_view(
    connection: DuckDBPyConnection, name: str, columns: Sequence[str], sources: Sequence[str], *, feedback: bool
) -> None:
    rows = " UNION ALL BY NAME ".join(sources)
    select = joined(connection, rows, columns) if feedback else f"SELECT {', '.join(columns)} FROM ({rows})"
    connection.execute(f"CREATE VIEW {name} AS {select}")


def _create_live_table(connection: DuckDBPyConnection, rows: Sequence[events.RowValues]) -> None:
    from jobs.manifest.parts import table_from_rows

    connection.from_arrow(table_from_rows([row_from_json(row) for row in rows])).create("live")


def _scan(parts: Sequence[str]) -> str:
    return f"read_parquet({_literal(parts)}, union_by_name = true)"


def _literal(texts: Sequence[str]) -> str:
    return f"[{quoted(texts)}]"


def quoted(texts: Iterable[str]) -> str:
    """Texts as SQL, separated by commas."""
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
