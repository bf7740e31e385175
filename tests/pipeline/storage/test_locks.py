"""Locks that the kernel holds: one holder, seen by others, and gone with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.locks import exclusive, is_locked, taken_from_the_dead, try_lock_byte, unlock_byte

REPO = Path(__file__).resolve().parents[3]
HOLD = """
import os, sys
from pipeline.storage.locks import lock, try_lock_byte
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
lock(fd) if sys.argv[2] == "file" else try_lock_byte(fd, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path, what: str = "file") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path), what]
    with subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time_until_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with held_by_another_process(path) as process:
        assert is_locked(path)
        with exclusive(path, wait=False) as mine:
            assert not mine
        process.kill()
        with exclusive(path, wait=True) as mine:
            assert mine
    assert not is_locked(path) and not is_locked(tmp_path / "none.lock")


def test_a_journal_is_taken_only_from_the_dead_and_only_while_it_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with held_by_another_process(path), taken_from_the_dead(path) as dead:
        assert not dead
    with taken_from_the_dead(path) as dead:
        assert dead
        path.unlink()
    with taken_from_the_dead(path) as dead:
        assert not dead


def test_bytes_are_locked_each_by_itself_also_far_behind_the_end(tmp_path: Path) -> None:
    path, far = tmp_path / "claims.lock", 2**62 - 1
    with held_by_another_process(path, str(far)):
        fd = os.open(path, os.O_RDWR)
        try:
            assert not try_lock_byte(fd, far) and try_lock_byte(fd, far - 1)
            assert path.stat().st_size == 0
            unlock_byte(fd, far - 1)
        finally:
            os.close(fd)
