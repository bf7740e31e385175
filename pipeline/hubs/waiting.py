"""Waits: long ones are reported in one line; other work runs on threads in the meantime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pipeline.storage.locks import lock, try_lock

Value = TypeVar("Value")

Say = Callable[[str], None]
"""Takes a line for the user while something else is going on."""

TOLD_S = 2.0
"""Waits up to this long are not worth a line."""

_LOOK_S = 0.05


def say_nothing(line: str) -> None:
    """A `say` function that prints nothing."""


def lock_and_tell(fd: int, waiting: Callable[[], None]) -> None:
    """Take the lock on an open file; calls `waiting` once if another process holds it for long.

    Raises `OSError` where there are no locks.
    """
    ends = time.monotonic() + TOLD_S
    while not try_lock(fd):
        if time.monotonic() >= ends:
            waiting()
            lock(fd)
            return
        time.sleep(_LOOK_S)


def begun(work: Callable[[], Value]) -> Future[Value]:
    """Start work on a thread; returns its future. Unlike an executor's thread it does not delay Ctrl-C or the exit."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
