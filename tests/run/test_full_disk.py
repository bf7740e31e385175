"""Runs whose pictures go to a disk that is really full."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Batch
from small_disk import SIZE, SmallDisk

from jobs.manifest.sealing import DiskReserve


@pytest.mark.slow
def test_full_disk_stops_the_run_and_more_space_resumes_it(
    make_batch: Callable[..., Batch], small_disk: SmallDisk
) -> None:
    batch = make_batch(["a red house", "a blue boat"], "seeds={start: 0, count: 12}", "batch_size=2")
    batch.first, batch.output_dir = small_disk.enter, small_disk.outside / "out"
    batch.arguments = [*batch.arguments, f"output.dir={small_disk.inside / 'out'}"]
    filler = small_disk.outside / "filler"
    filler.write_bytes(bytes(SIZE - 2**20 - 200_000))  # a mebibyte is held back for sealing

    full = batch.run()
    assert full.code == 4, full.err
    assert "no space left" in full.out and "the same command makes the rest" in full.out
    assert "Traceback" not in full.err
    made = batch.acknowledged()
    assert 0 < len(made) < 24
    batch.assert_whole(len(made))  # above all: no file with a final name is torn
    assert not list(batch.output_dir.rglob(".*.tmp"))

    still_full = batch.run()
    assert still_full.code == 4, still_full.err

    filler.unlink()
    last = batch.run()
    assert last.code == 0, last.err
    batch.assert_whole(24, since=made)
    assert {row["attempt"] for row in batch.rows()} == {1}  # the disk was full, the jobs were not to blame


def test_room_is_held_back_whatever_another_process_has_left(tmp_path: Path) -> None:
    (tmp_path / f".reserve.{os.getpid()}.tmp").touch()  # of one that was killed, and whose number came again
    reserve = DiskReserve(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".reserve.{os.getpid()}.tmp"]
    reserve.release()
    DiskReserve(tmp_path / "nowhere").release()  # who needs the folder will say so
