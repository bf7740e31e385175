"""Work on a thread that nobody has to wait for: not when it takes too long, and not at the end of the program."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def begun(work: Callable[[], Value]) -> Future[Value]:
    """What the work will return or raise. Unlike an executor's thread this one does not hold up Ctrl-C or the exit."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
