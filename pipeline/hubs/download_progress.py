"""Progress of downloads: a bar per file on a terminal, and the measured download speed of this machine.

Each download measures itself, so that it can be said how long the next one takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.hubs.answer_cache import keep, kept

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes of it that are here, and of how many (None: not known). The bytes may fall again."""

ASSUMED_BYTES_PER_S = 10.0 * 2**20
"""Where none was measured yet: most of what a line of 100 Mbit/s carries."""

_LEAST_BYTES = 2**20
"""A shorter download is over before it has come to its speed."""

_ADDRESS = "darkroom:download-speed"


def say_beside_bars(line: str) -> None:
    """Print a line on standard error, above progress bars that may be shown there."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on standard error for downloads in the block; none if it is no terminal."""
    from tqdm import tqdm

    bars: dict[str, tqdm[Any]] = {}

    def show(name: str, here: int, of: int | None) -> None:
        if name not in bars:
            # What was here before counts for the share, not for the speed.
            bars[name] = tqdm(
                desc=name[:40], total=of, initial=here, unit="iB", unit_scale=True, unit_divisor=1024, disable=None
            )
        bars[name].update(here - bars[name].n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


class Speedometer:
    """Passes on a file's progress and measures its speed, without earlier bytes and waits before the start."""

    def __init__(self, progress: Progress | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._first = self._last = (0.0, -1)

    def __call__(self, name: str, here: int, of: int | None) -> None:
        """As `Progress`."""
        now = (self._clock(), here)
        if self._first[1] < 0 or here < self._last[1]:  # it begins, or begins again
            self._first = now
        self._last = now
        if self._progress:
            self._progress(name, here, of)

    def remember(self) -> None:
        """Store the speed for `speed`, if enough was downloaded to tell it."""
        seconds, received = (last - first for last, first in zip(self._last, self._first, strict=True))
        if received >= _LEAST_BYTES and seconds > 0:
            keep(_ADDRESS, received / seconds)


def speed() -> tuple[float, bool]:
    """Bytes per second to expect, and whether that was measured on this machine."""
    measured = kept(_ADDRESS)
    value = measured.value if measured else None
    return (float(value), True) if isinstance(value, int | float) and value > 0 else (ASSUMED_BYTES_PER_S, False)
