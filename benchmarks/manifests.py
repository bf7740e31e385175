"""Manifests of any size, with rows like those of real runs: many hashes, prompts of 90 characters, 2 kB of record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path

from jobs.job import Job
from jobs.manifest.layout import Layout, new_stem
from jobs.manifest.parts import table_from_rows, write_temporary_part
from jobs.manifest.rows import attempt_row
from jobs.manifest.schema import DONE, Row, arrow_schema

ROWS_PER_PART = 5_000
LINKS_PER_FILE = 10_000
"""ext4 allows 65,000 names per file."""

RECORD = '{"batch":{"index":0,"size":8},"runtime":"' + "the same in every record " * 65 + '","pixels_sha256":"'

# One value of a list per row, spread evenly and without a period that compression could use.
_PICK = "{words}[(1 + hash(i * 10 + {salt}) % {count})::BIGINT]"
_MODELS = ["demo", "sd15", "sdxl", "sdxl_turbo", "flux_schnell", "sd35", "dreamshaper", "juggernaut"]
_WORDS = {
    "colour": ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"],
    "thing": ["house", "boat", "tree", "castle", "lighthouse", "bridge", "garden", "street", "tower", "ship"],
    "place": ["the sea", "the mountains", "the hills", "a desert", "a forest", "a city", "a valley"],
    "time": ["day", "dawn", "sunset", "night", "noon", "dusk"],
    "style": ["watercolour", "oil painting", "photograph", "pencil drawing", "woodcut", "film still", "etching"],
    "light": ["soft light", "hard light", "backlit", "fog", "rain", "golden hour", "neon", "overcast"],
}
_COLUMNS = {
    "schema_version": "1",
    "image_id": "uuid()::VARCHAR",
    "job_id": "sha256('job' || i)",
    "run_id": "'20260101T000000Z-' || lpad((i // 5000)::VARCHAR, 8, '0')",
    "name": "'study'",
    "status": "CASE WHEN i % 1000 = 999 THEN 'failed' ELSE 'done' END",
    "attempt": "1",
    "created_at": "TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i * 3)",
    "path": "'study/20260101_000000_' || left(sha256('path' || i), 8) || '.png'",
    "format": "'png'",
    "file_sha256": "sha256('file' || i)",
    "pixels_sha256": "sha256('pixels' || i)",
    "width": "1024",
    "height": "1024",
    "prompt": (
        "colour || ' ' || thing || ' in ' || place || ' at ' || time || ', ' || style || ', ' || light || "
        "', highly detailed, number ' || i"
    ),
    "negative_prompt": "'blurry, low quality, text, watermark'",
    "prompt_set": "'study'",
    "prompt_index": "i",
    "tags": "['study', thing]",
    "seed": "i % 1000",
    "steps": "[4, 8, 20, 28, 30, 50][(1 + hash(i * 10 + 8) % 6)::BIGINT]",
    "guidance_scale": "[1.0, 3.5, 5.0, 7.0][(1 + hash(i * 10 + 9) % 4)::BIGINT]",
    "scheduler": "'DDIM'",
    "architecture": "'StableDiffusionPipeline'",
    "model": "model",
    "model_sha256": "sha256(model)",
    "memory": "'auto'",
    "dtype": "'bfloat16'",
    "device": "'cuda'",
    "batch_size": "8",
    "batch_index": "i % 8",
    "seconds": "1 + random()",
    "peak_rss_bytes": "486043648",
    "app_version": "'0.1.0'",
    "record_json": f"'{RECORD}' || sha256('pixels' || i) || '\"}}'",
}
"""SQL for each column; the others are null."""


def write_searchable(output_dir: Path, rows: int, parts: int) -> None:
    """A manifest of so many rows, in parts of equal size, drawn by DuckDB; there are no image files."""
    import duckdb

    layout, schema = Layout(output_dir), arrow_schema()
    layout.create()
    lists = {**_WORDS, "model": _MODELS}
    picks = ", ".join(
        f"{_PICK.format(words=words, salt=salt, count=len(words))} AS {name}"
        for salt, (name, words) in enumerate(lists.items())
    )
    columns = ", ".join(f"{_COLUMNS.get(name, 'NULL')} AS {name}" for name in schema.names)
    bounds = [rows * part // parts for part in range(parts + 1)]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for start, stop in pairwise(bounds):
            source = f"(SELECT range AS i FROM range({start}, {stop}))"
            query = f"SELECT {columns} FROM (SELECT i, {picks} FROM {source})"
            table = connection.sql(query).to_arrow_table().cast(schema)
            path = layout.part(new_stem())
            write_temporary_part(path, [table]).rename(path)


def write_finished(output_dir: Path, jobs: Iterable[Job]) -> int:
    """A manifest in which these jobs are done, in parts of 5,000 rows an hour old, with a file for each.

    The files hold one byte and share few inodes (hard links): a run asks for names alone. Returns how many.
    """
    layout = Layout(output_dir)
    layout.create()
    pictures = output_dir / "bench"
    pictures.mkdir()
    count, original = 0, pictures / "none"
    an_hour_ago = time.time() - 3600
    waiting = iter(jobs)
    while part := list(islice(waiting, ROWS_PER_PART)):
        rows = []
        for job in part:
            row = finished_row(job)
            name = output_dir / str(row["path"])
            if count % LINKS_PER_FILE == 0:
                original = name
                name.write_bytes(b"x")
            else:
                os.link(original, name)
            rows.append(row)
            count += 1
        path = layout.part(new_stem())
        write_temporary_part(path, [table_from_rows(rows)]).rename(path)
        os.utime(path, (an_hour_ago, an_hour_ago))
    return count


def finished_row(job: Job) -> Row:
    """The row of a job as it stands in the manifest once it is done."""
    row = attempt_row(job, "20260101T000000Z-00000000", 1, DONE, datetime(2026, 1, 1, tzinfo=UTC))
    row["image_id"] = f"{job.id[:8]}-{job.id[8:12]}-4{job.id[12:15]}-8{job.id[15:18]}-{job.id[18:30]}"
    row["path"] = f"bench/20260101_000000_{job.id[:16]}.png"
    row["format"], row["file_sha256"], row["pixels_sha256"] = "png", job.id[::-1], job.id
    row["device"], row["batch_size"], row["batch_index"], row["seconds"] = "cpu", 8, 0, 0.2
    row["peak_rss_bytes"], row["record_json"] = 486_043_648, f'{RECORD}{job.id}"}}'
    return row
