"""Finds the jobs of a plan that are already done, so that a run makes only the rest."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.manifest.job_states import JOB_KEY_BYTES, JobStates
from jobs.manifest.schema import INTERRUPTED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KEYS_AT_ONCE = 20_000
"""So many keys are objects at the same time, of a million jobs."""


class Resume:
    """The jobs that are neither duplicates, nor done, nor failed for good.

    `keys` has `JOB_KEY_BYTES` for each job. `configurations` has for each configuration whether it resumes and whether
    it tries failed jobs again; its jobs are those from its entry in `starts` to the next. `pending` are indices of
    jobs, ascending; `done_in` counts done jobs by the folder that their images are in.
    """

    def __init__(
        self, keys: bytearray, configurations: Sequence[tuple[bool, bool]], starts: Sequence[int], states: JobStates
    ) -> None:
        self.done_in, self.failed_before = Counter[str](), 0
        self.pending = self._unique(keys)
        self.duplicates = starts[-1] - len(self.pending)
        if states.folders or states.others:
            self.pending = self._left(keys, configurations, starts, states)

    def _unique(self, keys: bytearray) -> npt.NDArray[np.int64]:
        """Of equal jobs the first requested."""
        import numpy as np

        halves = np.frombuffer(keys, dtype=">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal jobs the first requested stands first
        sorted_halves = halves[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (sorted_halves[1:] != sorted_halves[:-1]).any(axis=1)
        return np.sort(order[first])

    def _left(
        self, keys: bytearray, configurations: Sequence[tuple[bool, bool]], starts: Sequence[int], states: JobStates
    ) -> npt.NDArray[np.int64]:
        import numpy as np

        left, unique = array("q"), self.pending
        whole = np.frombuffer(keys, dtype=f"V{JOB_KEY_BYTES}")
        for (resume, retry_failed), start, stop in zip(configurations, starts, starts[1:], strict=False):
            low, high = np.searchsorted(unique, (start, stop)).tolist()
            for begin in range(low, high, KEYS_AT_ONCE):
                some = unique[begin : min(begin + KEYS_AT_ONCE, high)]
                for index, key in zip(some.tolist(), whole[some].tolist(), strict=True):
                    if not resume:
                        left.append(index)
                    elif (folder := states.folders.get(key)) is not None:
                        self.done_in[folder] += 1
                    elif not retry_failed and (state := states.others.get(key)) and state.status != INTERRUPTED:
                        self.failed_before += 1
                    else:
                        left.append(index)
        return np.array(left, dtype=np.int64)
