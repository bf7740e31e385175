"""A disk that is really full: a small file system of its own, in a mount namespace so that nothing is left mounted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import Batch

SIZE = 4 * 2**20


@dataclass
class SmallDisk:
    """`inside` is its path for processes started with `prefix`, `outside` for everybody else."""

    inside: Path
    outside: Path
    prefix: list[str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not sys.platform.startswith("linux") or not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("needs Linux with unshare and nsenter")
    inside = tmp_path / "disk"
    inside.mkdir()
    script = f"mount -t tmpfs -o size={SIZE} none '{inside}' && echo mounted && read -r _"
    holder = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert holder.stdout and holder.stderr and holder.stdin
    if holder.stdout.readline() != b"mounted\n":
        pytest.skip(f"no mount in a user namespace here: {holder.stderr.read().decode().strip()}")
    prefix = ["nsenter", "-t", str(holder.pid), "-U", "-m", f"--wd={tmp_path}", "--preserve-credentials"]
    yield SmallDisk(inside, Path(f"/proc/{holder.pid}/root{inside}"), prefix)
    holder.communicate(b"\n")


@pytest.mark.slow
def test_full_disk_stops_the_run_and_more_space_resumes_it(
    make_batch: Callable[..., Batch], small_disk: SmallDisk
) -> None:
    batch = make_batch(["a red house", "a blue boat"], "seeds={start: 0, count: 60}", "batch_size=2")
    batch.prefix, batch.output_dir = small_disk.prefix, small_disk.outside / "out"
    batch.arguments = [*batch.arguments, f"output.dir={small_disk.inside / 'out'}"]
    filler = small_disk.outside / "filler"
    filler.write_bytes(bytes(SIZE - 2 * 2**20))  # a million bytes are held back for sealing, so one is left to fill

    full = batch.run()
    assert full.code == 4, full.err
    assert "no space left" in full.out and "the same command makes the rest" in full.out
    assert "Traceback" not in full.err
    made = batch.acknowledged()
    assert 0 < len(made) < 120
    batch.assert_whole(len(made))  # above all: no file with a final name is torn
    assert not list(batch.output_dir.rglob(".*.tmp"))

    still_full = batch.run()
    assert still_full.code == 4, still_full.err

    filler.unlink()
    last = batch.run()
    assert last.code == 0, last.err
    batch.assert_whole(120, since=made)
    assert {row["attempt"] for row in batch.rows()} == {1}  # the disk was full, the jobs were not to blame
