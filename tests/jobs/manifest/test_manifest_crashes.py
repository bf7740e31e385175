"""Processes really killed: nothing acknowledged is lost, nothing is made twice, everything stays readable."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import manifest_worker
import pandas
import pyarrow.dataset
import pytest
from manifest_rows import job_id

from jobs.manifest.compaction import compact
from jobs.manifest.job_states import job_key, read_states
from jobs.manifest.layout import Layout
from jobs.manifest.query import open_manifest
from jobs.manifest.recovery import recover
from jobs.manifest.schema import DONE, INTERRUPTED, arrow_schema

WORKER = Path(__file__).with_name("manifest_worker.py")
ROOT = Path(__file__).parents[3]
JOBS = 10

POINTS = [
    "after_started:3",
    "after_intent:3",
    "after_rename:3",
    "after_commit:3",
    "during_seal",
    "after_next_journal",
    "after_part_rename",
    "during_seal:3",  # the last seal, at the end
    "after_part_rename:3",
    "after_compaction_temporary",
    "after_compaction_record",
    "after_compaction_rename",
    "after_compaction_delete",
]


def start_worker(
    output_dir: Path, crash_at: str = "", jobs: int = JOBS, compacting: bool = False
) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(output_dir), str(jobs), "4", *["compact"] * compacting]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARKROOM_CRASH_AT": crash_at}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def acknowledged(worker: subprocess.Popen[str]) -> set[int]:
    output, _ = worker.communicate(timeout=120)
    return {int(line) for line in output.split()}


def done_jobs(output_dir: Path) -> Counter[str]:
    """How many done rows each job has, seen through our own view."""
    with open_manifest(output_dir) as connection:
        rows = connection.execute("SELECT job_id, image_id FROM images WHERE status = 'done'").fetchall()
    assert len({image_id for _, image_id in rows}) == len(rows)
    return Counter(job for job, _ in rows)


def assert_sound(output_dir: Path, promised: set[int], jobs: int = JOBS) -> None:
    """Every promised image is there with one row; no job has two; no image is without a row; all readers agree."""
    recover(output_dir)
    done = done_jobs(output_dir)
    assert {job_id(n) for n in promised} <= set(done)
    assert set(done.values()) <= {1}
    files = sorted((output_dir / "study").glob("[!.]*.png"))
    assert len(files) == len(done)
    states = read_states(output_dir)
    assert states.folders.keys() == {job_key(job) for job in done}

    parts = Layout(output_dir).parts
    tables = list(parts.glob("*.parquet"))
    if tables:
        pandas_rows = len(pandas.read_parquet(parts))
        duckdb_rows = duckdb.sql(f"SELECT count(*) FROM '{parts}/*.parquet'").fetchall()[0][0]
        assert pandas_rows == duckdb_rows == pyarrow.dataset.dataset(parts).count_rows()
        assert pyarrow.dataset.dataset(parts).schema.equals(arrow_schema())
    if tables:
        rows = pandas.read_parquet(parts)[["job_id", "attempt", "status"]]
        # Two workers may die over one job, each in what it takes for the first attempt: the second one began after the
        # first one's death and before anyone recorded it.
        ended = rows[rows["status"] != INTERRUPTED]
        assert not ended.duplicated(["job_id", "attempt"]).any()
    assert not list(Layout(output_dir).journals.glob("*.jsonl"))
    assert not list(Layout(output_dir).log.glob("*.json"))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.slow
def test_kill_at(point: str, tmp_path: Path) -> None:
    first = start_worker(tmp_path, crash_at=point, compacting=True)
    promised = acknowledged(first)
    assert first.returncode == -signal.SIGKILL, "the point was never reached"
    assert_sound(tmp_path, promised)

    manifest_worker.work(tmp_path, JOBS, seal_rows=4, compacting=False)  # the same command again, in this process
    assert_sound(tmp_path, promised)
    assert len(done_jobs(tmp_path)) == JOBS


@pytest.mark.slow
def test_a_kill_during_recovery_changes_nothing(tmp_path: Path) -> None:
    dead = start_worker(tmp_path, crash_at="after_rename:3")
    promised = acknowledged(dead)
    for point in ("during_seal", "after_part_rename"):
        recoverer = start_worker(tmp_path, crash_at=point)
        assert acknowledged(recoverer) == set()
        assert recoverer.returncode == -signal.SIGKILL
    assert_sound(tmp_path, promised)
    assert done_jobs(tmp_path)[job_id(2)] == 1  # renamed, never acknowledged: adopted, not made again


@pytest.mark.slow
def test_eight_processes_share_one_batch(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, jobs=24) for _ in range(8)]
    promises = [acknowledged(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 8
    assert sum(map(len, promises)) == len(set().union(*promises)) == 24
    assert_sound(tmp_path, set().union(*promises), jobs=24)


@pytest.mark.slow
def test_writers_beside_a_compactor_and_a_reader(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, jobs=60) for _ in range(2)]
    seen = 0
    while any(worker.poll() is None for worker in workers):
        if Layout(tmp_path).parts.exists():
            compact(tmp_path, target_rows=40)
            done = done_jobs(tmp_path)
            assert set(done.values()) <= {1}
            assert len(done) >= seen, "a finished image vanished from the reader's view"
            seen = len(done)
    promised = acknowledged(workers[0]) | acknowledged(workers[1])
    assert len(promised) == 60
    assert_sound(tmp_path, promised, jobs=60)


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.campaign)])
@pytest.mark.slow
def test_random_kills(rounds: int, tmp_path: Path) -> None:
    """Two workers and a compactor, each killed at a random moment, again and again."""
    chance = random.Random(7)
    promised: set[int] = set()
    kills, enough = 0, rounds * 4 // 3
    for round_number in range(1, 200):
        jobs = 20 * round_number
        workers = [start_worker(tmp_path, jobs=jobs, compacting=True) for _ in range(2)]
        time.sleep(0.3 + chance.random())
        for worker in workers:
            worker.kill()
            promised |= acknowledged(worker)
            kills += worker.returncode == -signal.SIGKILL
        assert_sound(tmp_path, promised, jobs)
        if round_number >= rounds and kills >= enough:
            break
    last = start_worker(tmp_path, jobs=jobs, compacting=True)
    promised |= acknowledged(last)
    assert last.returncode == 0
    assert_sound(tmp_path, promised, jobs)
    states = read_states(tmp_path)
    assert all(state.status != DONE for state in states.others.values())
    assert kills >= enough
