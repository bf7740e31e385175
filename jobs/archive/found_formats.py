"""Search results as a table for people, or as JSON, CSV or paths for programs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.terminal import json_text, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.archive.search import Found

_FREE_TEXTS = frozenset({"prompt", "negative_prompt", "prompt_template", "tags", "error_message", "record_json"})


def as_json(rows: Iterable[Found]) -> Iterator[str]:
    """The lines of a JSON array of objects, one row at a time; times in RFC 3339, never NaN or Infinity."""
    texts = (json_text(_jsonable(row)).replace("\n", "\n ") for row in rows)
    last = next(texts, None)
    if last is None:
        yield "[]"
        return
    yield "["
    for text in texts:
        yield f" {last},"
        last = text
    yield f" {last}"
    yield "]"


def as_csv(columns: Sequence[str], rows: Iterable[Found]) -> Iterator[str]:
    """The lines of CSV with a header, one row at a time; a list is written as JSON."""
    yield _csv_line(columns)
    for row in rows:
        values = _jsonable(row)
        cells = (values.get(name) for name in columns)
        yield _csv_line(json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell for cell in cells)


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def as_paths(output_dir: Path, rows: Iterable[Found]) -> Iterator[str]:
    """Paths that can be opened from the working folder, one line per existing image, for xargs."""
    images = (output_dir / row["path"] for row in rows)
    return (one_line(os.path.relpath(image)) for image in images if image.is_file())


def as_table(columns: Sequence[str], rows: Sequence[Found]) -> Table:
    """A table, one line per image; if it is too wide, only the free texts are cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        numeric = any(isinstance(row[column], int | float) for row in rows)
        width = 8 if column in _FREE_TEXTS else max(len(_cell(row[column])) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return one_line(str(value).replace("\n", " "))


def _jsonable(row: Found) -> dict[str, Any]:
    return {name: _finite(value) for name, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
