"""Which process makes which job, when several runs use one output folder.

A claim is a kernel byte-range lock on `claims.lock` at an offset taken from the job's id, so it ends with its
process and is never stale. After claiming, look the job up once more (`DoneElsewhere`): whoever held the
claim before may have finished it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from jobs.manifest.layout import Layout
from pipeline.storage.durable import writing
from pipeline.storage.locks import try_lock_byte, unlock_byte
from pipeline.storage.platform import open_file

_open_in_this_process: set[tuple[int, Path]] = set()
# POSIX: closing ANY descriptor of a file drops all of the process's locks on it, and a process never
# conflicts with itself. A second `Claims` on the same folder would therefore break the first one silently.


class Claims:
    """The claims of this process on one output folder, shared by its threads. RuntimeError if opened twice."""

    def __init__(self, output_dir: Path) -> None:
        lock_file = Layout(output_dir).claims_lock
        with writing(lock_file):
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            self._key = (os.getpid(), lock_file.resolve())
            if self._key in _open_in_this_process:
                raise RuntimeError(f"{lock_file} is already open in this process: share its Claims")
            self._fd = open_file(lock_file, os.O_RDWR | os.O_CREAT)
        _open_in_this_process.add(self._key)
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def claim(self, job_ids: Iterable[str]) -> list[str]:
        """Claim jobs; returns those that this process may now make, without those that it has claimed before."""
        obtained = []
        with self._lock:
            for job_id in job_ids:
                if job_id not in self._held and try_lock_byte(self._fd, _offset(job_id)):
                    self._held.add(job_id)
                    obtained.append(job_id)
        return obtained

    def release(self, job_id: str) -> None:
        """Release the claim on one job, finished or not; a job that is not claimed is ignored."""
        with self._lock:
            if job_id in self._held:
                self._held.remove(job_id)
                unlock_byte(self._fd, _offset(job_id))

    def close(self) -> None:
        """Release all claims. May be called twice."""
        if self._key in _open_in_this_process:
            _open_in_this_process.discard(self._key)
            self._held.clear()
            os.close(self._fd)


def _offset(job_id: str) -> int:
    # 62 bits, so that offset + length stays below the largest signed 64-bit file offset.
    return int(job_id[:16], 16) >> 2
