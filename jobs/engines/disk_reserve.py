"""Disk space held back, so that after the disk has filled up there is room to seal what is done."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

RESERVE_BYTES = 2**20


class DiskReserve:
    """Takes space without leaving a file: it has no name, and is free again when released or when the process dies."""

    def __init__(self, output_dir: Path) -> None:
        self._file: IO[bytes] | None = None
        with suppress(OSError):  # the disk is full already, which will be told by what needs it
            self._file = TemporaryFile(dir=output_dir, prefix=".reserve.", suffix=".tmp", buffering=0)  # noqa: SIM115
            self._file.write(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Give the space back. May be called twice."""
        if self._file is not None:
            self._file.close()
