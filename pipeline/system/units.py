"""Sizes and durations as readable text: `3.4 GiB`, `12 min`."""

from __future__ import annotations

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40


def size_text(size_bytes: float) -> str:
    """A size in the largest unit in which it is at least one, to a tenth, from a hundred on whole: `596 MiB`."""
    for unit, scale in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if round(size_bytes / scale * 1024) >= 1024:
            count = round(size_bytes / scale, 1)
            return f"{count:.1f} {unit}" if count < 100 else f"{count:.0f} {unit}"
    return f"{size_bytes:.0f} B"


def duration_text(seconds: float) -> str:
    """A duration: below ten seconds to a tenth, then in seconds up to two minutes, minutes up to two hours, hours."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
