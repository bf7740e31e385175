"""Waits that somebody may wonder about: those that last are told, in one line."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.storage.locks import lock, try_lock

Say = Callable[[str], None]
"""Takes a line for the user while something else is going on."""

TOLD_S = 2.0
"""Waits up to this long are not worth a line."""

_LOOK_S = 0.05


def say_nothing(line: str) -> None:
    """For those who want no lines."""


def lock_and_tell(fd: int, waiting: Callable[[], None]) -> None:
    """Take the lock on an open file; `waiting` is called once if another process holds it for long.

    Raises `OSError` where there are no locks.
    """
    ends = time.monotonic() + TOLD_S
    while not try_lock(fd):
        if time.monotonic() >= ends:
            waiting()
            lock(fd)
            return
        time.sleep(_LOOK_S)
