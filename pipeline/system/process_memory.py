"""The memory of this process, as the operating system counts it.

What is for Windows is written from the documentation of `psutil`, and was never run.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as `malloc.h` of glibc numbers them."""

_KEPT_BYTES, _BLOCK_BYTES = 2**31 - 1, 32 * 2**20
"""The largest values of the two: what an int holds, and what glibc's manual page mallopt(3) allows."""

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
    """Let glibc keep memory that is freed, up to 2 GB, for what is allocated next.

    Without this it returns the larger tensors of a forward pass to the system and gets them back with the next one,
    page by page, each cleared first. It adapts to that by itself, but only after it has freed larger ones, and not
    beyond 64 MB. What a user has set in the environment stays; `give_back_freed` returns all.
    """
    set_option = _of_glibc("mallopt")
    if set_option is None or any(name in os.environ for name in _OWN_SETTINGS):
        return
    if set_option(_MMAP_THRESHOLD, _BLOCK_BYTES):  # first this one: the other alone would fix it at 128 KB
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_freed() -> None:
    """Return memory that is free in the C library to the system."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    """A function that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
