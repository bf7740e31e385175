"""The memory of this process, as the operating system counts it.

What is for Windows is written from the documentation of `psutil`, and was never run.
"""

from __future__ import annotations

import ctypes
import sys


def peak_rss_bytes() -> int:
    """The most that was ever resident."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_freed() -> None:
    """What is free in the C library becomes free for others: glibc keeps pieces below 32 MB to itself."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
