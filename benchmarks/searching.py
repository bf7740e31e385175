"""Search over 1,000,000 rows in 40 parts (a manifest that was compacted now and then) of a quarter of a gigabyte.

A query is `jobs.archive.search.search` as `darkroom search` calls it for a table: the newest 50 matches, default
columns; from listing the parts to the fetched rows, duckdb being imported already. Median of seven; parts in the page
cache. The whole command is reported beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring import MEGABYTE, Row, Scale, answer, command_seconds, in_child, peak_rss_bytes

ROWS = 1_000_000
PARTS = 40
ROUNDS = 7
LIMIT = 50

QUERIES = {
    "model_steps": ("by model and steps", "", "model = 'sdxl' and steps = 30", 0.1),
    "words": ("two words of the prompt", "sunset castle", None, 0.3),
    "rare_word": ("a word that one prompt has", "{rare}", None, None),
}


def measure(scale: Scale) -> Iterator[Row]:
    """Query seconds and whole-command seconds of each kind of search."""
    from benchmarks.manifests import write_searchable

    rows = scale.of(ROWS)
    folder = scale.new_folder("searching")
    write_searchable(folder, rows, scale.of(PARTS))
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    for name, (what, text, where, most) in QUERIES.items():
        text = text.format(rare=rows - 23)
        found = in_child("searching", folder, text, where or "")
        arguments = [*text.split(), *(["--where", where] if where else [])]
        command = median(
            command_seconds("-m", "jobs", "search", *arguments, "--output-dir", str(folder))
            for _ in range(scale.rounds(3))
        )
        yield Row(
            f"searching.{name}",
            f"search {rows:,} rows {what}: the query",
            found["seconds"],
            "s",
            most,
            f"{found['found']} rows; the whole command {command:.2f} s; first query {found['first_s']:.2f} s; "
            f"{size / MEGABYTE:,.0f} MB of parts; peak memory {found['peak_rss_bytes'] / MEGABYTE:,.0f} MB",
        )


def child(folder: Path, text: str, where: str) -> None:
    """Ask one query again and again."""
    import duckdb  # noqa: F401

    from jobs.archive.search import search

    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        rows = list(search(folder, text, where or None, limit=LIMIT))
        seconds.append(time.perf_counter() - started)
    answer(seconds=median(seconds), first_s=seconds[0], found=len(rows), peak_rss_bytes=peak_rss_bytes())


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
