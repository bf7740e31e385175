"""Parts: sealed, immutable Parquet files, all of one schema (`schema.arrow_schema`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.manifest.layout import reindex_command
from jobs.manifest.schema import Row, arrow_schema
from pipeline.errors import ReadError
from pipeline.storage.durable import temporary_file

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 25_000
"""Rows per row group: DuckDB scans row groups in parallel, and skips those whose statistics rule them out."""

VERSION_KEY = b"darkroom.schema_version"
"""In a part's own metadata. What users wrote stands in the footer, too, as statistics, so only libraries read it."""


def table_from_rows(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of the manifest's schema.

    Text that UTF-8 cannot hold (half a surrogate pair in an error message) is replaced: it must not block a
    seal.
    """
    import pyarrow as pa

    try:
        return pa.Table.from_pylist(rows, schema=arrow_schema())
    except UnicodeEncodeError:
        clean = [{name: _encodable(value) for name, value in row.items()} for row in rows]
        return pa.Table.from_pylist(clean, schema=arrow_schema())


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def write_temporary_part(path: Path, tables: Iterable[pa.Table], schema: pa.Schema | None = None) -> Path:
    """Write and fsync a part beside its final `path`; returns the temporary name for `durable.publish`.

    `schema` is that of rows unless given.

    Raises OSError when the disk is full, leaving nothing behind.
    """
    import pyarrow.parquet as pq

    with (
        temporary_file(path) as (temporary, file),
        pq.ParquetWriter(file, schema or arrow_schema(), compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return temporary


def part_version(path: Path) -> int:
    """The schema version in a part's footer.

    Raises ReadError for a file that is torn, empty or not ours, FileNotFoundError for one that is gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path).metadata
    except FileNotFoundError:
        raise
    except pa.ArrowException:
        raise incomplete(path) from None
    except OSError as error:
        if error.errno is None and path.is_file():  # what Arrow makes of bytes that are no footer
            raise incomplete(path) from None
        raise ReadError(f"{path}: cannot be read ({error.strerror or error})") from error
    return checked_version(path, (metadata or {}).get(VERSION_KEY))


def checked_version(path: Path, value: bytes | None) -> int:
    """The schema version in a footer under `VERSION_KEY`. Raises ReadError if there is none."""
    if value is None or not value.isdigit():
        raise ReadError(f"{path}: a Parquet file, but no part of a Darkroom manifest; move it elsewhere")
    return int(value)


class TornPart(ReadError):
    """A file in `parts/` whose footer no library can read: it was cut off, or something else has its name."""


def incomplete(path: Path) -> TornPart:
    """The error message for an incomplete part."""
    return TornPart(f"{path}: not a complete Parquet file; move it elsewhere, then run {reindex_command(path)}")


def read_part(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A whole part as the current schema, that of rows unless given: columns that an older version lacked are null.

    Raises ReadError where a page is damaged, FileNotFoundError where the part is gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = schema or arrow_schema()
    try:
        table = pq.ParquetFile(path).read()
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ReadError:
    """The error message for a part with an unreadable page. Ratings stand nowhere else than in theirs."""
    way_out = "sets it aside" if path.parents[1].name == "ratings" else "rebuilds its rows"
    return ReadError(f"{path}: damaged ({str(error).splitlines()[0]}); {reindex_command(path)} {way_out}")
