"""Signals as an exception that no callback swallows. Imports little, since it comes before all that takes long."""

import _thread
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.errors import RunStopped

_SOON_S = 0.001


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal's handler, which raises KeyboardInterrupt where it arrives as such, else as soon as it does.

    Python before 3.12 makes a RuntimeError of all that is raised within `__set_name__`, which every field of a
    dataclass has.
    """
    while frame is not None:
        if frame.f_code.co_name == "__set_name__":
            _thread.start_new_thread(_again_soon, (_thread.get_ident(), number))
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def interrupts_stay() -> Iterator[None]:
    """Let an interrupt leave the block as KeyboardInterrupt where another error has taken its place on the way.

    A `finally` of a library may fail on what the interrupt left half done: Hydra closes a file that it has not opened
    yet, OmegaConf resets flags below a value that is not there yet. Users would read of a fault in their input. A
    `RunStopped` stays, too: it is what somebody made of the interrupt.
    """
    try:
        yield
    except RunStopped:
        raise
    except Exception as error:
        earlier = error.__context__
        while earlier is not None:
            if isinstance(earlier, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            earlier = earlier.__context__
        raise


def answer_ctrl_c() -> None:
    """Let SIGINT raise KeyboardInterrupt in the main thread, which calls this; again where it comes when that is lost.

    A signal's handler runs between any two steps of the main thread, also within a callback of a weak reference or a
    `__del__`. Python reports what these raise and goes on: the program would not stop. Imports have thousands of such
    callbacks.
    """
    signal.signal(signal.SIGINT, interrupt)
    otherwise, main_thread = sys.unraisablehook, _thread.get_ident()

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_again_soon, (main_thread, signal.SIGINT))
        else:
            otherwise(lost)

    sys.unraisablehook = hook


def _again_soon(main_thread: int, number: int) -> None:
    """From another thread, since the main one may still be within the callback."""
    time.sleep(_SOON_S)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.Signals(number))
    else:  # a signal also ends what the thread waits for
        signal.pthread_kill(main_thread, number)
