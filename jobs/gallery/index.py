"""The index: the columns that the wall needs, of every picture, in a DuckDB file that follows the manifest.

It lies in the user's cache folder and can be deleted at any time: the parts of the manifest stay the truth, and ratings
are read from them anew at each start. A picture has a number here, `n`, which it keeps while the index lives.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.manifest.layout import Layout
from jobs.manifest.query import connect, raise_if_vanished, read_retried
from jobs.manifest.ratings_view import NO_FEEDBACK, create_feedback
from jobs.manifest.schema import DONE
from jobs.manifest.snapshot import Snapshot
from pipeline.errors import DarkroomError
from pipeline.prompting.analysis import AXES
from pipeline.storage.user_folders import cache_folder, make_folder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger("darkroom.gallery")

PAUSE_S = 1.0
"""Between two looks at the manifest. After a look that took long it is longer, so that following costs little."""

_BATCH_BYTES = 16_000_000
"""Of parts that are read at once: so the first pictures are there before a million have been read."""

_COLUMNS = {
    "image_id": "VARCHAR",
    "job_id": "VARCHAR",
    "run_id": "VARCHAR",
    "created_at": "TIMESTAMP",
    "path": "VARCHAR",
    "file_sha256": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "prompt": "VARCHAR",
    "tags": "VARCHAR[]",
    "seed": "BIGINT",
    "steps": "INTEGER",
    "guidance_scale": "DOUBLE",
    "scheduler": "VARCHAR",
    "model": "VARCHAR",
    "loras": "VARCHAR[]",
    "seconds": "DOUBLE",
}
"""Columns that are taken as they are, with their types here. `traits` is made of `selection`, `words` of three."""

TRAITS = tuple(f"{axis}: {value}" for axis, values in AXES.items() for value in values)
"""What the analysis of a prompt can say, of closed lists: texts of strangers are never taken for one."""

_TRAITS = (
    "list_filter(flatten(["
    + ", ".join(
        f"list_transform(coalesce(json_extract_string(choice, '$.analysis.{axis}[*]'), []), lambda x: '{axis}: ' || x)"
        for axis in AXES
    )
    + "]), lambda x: list_contains(?::VARCHAR[], x))"
)

_CREATE = f"""
CREATE TABLE IF NOT EXISTS files (name VARCHAR);
CREATE SEQUENCE IF NOT EXISTS numbers;
CREATE TABLE IF NOT EXISTS pictures (
    n INTEGER, {", ".join(f"{name} {type_}" for name, type_ in _COLUMNS.items())}, traits VARCHAR[], words VARCHAR
);
"""

_FRESH = """
CREATE OR REPLACE TEMP TABLE fresh AS FROM incoming;
CREATE OR REPLACE TEMP TABLE known AS SELECT image_id FROM pictures SEMI JOIN fresh USING (image_id);
"""
"""Rows that were read, and which of them are here already: a journal is read whenever it grows, and again as a part.

In this order, since a table of the few new ones is quickly made, and one of all pictures is not.
"""

_INSERT = f"""
INSERT INTO pictures
SELECT nextval('numbers'), {", ".join(_COLUMNS)},
    CASE WHEN choice IS NULL THEN [] ELSE {_TRAITS} END,
    lower(concat_ws(chr(10), prompt, model, array_to_string(tags, chr(10))))
