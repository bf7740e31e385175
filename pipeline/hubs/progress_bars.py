"""Progress of downloads on a terminal: one bar per file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes of it that are here, and of how many (None: not known). The bytes may fall again."""


def say_beside_bars(line: str) -> None:
    """Print a line on standard error, above the bars that may stand there."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on standard error for what is downloaded in the block; none where that is no terminal."""
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
