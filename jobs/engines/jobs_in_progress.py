"""Announces jobs in progress in the journal, so that a crash costs an attempt only to those that may have caused it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from jobs.job import Assignment
from jobs.manifest.crashpoints import reached
from jobs.manifest.journal import Journal
from jobs.manifest.rows import interrupted_row
from jobs.manifest.schema import Row
from pipeline.memory.planning.estimate import Stage


class AtWork:
    """The jobs that the main thread is working on, and those that are being saved.

    A job is announced for as long as something is done with it. In between it waits, for the decoder or for a thread
    that saves, and a death then is not its doing. Safe to use from several threads.
    """

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal, self._run_id = journal, run_id
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._made: set[str] = set()
        self._saved: set[str] = set()
        self._turn: tuple[Stage | None, frozenset[str]] = (None, frozenset())

    def turn_to(self, stage: Stage | None, jobs: Sequence[Assignment]) -> None:
        """Release the jobs in progress and announce these instead; none between two bundles."""
        with self._lock:
            ids = frozenset(one.job.id for one in jobs)
            if (stage, ids) == self._turn:
                return
            left = sorted(self._made - ids - self._saved)
            new = [self._row(one) for one in jobs if one.job.id not in self._made | self._saved]
            self._made |= ids  # also where writing so fails, since it may have been written
            # A machine can go down with the process. For the few milliseconds that a text takes, the disk is not waited
            # for, nor that others wait now: at worst they lose an attempt.
            self._journal.start(new, instead_of=left, durable=stage in ("denoise", "decode"))
            self._made, self._turn = set(ids), (stage, ids)
        if stage is not None:
            reached(f"before_{stage}", *(one.job.request.prompt for one in jobs))

    def save(self, one: Assignment) -> None:
        """Announce a job whose picture a thread begins to save."""
        with self._lock:
            self._saved.add(one.job.id)
            if one.job.id not in self._made:
                self._journal.start([self._row(one)], durable=False)  # no picture file brings a machine down

    def settled(self, job_id: str) -> None:
        """The job's row is durable: it is no longer in progress."""
        with self._lock:
            self._made.discard(job_id)
            self._saved.discard(job_id)
            self._rows.pop(job_id, None)

    @property
    def announced(self) -> list[str]:
        """The ids of jobs that would lose an attempt if the process died now."""
        with self._lock:
            return sorted(self._made | self._saved)

    def release(self) -> None:
        """Release all jobs, at a stop that no job has caused."""
        self._journal.release(self.announced)

    def _row(self, one: Assignment) -> Row:
        if one.job.id not in self._rows:
            self._rows[one.job.id] = interrupted_row(one.job, one.attempt, self._run_id)
        return self._rows[one.job.id]