FROM (
    SELECT * EXCLUDE (selection), CASE WHEN json_valid(selection) THEN selection END AS choice
    FROM fresh ANTI JOIN known USING (image_id) ORDER BY created_at
)
"""

_SAID = """
CREATE OR REPLACE TABLE live.said AS
SELECT n, feedback.* EXCLUDE (image_id) FROM live.feedback JOIN pictures USING (image_id)
"""


class Index:
    """The index of one output folder. `follow` and `refresh` are for one thread, `cursor` is for any.

    `pictures_version` and `said_version` count the changes of pictures and of what was said of them.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.pictures_version = 0
        self.said_version = 0
        self.is_complete = False
        self._seen: object = None
        self._again = threading.Event()
        self._ended = threading.Event()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._connection = self._opened()
        columns = ", ".join(f"{value} AS {name}" for name, value in NO_FEEDBACK.items())
        self._connection.execute("ATTACH ':memory:' AS live")
        self._connection.execute(f"CREATE TABLE live.feedback AS SELECT NULL::VARCHAR AS image_id, {columns} LIMIT 0")
        self._connection.execute(_SAID)

    def cursor(self) -> DuckDBPyConnection:
        """A connection of the calling thread's own; the caller closes it."""
        return self._connection.cursor()

    def count(self) -> int:
        """How many pictures there are."""
        with self.cursor() as connection:
            return _count(connection)

    def stop(self) -> None:
        """Make `follow` come to its end soon; call `close` when it has."""
        self._ended.set()
        self._again.set()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def follow(self) -> None:
        """Look at the manifest again and again until `close`."""
        while not self._ended.is_set():
            started = time.monotonic()
            try:
                self.refresh()
            except DarkroomError as error:
                _log.warning("%s", error)
            except Exception as error:  # the page lives on with what it has
                _log.warning("the index could not follow the manifest: %s", str(error).splitlines()[0])
            self._again.wait(max(PAUSE_S, 3 * (time.monotonic() - started)))
            self._again.clear()

    def look_again(self) -> None:
        """Make `follow` look at once: something was said."""
        self._again.set()

    def refresh(self) -> None:
        """Take in what is new in the manifest. Cheap where nothing is."""
        seen = _files(self.output_dir)
        if seen == self._seen and self.is_complete:
            return
        if Layout(self.output_dir).root.is_dir():
            read_retried(self.output_dir, self._take)
        else:
            with self.cursor() as connection:
                self._forget(connection)
        self._seen, self.is_complete = seen, True

    def _take(self, snapshot: Snapshot) -> None:
        with self.cursor() as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM files").fetchall()}
            names = {path.name for path in (*snapshot.parts, *snapshot.journals)}
            if known - names and self._differs(connection, snapshot):
                self._forget(connection)
                known = set()
            for parts in _batches([path for path in reversed(snapshot.parts) if path.name not in known]):
                if self._ended.is_set():  # what was read is kept
                    return
                self._add(connection, Snapshot(parts, ()))
            connection.execute("DELETE FROM files")
            connection.execute("INSERT INTO files SELECT unnest(?::VARCHAR[])", [sorted(names)])
            if snapshot.journals:
                self._add(connection, Snapshot((), snapshot.journals))
            self._hear(connection, snapshot)

    def _differs(self, connection: DuckDBPyConnection, snapshot: Snapshot) -> bool:
        """Whether pictures are gone, after files were: most are gone only because they were sealed or compacted."""
        with raise_if_vanished(snapshot), connect(snapshot, feedback=False) as manifest:
            now = manifest.view("images").filter(f"status = '{DONE}'").project("image_id").to_arrow_reader()
            connection.register("now", now)
            ((left,),) = connection.execute("SELECT count(*) FROM pictures ANTI JOIN now USING (image_id)").fetchall()
            connection.unregister("now")
        return bool(left)

    def _forget(self, connection: DuckDBPyConnection) -> None:
        if _count(connection):
            connection.execute("DELETE FROM pictures; DELETE FROM files")
            connection.execute(_SAID)
            self.pictures_version += 1

    def _add(self, connection: DuckDBPyConnection, snapshot: Snapshot) -> None:
        columns = ", ".join(
            f"{name}::TIMESTAMP AS {name}" if name == "created_at" else name for name in (*_COLUMNS, "selection")
        )
        with raise_if_vanished(snapshot), connect(snapshot, feedback=False) as manifest:
            rows = manifest.view("images").filter(f"status = '{DONE}' AND image_id IS NOT NULL AND path IS NOT NULL")
            connection.register("incoming", rows.project(columns).to_arrow_reader(20_000))
            connection.execute(_FRESH)
            connection.unregister("incoming")
        before = _count(connection)
        connection.execute(_INSERT, [list(TRAITS)])
        if snapshot.parts:
            connection.execute("INSERT INTO files SELECT unnest(?::VARCHAR[])", [[one.name for one in snapshot.parts]])
        if _count(connection) != before:
            connection.execute(_SAID)
            self.pictures_version += 1

    def _hear(self, connection: DuckDBPyConnection, snapshot: Snapshot) -> None:
        """Read what was said of pictures."""
        import duckdb

        if snapshot.ratings is None:
            return
        with duckdb.connect(":memory:") as ratings:
            ratings.execute("SET TimeZone = 'UTC'")
            create_feedback(ratings, snapshot.ratings)
            heard = ratings.sql(f"SELECT image_id, {', '.join(NO_FEEDBACK)} FROM feedback")
            connection.register("heard", heard.to_arrow_reader())
            connection.execute("CREATE OR REPLACE TABLE live.feedback AS FROM heard")
            connection.unregister("heard")
        connection.execute(_SAID)
        self.said_version += 1

    def _opened(self) -> DuckDBPyConnection:
        """The file in the cache folder; one in a temporary folder where another gallery has that or nothing can be
        written there."""
        import duckdb

        version = hashlib.sha256((_CREATE + _INSERT).encode()).hexdigest()[:12]
        place = hashlib.sha256(str(self.output_dir.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        folder = cache_folder() / "gallery" / "indexes" / place
        try:
            make_folder(folder, cache_folder())
            for other in folder.glob("*.duckdb"):
                if other.stem != version:
                    other.unlink(missing_ok=True)
            return _open(folder / f"{version}.duckdb")
        except (OSError, duckdb.Error) as error:
            _log.debug("%s: another index is made: %s", folder, error)
            self._temporary = tempfile.TemporaryDirectory(prefix="darkroom-gallery-", ignore_cleanup_errors=True)
            return _open(Path(self._temporary.name) / "index.duckdb")


def _open(file: Path) -> DuckDBPyConnection:
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    connect = partial(duckdb.connect, str(file), config=config)
    try:
        connection = connect()
        connection.execute(_CREATE)
    except duckdb.Error:
        if _is_database(file):  # then another process has it open
            raise
        file.unlink(missing_ok=True)
        connection = connect()
        connection.execute(_CREATE)
    return connection


def _is_database(file: Path) -> bool:
    """Whether a file begins as DuckDB's do. One that is damaged further inside is found out when it is read."""
    with file.open("rb") as opened:
        return opened.read(12)[8:] == b"DUCK"


def _count(connection: DuckDBPyConnection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM pictures").fetchall()
    return int(count)


def _batches(parts: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Parts in groups of some megabytes."""
    batch: list[Path] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += part.stat().st_size
        if size >= _BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def _files(output_dir: Path) -> frozenset[tuple[str, int, int]]:
    """Names, sizes and times of what the manifest and its ratings consist of."""
    layout = Layout(output_dir)
    found = set()
    for folder in (layout.parts, layout.journals, layout.ratings.parts, layout.ratings.journals):
        for path in folder.glob("*"):
            try:
                facts = path.stat()
            except OSError:
                continue
            found.add((str(path), facts.st_size, facts.st_mtime_ns))
    return frozenset(found)
