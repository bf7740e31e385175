"""The buckets: no hub gets more requests than it allows, from however many processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.hubs.limits import BUCKETS, Limits, RequestKind

WORKER = """
import json, sys
from pathlib import Path
from pipeline.hubs.limits import Limits
waits = []
limits = Limits(Path(sys.argv[1]), clock=lambda: 1000.0, sleep=waits.append)  # time stands still
for _ in range(int(sys.argv[2])):
    limits.wait("civitai.api")
print(json.dumps(waits))
"""


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def limits_at(folder: Path, clock: Clock) -> Limits:
    return Limits(folder, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("kind", BUCKETS)
def test_a_burst_goes_at_once_and_the_rest_at_its_rate(kind: RequestKind, tmp_path: Path) -> None:
    bucket, clock = BUCKETS[kind], Clock()
    limits = limits_at(tmp_path, clock)
    for _ in range(bucket.burst):
        limits.wait(kind)
    assert clock.now == 1_000.0
    for _ in range(10):
        limits.wait(kind)
    assert clock.now == pytest.approx(1_000.0 + 10 / bucket.per_s)


@pytest.mark.parametrize(("kind", "most"), [("huggingface.api", 500), ("huggingface.file", 3_000)])
def test_no_window_of_five_minutes_gets_more_than_the_hub_allows(kind: RequestKind, most: int, tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "file").write_text("no folder")
    limits = limits_at(tmp_path / "file", clock)  # a bucket in memory, which is quicker
    sent = []
    for _ in range(2 * most):
        limits.wait(kind)
        sent.append(clock.now)
    busiest = max(sum(start <= at < start + 300 for at in sent) for start in sent[:: most // 50])
    assert busiest <= most + 1  # + 1: the ends of the window fall together


def test_a_bucket_fills_again_and_not_above_its_brim(tmp_path: Path) -> None:
    clock = Clock()
    limits = limits_at(tmp_path, clock)
    for _ in range(5):
        limits.wait("civitai.api")
    clock.now += 1_000_000
    for _ in range(5):
        limits.wait("civitai.api")
    assert clock.now == 1_001_000.0
    limits.wait("civitai.api")
    assert clock.now == 1_001_001.0


def test_a_clock_that_was_set_back_keeps_nobody_waiting(tmp_path: Path) -> None:
    clock = Clock()
    limits = limits_at(tmp_path, clock)
    limits.wait("civitai.api")
    clock.now -= 100_000
    limits.wait("civitai.api")
    assert clock.now == 1_000.0 - 100_000


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1", b"null", b"[1, 2, 3]", b'["a", "b"]', b"9" * 5_000])
def test_a_damaged_bucket_is_a_full_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "civitai.api.bucket").write_bytes(content)
    clock = Clock()
    limits = limits_at(tmp_path, clock)
    for _ in range(6):
        limits.wait("civitai.api")
    assert clock.now == 1_001.0


def test_two_processes_share_a_bucket(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, "40"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    waits = [wait for run in runs for wait in json.loads(run.communicate()[0])]
    # 80 requests at one moment: five go at once, and each second is given away once, whoever got it.
    assert sorted(waits) == pytest.approx([float(second) for second in range(1, 76)])


def test_what_cannot_be_shared_is_still_kept_by_each_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    clock = Clock()
    limits = limits_at(tmp_path / "file", clock)
    for _ in range(7):
        limits.wait("civitai.api")
    assert clock.now == 1_002.0
    with limits.turn("civitai.file"):
        pass


HOLDER = """
import sys
from pathlib import Path
from pipeline.hubs.limits import Limits
with Limits(Path(sys.argv[1])).turn(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
    (Path(sys.argv[1]) / "released").touch()
"""


@pytest.mark.parametrize(("kind", "waits"), [("civitai.file", True), ("huggingface.file", False)])
def test_civitai_is_asked_for_one_file_at_a_time(kind: RequestKind, waits: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, tmp_path, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin and first.stdout
        assert first.stdout.readline() == "held\n"
        second = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert second.stdin and second.stdout
        if not waits:
            assert second.stdout.readline() == "held\n"  # while the first has not let go
        first.stdin.write("\n")
        first.stdin.flush()
        if waits:
            assert second.stdout.readline() == "held\n"
            assert (tmp_path / "released").exists()
        second.communicate("\n")
