"""Measures the peaks of device and host memory of a stage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

INTERVAL_S = 0.02
"""Between two looks at the process's memory. The system's own peak counts from the process's start, and resetting it is
not allowed everywhere."""


@contextmanager
def measured(device: torch.device) -> Iterator[dict[str, int]]:
    """Yields a dictionary that has the peaks, in bytes, after the block, also after an exception.

    `rss`: resident memory of this process. On CUDA also `allocated`, what tensors took, and `reserved`, what the
    allocator took for them; both count from here on, for torch's own counters are reset. And `refused`, unless it is
    zero: how many times there was no memory. If the block ends well all the same, cuDNN did without the workspace of
    its first choice and took another kernel, which may give other last bits.
    """
    import torch

    peaks: dict[str, int] = {}
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
        refused_before = torch.cuda.memory_stats(device).get("num_ooms", 0)
    process, done = psutil.Process(), threading.Event()
    peaks["rss"] = process.memory_info().rss

    def look() -> None:
        peaks["rss"] = max(peaks["rss"], process.memory_info().rss)

    def watch() -> None:
        while not done.wait(INTERVAL_S):
            look()

    watcher = threading.Thread(target=watch, name="memory monitor", daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()
        look()
        if on_cuda:
            peaks["allocated"] = torch.cuda.max_memory_allocated(device)
            peaks["reserved"] = torch.cuda.max_memory_reserved(device)
            refused = torch.cuda.memory_stats(device).get("num_ooms", 0) - refused_before
            if refused:
                peaks["refused"] = refused
