"""The plan of a run: every job once, without those already made, alike ones together, each model loaded once.

A plan of a million jobs holds arrays, not jobs: each job is made again from its number when its turn comes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from jobs.job import Assignment, Bundle, Job
from jobs.manifest.job_states import JOB_KEY_BYTES, JobStates, job_key
from jobs.manifest.schema import INTERRUPTED
from jobs.planning.expand import Expansion
from jobs.planning.groups import Fit, Group
from jobs.planning.resume import Resume
from pipeline.request import Adapters, Likeness, MemorySettings, ModelSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.prompting.characters import Characters


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How the jobs of one configuration are fitted and bundled, and which earlier results count."""

    model: ModelSettings
    memory: MemorySettings
    fit: Callable[[Likeness, Adapters], Fit]
    bundle_images: int = 32
    resume: bool = True
    retry_failed: bool = False


class Plan:
    """The jobs to make, in order. `requested = duplicates + done + failed_before + refused + to_make`."""

    def __init__(self, expansions: Sequence[Expansion], states: JobStates, settings: Sequence[PlanSettings]) -> None:
        """`expansions` and `settings` are one per configuration; `states` is what the manifest already has."""
        self._expansions = expansions
        self._starts = [0]
        for expansion in expansions:
            self._starts.append(self._starts[-1] + len(expansion))
        self._states = states
        keys, group_numbers, self._groups = self._collect(settings)
        self.requested = self._starts[-1]
        resume = Resume(keys, [(one.resume, one.retry_failed) for one in settings], self._starts, states)
        self.duplicates, self.done_in, self.failed_before = resume.duplicates, resume.done_in, resume.failed_before
        self.done = self.done_in.total()
        pending = self._without_refused(resume.pending)
        self._order, self._order_groups = self._arrange(pending, group_numbers)
        self._alike: Counter[Hashable] = Counter()
        for group, count in self.groups():
            self._alike[group.shape_key] += count
        self._trials = self._plan_trials()

    @property
    def to_make(self) -> int:
        """Number of images that will be made."""
        return len(self._order)

    @property
    def refused(self) -> int:
        """Number of images that are not made, because they would contain a key or a private path."""
        return len(self._refused)

    def refusals(self) -> Iterator[tuple[Assignment, str]]:
        """The jobs that are refused, in the order of their prompts, each with the reason."""
        reasons = list(self._reasons)
        for index in self._refused.tolist():
            yield self._assignment(self._job(index)), reasons[self._reason_of[index] - 1]

    @property
    def minimum_loads(self) -> int:
        """Number of distinct models among the jobs to make."""
        return len({group.load_key for group, _ in self.groups()})

    @property
    def loads(self) -> int:
        """How often a model will be loaded when the jobs are made in this order."""
        return sum(1 for _ in groupby(group.load_key for group, _ in self.groups()))

    @property
    def characters(self) -> dict[str, Characters]:
        """The sets of characters by name, with the pairs of attributes that they show."""
        return dict(one.characters for one in self._expansions if one.characters is not None)

    def groups(self) -> Iterator[tuple[Group, int]]:
        """The groups in order, with the number of jobs to make in each."""
        for number, _, count in self._spans():
            yield self._groups[number], count

    def trials(self) -> Iterator[Group]:
        """The groups of which some pictures are made in another batch size, to measure it."""
        yield from (self._groups[number] for number in self._trials)

    def jobs(self) -> Iterator[Job]:
        """The jobs to make, in order."""
        for index in self._order:
            yield self._job(int(index))

    def bundles(self) -> Iterator[Bundle]:
        """Batches that go through the phases together, in order: same weights and memory plan, limited in size."""
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
        """Batches of alike jobs, in order. A job whose process died before gets a batch of its own."""
        batch: list[Assignment] = []
        present: Group | None = None
        for place, (index, number) in enumerate(zip(self._order, self._order_groups, strict=True)):
            one = self._assignment(self._job(int(index)))
            state = self._states.others.get(job_key(one.job.id))
            group = self._group_at(place, int(number))
            if batch and present and (group is not present or len(batch) >= present.fit.batch_size):
                yield present, tuple(batch)
                batch = []
            present = group
            if state and state.status == INTERRUPTED:
                yield group, (one,)
            else:
                batch.append(one)
        if batch and present:
            yield present, tuple(batch)

    def _assignment(self, job: Job) -> Assignment:
        state = self._states.others.get(job_key(job.id))
        return Assignment(job, state.attempt + 1 if state else 1)

    def _group_at(self, place: int, number: int) -> Group:
        trial = self._trials.get(number)
        return trial[1] if trial and place in trial[0] else self._groups[number]

    def _plan_trials(self) -> dict[int, tuple[range, Group]]:
        """For each kind of picture the first group that is large enough: the places of its trial, and its memory plan.

        Near its end, so that the usual size has been measured on the same machine in the same state, and whole batches
        before it, so that no more of them are left incomplete than without it.
        """
        trials: dict[int, tuple[range, Group]] = {}
        kinds: set[str] = set()
        for number, first, count in self._spans():
            group, trial = self._groups[number], self._groups[number].fit.trial
            if trial is None or trial.kind in kinds or count < trial.needed:
                continue
            kinds.add(trial.kind)
            usual = group.fit.batch_size
            begin = first + (count - trial.images) // usual * usual
            trials[number] = range(begin, begin + trial.images), replace(group, fit=trial.fit)
        return trials

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        """The number of each group, the place of its first job and the number of its jobs, in order."""
        import numpy as np

        numbers, first, counts = np.unique(self._order_groups, return_index=True, return_counts=True)
        for position in np.argsort(first):
            yield int(numbers[position]), int(first[position]), int(counts[position])

    def _collect(self, settings: Sequence[PlanSettings]) -> tuple[bytearray, array[int], list[Group]]:
        keys, numbers = bytearray(), array("I")
        known: dict[Group, int] = {}
        self._reasons: dict[str, int] = {}
        self._reason_of = bytearray()
        for expansion, one in zip(self._expansions, settings, strict=True):
            here: dict[tuple[Likeness, Adapters], int] = {}
            for key, likeness, adapters, refusal in expansion.iter_keys():
                keys += key[:JOB_KEY_BYTES]
                self._reason_of.append(self._reasons.setdefault(refusal, len(self._reasons) + 1) if refusal else 0)
                number = here.get((likeness, adapters))
                if number is None:
                    fit = one.fit(likeness, adapters)
                    group = Group(one.model, one.memory, likeness, adapters, fit, one.bundle_images)
                    number = here[likeness, adapters] = known.setdefault(group, len(known))
                numbers.append(number)
        return keys, numbers, list(known)

    def _without_refused(self, pending: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        refused = np.frombuffer(self._reason_of, dtype=np.uint8)[pending] > 0
        self._refused = pending[refused]
        return pending[~refused]

    def _arrange(
        self, pending: npt.NDArray[np.int64], group_numbers: array[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Order by cost of change: weights, then memory plan, adapters, size, then what else parts batches."""
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
        return Bundle(tuple(batches), fit.held, fit.predicted_peak_bytes, fit.stage_bytes, self._alike[group.shape_key])

    def _job(self, index: int) -> Job:
        config = bisect_right(self._starts, index) - 1
        return self._expansions[config].job(index - self._starts[config])
