"""The last word on every image: what ratings, as events, come to. SQL that DuckDB runs, so that all readers agree.

An event that was undone counts for nothing. A pick unpicks and unrejects: the picked image is the only one of its group
that is picked, and is not rejected. A rejected image is not picked; a removed one is so until its rejection is taken
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jobs.manifest.layout import Layout
from jobs.manifest.parts import damaged
from jobs.manifest.ratings_events import RatingEvent, columns_of, read_rating_journal
from jobs.manifest.schema import Feedback
from jobs.manifest.snapshot import Snapshot, reading_retried, warn_once

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NO_FEEDBACK = {
    "rating": "NULL::INTEGER",
    "picked": "false",
    "rejected": "false",
    "removed": "false",
    "user_tags": "[]::VARCHAR[]",
    "note": "NULL::VARCHAR",
}
"""SQL for the columns of `Feedback` of an image of which nothing was said."""

LOST = "lost"
"""The kind of what a pick says of an image that it was compared with."""

_TYPES = {"compared": "VARCHAR[]", "said_at": "TIMESTAMPTZ"}

_SAID = """
CREATE TABLE said AS
WITH counted AS (
    FROM (FROM rating_events WHERE kind <> 'lost')
    ANTI JOIN (SELECT value AS uuid FROM rating_events WHERE kind = 'undo') USING (uuid)
)
SELECT DISTINCT * FROM (
    SELECT image_id, kind, value, said_at, uuid FROM counted
    UNION ALL SELECT other, 'lost', '', said_at, uuid FROM (
        SELECT unnest(compared) AS other, image_id, said_at, uuid FROM counted WHERE kind = 'pick' AND value = 'yes'
    ) WHERE other <> image_id
)
"""
"""What still counts of each image; `lost` is a comparison with one that was picked."""

_FEEDBACK = """
CREATE TABLE feedback AS
WITH tags AS (
    SELECT image_id, list(value ORDER BY value) FILTER (kind = 'tag') AS user_tags FROM (
        SELECT image_id, value, arg_max(kind, (said_at, uuid)) AS kind FROM said WHERE kind IN ('tag', 'untag')
        GROUP BY image_id, value
    ) GROUP BY image_id
), last AS (
    SELECT
        image_id,
        arg_max(value, (said_at, uuid)) FILTER (kind = 'rating') AS stars,
        arg_max(kind || value, (said_at, uuid))
            FILTER (kind IN ('pick', 'lost') OR kind || value = 'rejectyes') AS pick,
        arg_max(kind || value, (said_at, uuid)) FILTER (kind = 'reject' OR kind || value = 'pickyes') AS reject,
        arg_max(kind, (said_at, uuid)) FILTER (kind = 'removed' OR kind || value = 'rejectno') AS removal,
        arg_max(value, (said_at, uuid)) FILTER (kind = 'removed') AS removed_job,
        arg_max(value, (said_at, uuid)) FILTER (kind = 'note') AS note
    FROM said WHERE image_id <> '' GROUP BY image_id
)
SELECT
    image_id,
    CASE WHEN TRY_CAST(stars AS INTEGER) BETWEEN 1 AND 5 THEN stars::INTEGER END AS rating,
    coalesce(pick = 'pickyes', false) AS picked,
    coalesce(reject = 'rejectyes', false) AS rejected,
    coalesce(removal = 'removed', false) AS removed,
    coalesce(user_tags, []::VARCHAR[]) AS user_tags,
    nullif(note, '') AS note,
    CASE WHEN removal = 'removed' THEN removed_job END AS removed_job
FROM last LEFT JOIN tags USING (image_id)
"""


def create_feedback(connection: DuckDBPyConnection, ratings: Snapshot | None) -> None:
    """Make the tables `rating_events`, `said` and `feedback`, one row an image; nothing where nobody rated.

    A damaged part is warned about and left out. Raises FileNotFoundError when a file vanished (`reading_retried`).
    """
    import duckdb

    if ratings is None:
        return
    names = [*RatingEvent.__annotations__]
    columns = ", ".join(f"{name} {_TYPES.get(name, 'VARCHAR')}" for name in names)
    connection.execute(f"CREATE TABLE rating_events ({columns})")
    for path in ratings.parts:
        try:
            connection.execute(f"INSERT INTO rating_events SELECT {', '.join(names)} FROM read_parquet(?)", [str(path)])
        except duckdb.Error as error:
            if not path.exists():
                raise FileNotFoundError(path) from None
            warn_once(str(damaged(path, error)))
    if events := [event for path in ratings.journals for event in read_rating_journal(path).events]:
        lists = columns_of(events)
        sources = ", ".join(f"unnest(?::{_TYPES.get(name, 'VARCHAR')}[])" for name in names)
        connection.execute(f"INSERT INTO rating_events SELECT {sources}", [lists[name] for name in names])
    connection.execute(_SAID)
    connection.execute(_FEEDBACK)


def joined(connection: DuckDBPyConnection, source: str, columns: Sequence[str]) -> str:
    """A SELECT of these columns of rows and of those of `Feedback`, after `create_feedback`.

    It costs nothing where nobody rated.
    """
    if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'feedback'").fetchone():
        values = [f"{value} AS {name}" for name, value in NO_FEEDBACK.items()]
        return f"SELECT {', '.join([*columns, *values])} FROM ({source})"
    values = [f"coalesce(feedback.{name}, {value}) AS {name}" for name, value in NO_FEEDBACK.items()]
    names = [f"rows.{name}" for name in columns]
    return f"SELECT {', '.join([*names, *values])} FROM ({source}) AS rows LEFT JOIN feedback USING (image_id)"


def read_feedback(output_dir: Path) -> dict[str, Feedback]:
    """What was said of each image, by its id; images of which nothing was said are left out."""
    names = ", ".join(("image_id", *Feedback.__annotations__))
    rows = _read(output_dir, f"SELECT {names} FROM feedback")
    return {row[0]: cast(Feedback, dict(zip(Feedback.__annotations__, row[1:], strict=True))) for row in rows}


def removed_jobs(ratings: Snapshot) -> dict[str, str]:
    """The images that were removed as rejected, by their ids, with their jobs."""
    return dict(_select(ratings, "SELECT image_id, removed_job FROM feedback WHERE removed"))


Said = tuple[str, str, str, datetime, str]
"""Image, kind, value, moment and the event's uuid; `LOST` is the kind of an image that was not the picked one."""


def read_said(output_dir: Path) -> list[Said]:
    """What still counts, in the order of time."""
    rows = _read(
        output_dir, "SELECT image_id, kind, value, said_at::TIMESTAMP, uuid FROM said ORDER BY said_at, uuid, image_id"
    )
    return [(image_id, kind, value, moment.replace(tzinfo=UTC), uuid) for image_id, kind, value, moment, uuid in rows]


def _read(output_dir: Path, query: str) -> list[tuple[Any, ...]]:
    if not Layout(output_dir).ratings.root.is_dir():
        return []
    return reading_retried(output_dir, lambda snapshot: _select(snapshot.ratings, query) if snapshot.ratings else [])


def _select(ratings: Snapshot, query: str) -> list[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        create_feedback(connection, ratings)
        return connection.execute(query).fetchall()
