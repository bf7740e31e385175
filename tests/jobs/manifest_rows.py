"""Rows and image files for the manifest's tests; job `n` is the same job in every process."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from jobs.manifest.crashpoints import reached
from jobs.manifest.journal import Journal
from jobs.manifest.parts import table_from_rows, write_temporary_part
from jobs.manifest.query import open_manifest
from jobs.manifest.schema import DONE, INTERRUPTED, SCHEMA_VERSION, Row, row_from_json

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)


def job_id(n: int) -> str:
    return hashlib.sha256(b"job %d" % n).hexdigest()


def attempt_of(n: int, **changes: Any) -> Row:
    """What is recorded should the process die on job `n`."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job_id(n),
        "status": INTERRUPTED,
        "attempt": 1,
        "created_at": (START + timedelta(seconds=n)).isoformat(),
        "width": 64,
        "height": 64,
        "prompt": f"a red house, number {n}",
        "negative_prompt": "",
        "tags": ["tests"],
        "seed": n,
        "steps": 8,
        "guidance_scale": 3.0,
        "scheduler": "DPM++ 2M",
        "model": "demo",
        "model_sha256": "a" * 64,
        "loras": [],
        "lora_sha256s": [],
        "lora_weights": [],
        "controlnets": [],
        "ip_adapters": [],
        "techniques": [],
        "memory": "none",
        "dtype": "float32",
        "app_version": "0.1.0",
    }
    row = row_from_json(values)
    row.update(changes)  # type: ignore[typeddict-item]
    return row


def content_of(n: int) -> bytes:
    return b"image %d " % n * 100


def done_of(n: int, path: str | None = None, **changes: Any) -> Row:
    """The row of job `n`'s image, whose bytes are `content_of(n)`."""
    values: dict[str, Any] = {
        "status": DONE,
        "image_id": str(uuid.uuid4()),
        "path": path or f"study/{n:04d}.png",
        "file_sha256": hashlib.sha256(content_of(n)).hexdigest(),
        "seconds": 1.0,
    }
    return attempt_of(n, **(values | changes))


def put_image(output_dir: Path, row: Row) -> Path:
    """Write the image of a done row under its final name, as the saver does."""
    path = output_dir / str(row["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content_of(row["seed"]))
    temporary.rename(path)
    return path


def make(journal: Journal, output_dir: Path, n: int, **changes: Any) -> Row:
    """One image from start to commit; returns its row."""
    row = done_of(n, **changes)
    journal.start([attempt_of(n, attempt=row["attempt"])])
    journal.intend(row)
    put_image(output_dir, row)
    reached("after_rename")
    journal.commit(str(row["image_id"]))
    return row


def write_part(output_dir: Path, name: str, rows: Iterable[Row]) -> Path:
    """A part straight from rows, with no journal before it."""
    path = output_dir / "manifest" / "parts" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    (output_dir / "manifest" / "journal").mkdir(exist_ok=True)
    write_temporary_part(path, [table_from_rows(list(rows))]).rename(path)
    return path


def part_rows(output_dir: Path) -> list[dict[str, Any]]:
    """All rows of all parts, as a stranger with pandas would read them."""
    import pandas

    if not list((output_dir / "manifest" / "parts").glob("*.parquet")):
        return []
    return pandas.read_parquet(output_dir / "manifest" / "parts").to_dict("records")


def query(output_dir: Path, run: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """`run` on a connection with the view `images`."""
    with open_manifest(output_dir) as connection:
        return run(connection)
