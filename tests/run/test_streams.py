"""Standard streams without a reader, full, or closed: what was asked for is made, and the exit code is the images'."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import ForkedProcess
from running import Batch


def started(batch: Batch, *, out: Path, err: Path) -> ForkedProcess:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return ForkedProcess("run.py", batch.arguments, cwd=batch.folder, env=env, out=out, err=err)


def fifo(path: Path) -> int:
    """A pipe with that path; returns the reader's end."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


@pytest.mark.slow
def test_a_reader_of_messages_may_leave(make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    """`2>&1 | head -1`: no attempt is lost, and both streams are without a reader from then on."""
    batch = make_batch(("a red house",), "seeds=[1,2,3]", "bundle_images=1")
    reader = fifo(tmp_path / "pipe")
    run = started(batch, out=tmp_path / "pipe", err=tmp_path / "pipe")
    deadline = time.monotonic() + 60
    while b"loaded" not in _read(reader):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(reader)
    assert run.wait(60) == 0
    batch.assert_whole(3)
    assert {row["attempt"] for row in batch.rows()} == {1}


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 10_000)
    except BlockingIOError:
        return b""


@pytest.mark.slow
def test_a_report_that_cannot_be_printed_changes_no_exit_code(make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    batch = make_batch(("a red house",))
    assert started(batch, out=Path("/dev/full"), err=tmp_path / "err").wait(60) == 0
    batch.assert_whole(1)
    assert "No space left on device" in (said := (tmp_path / "err").read_text()) and "the report is in" in said
    batch.arguments.append("dry_run=true")  # here the report is all that was asked for
    assert started(batch, out=Path("/dev/full"), err=tmp_path / "err").wait(60) == 4
    assert (tmp_path / "err").read_text().splitlines()[-1].startswith("standard output: cannot be written")


@pytest.mark.parametrize("asked", [["--help"], ["--cfg", "job"], ["--version"]], ids=" ".join)
def test_what_is_only_printed_and_cannot_be_is_one_line(asked: list[str], tmp_path: Path) -> None:
    run = ForkedProcess(
        "run.py", asked, cwd=tmp_path, env=dict(os.environ), out=Path("/dev/full"), err=tmp_path / "err"
    )
    assert run.wait(60) == 4
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert line.startswith("standard output: cannot be written")


@pytest.mark.slow
def test_a_stop_while_the_report_is_printed_says_what_is_true(make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    batch = make_batch()
    reader = fifo(tmp_path / "pipe")
    try:
        while True:  # nobody reads, so printing waits
            os.write(reader, bytes(1024))
    except OSError as error:
        assert error.errno == errno.EAGAIN
    run = started(batch, out=tmp_path / "pipe", err=tmp_path / "err")
    deadline = time.monotonic() + 60
    while not list(batch.output_dir.glob("runs/*/summary.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 0
    os.close(reader)
    said = (tmp_path / "err").read_text().splitlines()[-1]
    assert said == "stopped while the report was written; 2 images were made, and all are kept"


@pytest.mark.slow
def test_closed_streams_are_no_files_of_ours(make_batch: Callable[..., Batch]) -> None:
    """With `>&- 2>&-`, the next files to be opened would take their numbers."""
    batch = make_batch()
    batch.prefix = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    ended = batch.run(fresh=True)
    assert ended.code == 0
    batch.assert_whole(2)
