"""A disk that can be filled: a small file system of its own, in a mount namespace so that nothing stays mounted."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE = 4 * 2**20


@dataclass
class SmallDisk:
    """`inside` is its path for processes that have called `enter`, `outside` for everybody else."""

    inside: Path
    outside: Path
    holder: int

    def enter(self) -> None:
        """Make this process, which must have no second thread, one of those that have the disk mounted."""
        for namespace in ("user", "mnt"):
            with Path(f"/proc/{self.holder}/ns/{namespace}").open() as opened:
                if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"the {namespace} namespace of {self.holder} cannot be entered")

    def fill(self) -> Path:
        """Write a file until nothing more goes in; returned."""
        filler = self.outside / "filler"
        with filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1_000))
            except OSError:
                return filler


@contextmanager
def mounted(inside: Path) -> Iterator[SmallDisk]:
    """Such a disk of `SIZE` bytes at a folder, which is made; the test is skipped where there is none to be had."""
    if not sys.platform.startswith("linux") or not shutil.which("unshare"):
        pytest.skip("needs Linux with unshare")
    inside.mkdir()
    script = f"mount -t tmpfs -o size={SIZE} none '{inside}' && echo mounted && read -r _"
    holder = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert holder.stdout and holder.stderr and holder.stdin
    if holder.stdout.readline() != b"mounted\n":
        pytest.skip(f"no mount in a user namespace here: {holder.stderr.read().decode().strip()}")
    yield SmallDisk(inside, Path(f"/proc/{holder.pid}/root{inside}"), holder.pid)
    holder.communicate(b"\n")
