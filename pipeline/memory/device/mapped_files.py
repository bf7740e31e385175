"""Memory-mapped weights files of this process: memory that the system can always take back."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class MappedFiles:
    """The address ranges of memory-mapped weights files; empty on systems that do not tell them."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        try:
            with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
                for line in maps:
                    if line.rstrip().endswith(".safetensors"):
                        start, end = line.split(maxsplit=1)[0].split("-")
                        self._starts.append(int(start, 16))
                        self._ends.append(int(end, 16))
        except OSError:
            return

    def have(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is in a memory-mapped file."""
        if hasattr(tensor, "__tensor_flatten__"):
            return False
        place = bisect.bisect_right(self._starts, tensor.data_ptr()) - 1
        return place >= 0 and bool(tensor.data_ptr() < self._ends[place])

    def forget(self, tensor: torch.Tensor) -> None:
        """Release the pages of a tensor from memory until it is read again; only whole pages.

        A mapping goes as a whole, when nothing uses any of it; until then all that was ever read of it counts as this
        process' memory. Nobody may have written to the tensor.
        """
        if sys.platform != "linux" or not self.have(tensor):
            return
        page = mmap.PAGESIZE
        start = -(-tensor.data_ptr() // page) * page
        size = (tensor.data_ptr() + tensor.nbytes) // page * page - start
        if size > 0:
            advise = ctypes.CDLL(None).madvise
            advise(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(mmap.MADV_DONTNEED))
