"""Disk space held back, so that after the disk has filled up there is room to seal what is done."""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_BYTES = 2**20


class DiskReserve:
    """Takes space without leaving a file: it has no name, and is free again when released or when the process dies."""

    def __init__(self, output_dir: Path) -> None:
        path = output_dir / f".reserve.{os.getpid()}.tmp"
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()
        try:
            os.write(self._fd, bytes(RESERVE_BYTES))
        except OSError:
            self.release()

    def release(self) -> None:
        """Give the space back. May be called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
