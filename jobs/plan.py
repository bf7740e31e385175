"""What a run will do: every job once, those already made left out, alike ones together, each model loaded once.

A plan of a million jobs holds arrays, not jobs: each job is made again from its number when its turn comes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.engines.messages import Assignment
from jobs.expand import Expansion
from jobs.job import Job, Likeness
from jobs.manifest.reading import JOB_KEY_BYTES, JobState, JobStates, job_key
from jobs.manifest.schema import INTERRUPTED
from pipeline.request import MemorySettings, ModelSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that may share a batch: same weights, same memory settings, same sampling but for the seed."""

    model: ModelSettings
    memory: MemorySettings
    likeness: Likeness
    batch_size: int

    @property
    def load_key(self) -> tuple[ModelSettings, str]:
        """What a worker compares to decide whether to load: the weights and their precision."""
        return self.model, self.memory.dtype


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How jobs of one configuration are bundled, and which earlier results count."""

    model: ModelSettings
    memory: MemorySettings
    batch_size: int
    max_batch_pixels: int | None = None
    resume: bool = True
    retry_failed: bool = False

    def batch_size_for(self, likeness: Likeness) -> int:
        """How many images of a size are denoised together."""
        if self.max_batch_pixels is None:
            return self.batch_size
        return max(1, min(self.batch_size, self.max_batch_pixels // (likeness.width * likeness.height)))


class Plan:
    """The jobs to make, in order. `requested = duplicates + done + failed_before + to_make`."""

    def __init__(self, expansions: Sequence[Expansion], states: JobStates, settings: Sequence[PlanSettings]) -> None:
        """`expansions` and `settings` are one per configuration; `states` is what the manifest already has."""
        self._expansions = expansions
        self._starts = [0]
        for expansion in expansions:
            self._starts.append(self._starts[-1] + len(expansion))
        self._states = states
        keys, group_numbers, self._groups = self._collect(settings)
        self.requested = self._starts[-1]
        pending = self._pending(keys, settings)
        self._order, self._order_groups = self._arrange(pending, group_numbers)

    @property
    def to_make(self) -> int:
        """Number of images that will be made."""
        return len(self._order)

    @property
    def minimum_loads(self) -> int:
        """Number of distinct models among the jobs to make."""
        return len({self._groups[number].load_key for number in self._present()})

    @property
    def loads(self) -> int:
        """How often a model will be loaded when the jobs are made in this order."""
        keys = [group.load_key for group, _ in self.groups()]
        return sum(1 for index, key in enumerate(keys) if index == 0 or keys[index - 1] != key)

    def groups(self) -> Iterator[tuple[Group, int]]:
        """The groups in order, with the number of jobs to make in each."""
        import numpy as np

        numbers, first, counts = np.unique(self._order_groups, return_index=True, return_counts=True)
        for position in np.argsort(first):
            yield self._groups[int(numbers[position])], int(counts[position])

    def jobs(self) -> Iterator[Job]:
        """The jobs to make, in order."""
        for index in self._order:
            yield self._job(int(index))

    def bundles(self) -> Iterator[tuple[Assignment, ...]]:
        """Batches of alike jobs, in order. A job that lost its process before runs alone, to drag none along."""
        bundle: list[Assignment] = []
        present = -1
        for index, number in zip(self._order, self._order_groups, strict=True):
            job = self._job(int(index))
            state = self._states.others.get(job_key(job.id))
            attempt = state.attempt + 1 if state else 1
            if bundle and (number != present or len(bundle) >= self._groups[present].batch_size):
                yield tuple(bundle)
                bundle = []
            present = int(number)
            if state and state.status == INTERRUPTED:
                yield (Assignment(job, attempt),)
            else:
                bundle.append(Assignment(job, attempt))
        if bundle:
            yield tuple(bundle)

    def _collect(self, settings: Sequence[PlanSettings]) -> tuple[bytearray, array[int], list[Group]]:
        keys, numbers = bytearray(), array("I")
        known: dict[Group, int] = {}
        for expansion, one in zip(self._expansions, settings, strict=True):
            here: dict[Likeness, int] = {}
            for key, likeness in expansion.iter_keys():
                keys += key[:JOB_KEY_BYTES]
                number = here.get(likeness)
                if number is None:
                    group = Group(one.model, one.memory, likeness, one.batch_size_for(likeness))
                    number = here[likeness] = known.setdefault(group, len(known))
                numbers.append(number)
        return keys, numbers, list(known)

    def _pending(self, keys: bytearray, settings: Sequence[PlanSettings]) -> npt.NDArray[np.int64]:
        """Indices of jobs to make, ascending; counts duplicates, done and failed on the way."""
        import numpy as np

        halves = np.frombuffer(keys, dtype=">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal jobs the first requested stands first
        sorted_halves = halves[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (sorted_halves[1:] != sorted_halves[:-1]).any(axis=1)
        unique = np.sort(order[first])
        self.duplicates = len(order) - len(unique)
        self.done = self.failed_before = 0
        if not self._states.done and not self._states.others:
            return unique
        keep = np.ones(len(unique), dtype=bool)
        for position, index in enumerate(unique.tolist()):
            one = settings[bisect_right(self._starts, index) - 1]
            key = bytes(keys[JOB_KEY_BYTES * index : JOB_KEY_BYTES * (index + 1)])
            if not one.resume:
                continue
            if key in self._states.done:
                self.done += 1
                keep[position] = False
            elif not one.retry_failed and _is_final(self._states.others.get(key)):
                self.failed_before += 1
                keep[position] = False
        return unique[keep]

    def _arrange(
        self, pending: npt.NDArray[np.int64], group_numbers: array[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Order by cost of change: weights first, then size, then what else keeps jobs from sharing a batch."""
        import numpy as np

        weights: dict[object, int] = {}
        bases: dict[str, int] = {}
        for group in self._groups:
            bases.setdefault(group.model.sha256, len(bases))
            weights.setdefault(group.load_key, len(weights))
        ranks = sorted(
            range(len(self._groups)),
            key=lambda number: (
                bases[self._groups[number].model.sha256],
                weights[self._groups[number].load_key],
                self._groups[number].likeness.width,
                self._groups[number].likeness.height,
                number,
            ),
        )
        rank_of = np.empty(max(len(ranks), 1), dtype=np.uint32)
        rank_of[ranks] = np.arange(len(ranks), dtype=np.uint32)
        numbers = np.frombuffer(group_numbers, dtype=np.uint32)[pending] if len(pending) else np.empty(0, np.uint32)
        order = np.argsort(rank_of[numbers], kind="stable")
        return pending[order], numbers[order]

    def _present(self) -> set[int]:
        import numpy as np

        return {int(number) for number in np.unique(self._order_groups)}

    def _job(self, index: int) -> Job:
        config = bisect_right(self._starts, index) - 1
        return self._expansions[config].job(index - self._starts[config])


def _is_final(state: JobState | None) -> bool:
    return state is not None and state.status != INTERRUPTED
