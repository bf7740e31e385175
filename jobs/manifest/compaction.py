"""Merges small parts into big ones, safely beside running writers and readers."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.manifest.layout import Layout
from jobs.manifest.parts import part_version, read_part, write_temporary_part
from jobs.manifest.ratings import seal_ratings
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.recovery import recover
from jobs.manifest.replacement import finish_replacements, replace_parts
from jobs.manifest.schema import SCHEMA_VERSION, arrow_schema
from jobs.manifest.snapshot import Snapshot, take_snapshot
from pipeline.errors import ReadError
from pipeline.storage.durable import writing
from pipeline.storage.locks import exclusive

if TYPE_CHECKING:
    import pyarrow as pa

TARGET_ROWS = 100_000
TARGET_BYTES = 128 * 2**20
"""A merged part's size, whichever comes first; bytes are uncompressed, and merging holds about three times as many."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """The number of parts before and after, of rows moved, and the faults of parts that were left unchanged.

    Parts of ratings count, too.
    """

    parts_before: int
    parts_after: int
    rows_moved: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    rows: int
    uncompressed_bytes: int


@contextlib.contextmanager
def compacting(output_dir: Path) -> Iterator[Layout]:
    """Hold the lock for replacing parts, and finish interrupted replacements. Raises ReadError if another holds it."""
    recover(output_dir)
    layout = Layout(output_dir)
    layout.check_there()
    with writing(layout.root), exclusive(layout.compaction_lock, wait=False) as mine:
        if not mine:
            raise ReadError(f"{layout.root}: another compact or reindex is running here; wait until it ends")
        for place in (layout, layout.ratings):
            finish_replacements(place)
        yield layout


def compact(output_dir: Path, target_rows: int = TARGET_ROWS) -> Compaction:
    """Merge parts of less than half of `target_rows` into parts of about that many, sorted by `created_at`.

    Ratings are sealed and merged alike. Journals of living processes, unreadable files and parts
    of a newer version are left alone. Raises
    `DiskFull` when there is no room for the merged copy; the manifest then is as it was.
    """
    with compacting(output_dir) as layout:
        seal_ratings(layout.ratings)
        snapshot = take_snapshot(output_dir)
        done = _merge(layout, snapshot, target_rows, arrow_schema(), ("created_at", "image_id"))
        if snapshot.ratings is None:
            return done
        ratings = _merge(layout.ratings, snapshot.ratings, target_rows, arrow_schema(RatingEvent), ("said_at", "uuid"))
    return Compaction(
        done.parts_before + ratings.parts_before,
        done.parts_after + ratings.parts_after,
        done.rows_moved + ratings.rows_moved,
        done.damaged + ratings.damaged,
    )


def _merge(
    layout: Layout, snapshot: Snapshot, target_rows: int, schema: pa.Schema, order: tuple[str, str]
) -> Compaction:
    parts = replaceable_parts(layout, snapshot)
    moved = merged = made = 0
    damaged: list[str] = []
    for group in _groups([_measure(path) for path in parts], target_rows):
        tables: dict[Path, pa.Table] = {}
        for part in group:
            try:
                tables[part.path] = read_part(part.path, schema)
            except ReadError as error:  # it stays where it is
                damaged.append(str(error))
        if len(tables) < 2:
            continue
        output, table = merged_name(layout), _merged(list(tables.values()), order)
        temporary = write_temporary_part(output, [table], schema)
        replace_parts(layout, list(tables), [(temporary, output)])
        moved, merged, made = moved + table.num_rows, merged + len(tables), made + 1
    return Compaction(len(parts), len(parts) - merged + made, moved, tuple(damaged))


def replaceable_parts(layout: Layout, snapshot: Snapshot) -> list[Path]:
    """Parts that may be rewritten: of a known version, and with no journal left that would repeat their rows."""
    return [
        path
        for path in snapshot.parts
        # A journal is made before its part: once the part is listed, a journal that is not there stays away.
        if not layout.journal(path.stem).exists() and part_version(path) <= SCHEMA_VERSION
    ]


def merged_name(layout: Layout) -> Path:
    """The path of a new merged part; its first word tells it apart from sealed journals."""
    return layout.part(f"merged_{datetime.now(UTC):%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:12]}")


def _measure(path: Path) -> _Part:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return _Part(path, metadata.num_rows, sum(group.total_byte_size for group in groups))


def _groups(parts: list[_Part], target_rows: int) -> list[list[_Part]]:
    """Small parts in order of their names, hence of time, cut where a group has the target's size."""
    groups: list[list[_Part]] = [[]]
    rows = size = 0
    for part in parts:
        if part.rows >= target_rows / 2 or part.uncompressed_bytes >= TARGET_BYTES / 2:
            continue
        if groups[-1] and (rows + part.rows > target_rows or size + part.uncompressed_bytes > TARGET_BYTES):
            groups.append([])
            rows = size = 0
        groups[-1].append(part)
        rows, size = rows + part.rows, size + part.uncompressed_bytes
    return [group for group in groups if len(group) > 1]


def _merged(tables: list[pa.Table], order: tuple[str, str]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in order])
