"""What a run will do: every job once, those already made left out, alike ones together, each model loaded once.

A plan of a million jobs holds arrays, not jobs: each job is made again from its number when its turn comes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.engines.messages import Assignment, Bundle
from jobs.expand import Expansion
from jobs.job import Job, Likeness
from jobs.manifest.reading import JOB_KEY_BYTES, JobState, JobStates, job_key
from jobs.manifest.schema import INTERRUPTED
from pipeline.request import Adapters, MemorySettings, ModelSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Fit:
    """How a group's pictures are fitted into memory, by estimate; `least_bytes` is the smallest sufficient budget."""

    held: MemorySettings
    batch_size: int
    predicted_peak_bytes: int | None = None
    budget_bytes: int | None = None
    fits: bool = True
    least_bytes: int = 0
    stage_bytes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that may share a batch: same weights, memory settings, adapters and sampling, other prompts and seeds."""

    model: ModelSettings
    memory: MemorySettings
    likeness: Likeness
    adapters: Adapters
    fit: Fit
    bundle_images: int

    @property
    def load_key(self) -> tuple[ModelSettings, str]:
        """What a worker compares to decide whether to load: the weights and their precision."""
        return self.model, self.memory.dtype

    @property
    def bundle_key(self) -> Hashable:
        """What must be equal for batches to go through the phases together."""
        adapters, size = self.adapters, (self.likeness.width, self.likeness.height)
        beside = (*(one.sha256 for one in adapters.controlnets), *(one.sha256 for one in adapters.ip_adapters))
        return self.load_key, self.fit, size, adapters.loras, adapters.embeddings, beside


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How jobs of one configuration are fitted, bundled, and which earlier results count."""

    model: ModelSettings
    memory: MemorySettings
    fit: Callable[[Likeness, Adapters], Fit]
    bundle_images: int = 32
    resume: bool = True
    retry_failed: bool = False


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
        self._alike: Counter[Hashable] = Counter()
        for group, count in self.groups():
            self._alike[_shape(group)] += count

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

    def bundles(self) -> Iterator[Bundle]:
        """Batches that go through the phases together, in order: same weights, held alike, up to `bundle_images`."""
        batches: list[tuple[Assignment, ...]] = []
        present: Group | None = None
        images = 0
        for group, batch in self.batches():
            apart = present is not None and (
                group.bundle_key != present.bundle_key
                or images + len(batch) > group.bundle_images
                or any(one.attempt > 1 for one in (*batch, *batches[-1]))
            )
            if present is not None and apart:
                yield self._bundle(batches, present)
                batches, images = [], 0
            present = group
            batches.append(batch)
            images += len(batch)
        if present is not None:
            yield self._bundle(batches, present)

    def batches(self) -> Iterator[tuple[Group, tuple[Assignment, ...]]]:
        """Batches of alike jobs, in order. A job that lost its process before runs alone, to drag none along."""
        batch: list[Assignment] = []
        present = -1
        for index, number in zip(self._order, self._order_groups, strict=True):
            job = self._job(int(index))
            state = self._states.others.get(job_key(job.id))
            attempt = state.attempt + 1 if state else 1
            if batch and (number != present or len(batch) >= self._groups[present].fit.batch_size):
                yield self._groups[present], tuple(batch)
                batch = []
            present = int(number)
            if state and state.status == INTERRUPTED:
                yield self._groups[present], (Assignment(job, attempt),)
            else:
                batch.append(Assignment(job, attempt))
        if batch:
            yield self._groups[present], tuple(batch)

    def _collect(self, settings: Sequence[PlanSettings]) -> tuple[bytearray, array[int], list[Group]]:
        keys, numbers = bytearray(), array("I")
        known: dict[Group, int] = {}
        for expansion, one in zip(self._expansions, settings, strict=True):
            here: dict[tuple[Likeness, Adapters], int] = {}
            for key, likeness, adapters in expansion.iter_keys():
                keys += key[:JOB_KEY_BYTES]
                number = here.get((likeness, adapters))
                if number is None:
                    fit = one.fit(likeness, adapters)
                    group = Group(one.model, one.memory, likeness, adapters, fit, one.bundle_images)
                    number = here[likeness, adapters] = known.setdefault(group, len(known))
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
        """Order by cost of change: weights, then how they are held, adapters, size, then what else parts batches."""
        import numpy as np

        firsts: dict[object, int] = {}
        for place, group in enumerate(self._groups):
            for part in (group.model.sha256, group.load_key, group.bundle_key):
                firsts.setdefault(part, place)
        ranks = sorted(
            range(len(self._groups)),
            key=lambda number: (
                firsts[self._groups[number].model.sha256],
                firsts[self._groups[number].load_key],
                firsts[self._groups[number].bundle_key],
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

    def _bundle(self, batches: Sequence[tuple[Assignment, ...]], group: Group) -> Bundle:
        fit = group.fit
        return Bundle(tuple(batches), fit.held, fit.predicted_peak_bytes, fit.stage_bytes, self._alike[_shape(group)])

    def _present(self) -> set[int]:
        import numpy as np

        return {int(number) for number in np.unique(self._order_groups)}

    def _job(self, index: int) -> Job:
        config = bisect_right(self._starts, index) - 1
        return self._expansions[config].job(index - self._starts[config])


def _shape(group: Group) -> Hashable:
    """What a compiled model is compiled for."""
    return group.load_key, group.likeness.width, group.likeness.height


def _is_final(state: JobState | None) -> bool:
    return state is not None and state.status != INTERRUPTED
