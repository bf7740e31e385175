"""Sorted results page by page: every row once, in order, whatever happens to the parts meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from manifest_rows import START, done_of, make, write_part

from jobs.archive.search import search
from jobs.manifest import paging
from jobs.manifest.compaction import compact
from jobs.manifest.journal import Journal
from jobs.manifest.paging import stream_pages
from jobs.manifest.query import BATCH_ROWS

REPO = Path(__file__).parents[3]

ROWS = 4 * BATCH_ROWS


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three parts whose rows stand in no order, and a run that is live; pages hold no more than a batch."""
    monkeypatch.setattr(paging, "PAGE_ROWS", BATCH_ROWS)
    order = [n * 7 % ROWS for n in range(ROWS)]
    assert sorted(order) == list(range(ROWS))
    for number in range(3):
        write_part(tmp_path, f"p{number}", [done_of(n, record_json=f'{{"n": {n}}}') for n in order[number::3]])
    return tmp_path


def by_seed(images: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    return images.filter("seed % 2 = 0").sort("seed")


def seeds(batches: Sequence[Sequence[tuple[Any, ...]]]) -> list[int]:
    return [row[0] for batch in batches for row in batch]


def test_each_row_comes_once_and_in_order(outputs: Path) -> None:
    journal = Journal(outputs)
    make(journal, outputs, ROWS + 10)
    assert seeds([*stream_pages(outputs, by_seed, ["seed"])]) == [*range(0, ROWS, 2), ROWS + 10]
    journal.close()


def test_parts_that_are_compacted_away_between_pages_cost_no_row(outputs: Path) -> None:
    batches = stream_pages(outputs, by_seed, ["seed", "record_json"])
    found = [next(batches)]
    compact(outputs)
    assert not (outputs / "manifest" / "parts" / "p0.parquet").exists()
    found += [*batches]
    assert seeds(found) == [*range(0, ROWS, 2)]
    assert all(record == f'{{"n": {seed}}}' for batch in found for seed, record in batch)


def test_a_search_for_whole_rows_is_that_of_their_columns(outputs: Path) -> None:
    for sort in ("-created_at", "job_id", "-path"):
        whole = [*search(outputs, columns=("*",), sort=sort, where="seed > 100", limit=None)]
        few = [*search(outputs, columns=("seed", "created_at"), sort=sort, where="seed > 100", limit=None)]
        assert [(row["seed"], row["created_at"]) for row in whole] == [(row["seed"], row["created_at"]) for row in few]
        assert len(whole) == ROWS - 101 and whole[0]["created_at"] > START


@pytest.mark.campaign
def test_whole_rows_are_not_held_all_at_once(tmp_path: Path) -> None:
    for number in range(4):
        rows = [done_of(n, record_json=f"{n}{'x' * 10_000}") for n in range(number, 40_000, 4)]
        write_part(tmp_path, f"p{number}", rows)
    search = ["search", "--columns", "path,seed,record_json", "--sort", "seed", "--limit", "0", "--format", "csv"]
    command = [sys.executable, "-m", "jobs", *search, "--output-dir", str(tmp_path)]
    # From a small process: what this one has held would count as the peak of its children too.
    peak_of = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
    )
    measured = subprocess.run([sys.executable, "-c", peak_of, *command], cwd=REPO, capture_output=True, check=True)
    print(f"peak {int(measured.stdout) / 1e6:.0f} MB")
    assert int(measured.stdout) < 350e6
