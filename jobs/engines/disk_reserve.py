"""Disk space that is reserved, so that a full disk leaves room to seal the manifest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

RESERVE_BYTES = 2**20


class DiskReserve:
    """Reserves space in an unnamed file; it is freed by `release` or when the process dies."""

    def __init__(self, output_dir: Path) -> None:
        self._file: IO[bytes] | None = None
        with suppress(OSError):  # the disk is full already, which will be told by what needs it
            self._file = TemporaryFile(dir=output_dir, prefix=".reserve.", suffix=".tmp", buffering=0)  # noqa: SIM115
            self._file.write(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Free the space. May be called twice."""
        if self._file is not None:
            self._file.close()
