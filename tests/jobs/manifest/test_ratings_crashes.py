"""Processes that are killed while they rate: no rating that was acknowledged is lost, and none counts twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs.manifest.compaction import compact
from jobs.manifest.layout import Layout
from jobs.manifest.ratings_view import read_feedback, read_said
from jobs.manifest.recovery import recover

WORKER = Path(__file__).with_name("rating_worker.py")
ROOT = Path(__file__).parents[3]

POINTS = [
    "after_rating_written:5",
    "during_seal",
    "after_part_rename",
    "during_seal:2",
    "after_compaction_temporary",
    "after_compaction_record",
    "after_compaction_rename",
    "after_compaction_delete",
]

pytestmark = pytest.mark.slow


def start(output_dir: Path, name: str, events: int = 40, crash_at: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(output_dir), name, str(events), "compact"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARKROOM_CRASH_AT": crash_at}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def acknowledged(worker: subprocess.Popen[str]) -> set[str]:
    """What it has printed that was not read yet, once it has ended."""
    assert worker.stdout is not None
    with worker.stdout:  # not communicate(), which leaves out what a readline() has read ahead
        lines = worker.stdout.read().splitlines()
    worker.wait(120)
    return set(lines)


def said(output_dir: Path) -> Counter[str]:
    return Counter(value for _, _, value, _, _ in read_said(output_dir))


def assert_sound(output_dir: Path, promised: set[str]) -> None:
    """Every promised tag is there, each once, for the reader of events and for that of images alike."""
    found = said(output_dir)
    assert promised <= set(found) and set(found.values()) <= {1}
    assert set(read_feedback(output_dir)["a" * 8]["user_tags"]) == set(found)


@pytest.mark.parametrize("point", POINTS)
def test_kill_at(point: str, tmp_path: Path) -> None:
    worker = start(tmp_path, "first", crash_at=point)
    promised = acknowledged(worker)
    assert worker.returncode == -signal.SIGKILL, "the point was never reached"
    assert_sound(tmp_path, promised)
    again = start(tmp_path, "second")
    promised |= acknowledged(again)
    assert again.returncode == 0
    recover(tmp_path)
    compact(tmp_path)
    assert_sound(tmp_path, promised)
    layout = Layout(tmp_path).ratings
    assert len(list(layout.parts.glob("*.parquet"))) == 1 and not list(layout.log.iterdir())
    assert not list(layout.journals.iterdir())


def test_four_writers_at_once_beside_a_reader(tmp_path: Path) -> None:
    workers = [start(tmp_path, f"writer{n}", 60) for n in range(4)]
    seen = 0
    while any(worker.poll() is None for worker in workers):
        found = said(tmp_path)
        assert set(found.values()) <= {1} and len(found) >= seen, "a rating vanished from the reader's view"
        seen = len(found)
        time.sleep(0.05)
    promises = [acknowledged(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert [len(promise) for promise in promises] == [60] * 4
    assert_sound(tmp_path, set().union(*promises))
    assert len(list(Layout(tmp_path).ratings.journals.glob("*.jsonl"))) <= 4


@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.campaign)])
def test_random_kills(rounds: int, tmp_path: Path) -> None:
    chance = random.Random(5)
    promised: set[str] = set()
    kills = 0
    for number in range(rounds):
        workers = [start(tmp_path, f"round{number} writer{n}", 10_000) for n in range(3)]
        promised |= {worker.stdout.readline().strip() for worker in workers if worker.stdout}
        time.sleep(chance.random() / 2)
        for worker in workers:
            worker.kill()
            promised |= acknowledged(worker)
            kills += worker.returncode == -signal.SIGKILL
        assert_sound(tmp_path, promised)
    assert kills == 3 * rounds
