"""The memory of this process, as the operating system counts it.

What is for Windows is written from the documentation of `psutil`, and was never run.
"""

from __future__ import annotations

import ctypes
import sys


def peak_rss_bytes() -> int:
    """The peak resident memory so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_freed() -> None:
    """Return memory that is free in the C library to the system: glibc keeps pieces below 32 MB."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
