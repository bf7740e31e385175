"""Places where a test may kill the process, to prove that no finished image is lost there.

`DARKROOM_CRASH_AT=after_intent` kills at the first pass, `after_intent:3` at the third, `before_denoise=poison`
whenever one of the given texts contains that word. Unset, `reached` does nothing.
"""

from __future__ import annotations

import functools
import os
from collections import Counter

_passes: Counter[str] = Counter()


def reached(point: str, *texts: str) -> None:
    """Kill this process, by SIGKILL if there is one, when the environment names this point; otherwise do nothing."""
    asked_for, count, text_asked_for = _asked()
    if point != asked_for or (text_asked_for and not any(text_asked_for in text for text in texts)):
        return
    _passes[point] += 1
    if _passes[point] == count:
        import psutil

        psutil.Process().kill()


@functools.cache
def _asked() -> tuple[str, int, str]:
    """The point, at which pass, and with which word. Read late: this module is imported before a process is forked."""
    place, _, word = os.environ.get("DARKROOM_CRASH_AT", "").partition("=")
    point, _, count = place.partition(":")
    return point, int(count or 1), word
