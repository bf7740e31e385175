"""Detects changed files without reading them."""

from __future__ import annotations

import os
from pathlib import Path

FileStates = dict[Path, tuple[int, int, int] | None]
"""Size, time and inode of files, as `state_of` gives them; None where there is none."""


def state_of(stat: os.stat_result) -> tuple[int, int, int]:
    """The state that changes when a file does: size, time in nanoseconds, inode.

    Of inodes the lower 63 bits: pooled file systems make up numbers that SQLite's integers do not hold.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ino & (2**63 - 1)
