"""How fast downloads come on this machine: each measures itself, so that it can be said how long the next one takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.hubs.answer_cache import keep, kept
from pipeline.hubs.progress_bars import Progress

ASSUMED_BYTES_PER_S = 10.0 * 2**20
"""Where none was measured yet: most of what a line of 100 Mbit/s carries."""

_LEAST_BYTES = 2**20
"""A shorter download is over before it has come to its speed."""

_ADDRESS = "darkroom:download-speed"


class Speedometer:
    """Progress of one file, passed on, with its speed; what was here before and waits before the start do not count."""

    def __init__(self, progress: Progress | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._first = self._last = (0.0, -1)

    def __call__(self, name: str, here: int, of: int | None) -> None:
        """As `progress_bars.Progress`."""
        now = (self._clock(), here)
        if self._first[1] < 0 or here < self._last[1]:  # it begins, or begins again
            self._first = now
        self._last = now
        if self._progress:
            self._progress(name, here, of)

    def remember(self) -> None:
        """Keep the speed for `speed`, if enough has come to tell it."""
        seconds, received = (last - first for last, first in zip(self._last, self._first, strict=True))
        if received >= _LEAST_BYTES and seconds > 0:
            keep(_ADDRESS, received / seconds)


def speed() -> tuple[float, bool]:
    """Bytes per second to expect, and whether that was measured on this machine."""
    measured = kept(_ADDRESS)
    value = measured.value if measured else None
    return (float(value), True) if isinstance(value, int | float) and value > 0 else (ASSUMED_BYTES_PER_S, False)
