"""The memory of this process, as the operating system counts it.

What is for Windows is written from the documentation of `psutil`, and was never run.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as `malloc.h` of glibc numbers them."""

_TOP_BYTES, _BLOCK_BYTES = 2**31 - 1, 32 * 2**20
"""The largest values of the two: what an int holds, and what mallopt(3) allows."""

_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def peak_rss_bytes() -> int:
    """The peak resident memory so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed() -> None:
    """Let glibc keep blocks below 32 MB that are freed, for what is allocated next.

    Without this it returns many of a forward pass to the system and gets them back with the next one, page by page,
    each cleared first. There is no bound to what is kept: call `give_back_freed` where other sizes come next. What a
    user has set in the environment stays.
    """
    set_option = _of_glibc("mallopt")
    if set_option is None or any(name in os.environ for name in _OWN_SETTINGS):
        return
    if set_option(_MMAP_THRESHOLD, _BLOCK_BYTES):  # first this one: the other alone would fix it at its present value
        set_option(_TRIM_THRESHOLD, _TOP_BYTES)


def give_back_freed(beyond_bytes: int = 0) -> None:
    """Return whole pages that are free in the C library to the system, if they are more than `beyond_bytes`."""
    trim = _of_glibc("malloc_trim")
    if trim is not None and (not beyond_bytes or _free_bytes() > beyond_bytes):
        trim(0)


class _HeapFacts(ctypes.Structure):
    """`struct mallinfo2` of glibc's `malloc.h`, from 2.33 on."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def _free_bytes() -> float:
    """Bytes in free blocks of the C library; infinite where it does not say."""
    facts = _of_glibc("mallinfo2")
    if facts is None:
        return math.inf
    facts.restype = _HeapFacts
    return int(facts().fordblks)


def _of_glibc(name: str) -> Any:
    """A function that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
