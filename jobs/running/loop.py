"""The main loop: hand bundles to the engine, note what comes back, survive what goes wrong."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jobs.engines.bundle_metrics import larger
from jobs.engines.local import LocalEngine
from jobs.engines.messages import (
    RECYCLE,
    At,
    Busy,
    Died,
    Ended,
    Failed,
    Loaded,
    Logged,
    Made,
    MadeElsewhere,
    Measured,
    Message,
)
from jobs.engines.processes import STOP_SIGNALS
from jobs.engines.stage_peaks import StagePeaks
from jobs.job import Assignment, Bundle
from jobs.manifest.done_elsewhere import DoneElsewhere
from jobs.manifest.layout import command
from jobs.manifest.recovery import recover
from jobs.manifest.sealing import MAX_ATTEMPTS
from jobs.planning.plan import Plan
from jobs.running.progress import Progress
from jobs.running.run_log import log_again
from jobs.running.run_metrics import RunMetrics
from pipeline.errors import ManifestLost
from pipeline.generation.phase_seconds import PhaseSeconds

if TYPE_CHECKING:
    from pipeline.system.resources import ResourceStatistics

IN_FLIGHT_BUNDLES = 2
"""One being generated and one waiting, so that the worker never idles and little is lost with it."""

MAX_FAILURES_ALIKE = 5
"""Failures alike in a row over as many different prompts or models stop the run: the cause is then not the jobs."""

STOPPED_ON_ERROR = "stopped at the first failure, as on_error=stop asks"

MAX_DEATHS = 10
"""As many workers lost without one image in between stop the run; a single bad job is set aside long before."""

MAX_DEVICE_LOSSES = 2
"""A device that a fresh process cannot use either is gone; stopping now keeps its jobs out of quarantine."""

STOP_WITHIN_S = 60.0
"""A worker that does not stop in this time is killed; one step of the largest models takes less."""

ELSEWHERE_POLL_S = 2.0

_log = logging.getLogger("darkroom.run")


@dataclass(slots=True)
class Result:
    """What came of a run. `made_elsewhere` were made meanwhile by another run on the same folder.

    `stop_kind` says in a word why it stopped early: signal, on_error, alike, workers_lost, or the kind of `RunStopped`.
    """

    made: int = 0
    made_elsewhere: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    loads: int = 0
    load_seconds: float = 0.0
    deaths: int = 0
    recycled: int = 0
    phases: PhaseSeconds = field(default_factory=PhaseSeconds)
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
    stages: StagePeaks = field(default_factory=StagePeaks)
    resources_mean: ResourceStatistics | None = None
    resources_peak: ResourceStatistics | None = None
    stopped: str | None = None
    stop_kind: str | None = None
    way_on: str = "the same command makes the rest"

    def left(self, plan: Plan) -> int:
        """How many images neither came nor failed."""
        return plan.to_make + plan.refused - self.made - self.made_elsewhere - self.failed.total()


class Runner:
    """Runs one plan to its end, or to where it can be resumed, and counts in `result`."""

    def __init__(
        self,
        plan: Plan,
        engine: LocalEngine,
        progress: Progress,
        output_dir: Path,
        known_parts: frozenset[str],
        result: Result,
        metrics: RunMetrics,
        *,
        stop_on_error: bool,
    ) -> None:
        self._engine, self._progress, self._output_dir = engine, progress, output_dir
        self._stop_on_error, self._metrics, self._plan = stop_on_error, metrics, plan
        self._waiting = plan.bundles()
        self._again: deque[Bundle] = deque()
        self._elsewhere: list[tuple[Assignment, Bundle]] = []
        self._outstanding: dict[str, Assignment] = {}
        self._bundles: list[tuple[Bundle, set[str]]] = []
        self._finished = DoneElsewhere(output_dir, known_parts)
        self._alike: tuple[str, set[tuple[str, str]]] = ("", set())
        self._deaths_in_a_row = self._device_losses = self._workers = 0
        self._busy_at = -ELSEWHERE_POLL_S
        self._left_to_others = 0
        self._signal: signal.Signals | None = None
        self._stop_at: float | None = None
        self._ending = False
        self.result = result

    def run(self) -> None:
        """Make everything that can be made; a failed job never stops the others. What came of it is in `result`."""
        with self._signals():
            self._start_worker()
            try:
                while self._engine.running:
                    if self._signal is not None and self.result.stopped is None:
                        self._progress.note("stopping; press Ctrl-C again to end at once")
                        self.stop(f"stopped by {self._signal.name}", "signal")
                    self._feed()
                    self._progress.tick()
                    message = self._engine.receive(timeout_s=0.2)
                    if message is not None:
                        self._note(message)
                    if self._stop_at is not None and time.monotonic() > self._stop_at:
                        _log.warning("the worker has not stopped within %.0f s and is killed", STOP_WITHIN_S)
                        self._stop_at = None
                        self._engine.kill()
            finally:
                self._engine.kill()

    def stop(self, reason: str, kind: str) -> None:
        """Stop as soon as possible, with everything finished kept; the same command goes on later."""
        if self.result.stopped is None:
            self._stopped(reason, kind)
            self._stop_at = time.monotonic() + STOP_WITHIN_S
            self._engine.stop()

    def _stopped(self, reason: str, kind: str) -> None:
        self.result.stopped, self.result.stop_kind = reason, kind
        _log.error("the run stops: %s", reason)

    def _start_worker(self) -> None:
        self._workers += 1
        _log.info("worker %d starts", self._workers)
        self._progress.at("importing libraries")
        self._engine.start()

    def _feed(self) -> None:
        while self.result.stopped is None and not self._ending and len(self._bundles) < IN_FLIGHT_BUNDLES:
            bundle = self._again.popleft() if self._again else next(self._waiting, None)
            if bundle is None and self._elsewhere and not self._bundles:
                bundle = self._left_by_others()
            if bundle is None:
                if not self._bundles and not self._elsewhere:
                    self._ending = True
                    self._engine.finish()
                return
            self._outstanding |= {one.job.id: one for one in bundle.assignments}
            self._bundles.append((bundle, {one.job.id for one in bundle.assignments}))
            self._engine.submit(bundle)

    def _left_by_others(self) -> Bundle | None:
        """Jobs that another run had claimed: those it has finished are counted, one of the rest is tried again."""
        self._finished.refresh()
        for left in [left for left in self._elsewhere if left[0].job.id in self._finished]:
            self._elsewhere.remove(left)
            self.result.made_elsewhere += 1
            self._progress.skipped()
        if not self._elsewhere:
            return None
        # Others are still at them as long as the last answer was that; what they have left needs no waiting.
        time.sleep(max(0.0, self._busy_at + ELSEWHERE_POLL_S - time.monotonic()))
        one, bundle = self._elsewhere.pop(0)
        return bundle.alone(one)

    def _note(self, message: Message) -> None:
        match message:
            case At():
                self._progress.at(message.what, message.denoised)
            case Loaded():
                self.result.loads += 1
                self.result.load_seconds += message.seconds
                self._progress.loaded(message)
            case Made():
                self._settle(message.job_id)
                self.result.made += 1
                self._alike = ("", set())
                self._deaths_in_a_row = self._device_losses = 0
                if self._stop_at is not None:  # what was denoised before the stop is still being decoded
                    self._stop_at = time.monotonic() + STOP_WITHIN_S
                self._progress.made()
            case Failed():
                self._count_failure(message, self._settle(message.job_id))
            case MadeElsewhere():
                self._settle(message.job_id)
                self.result.made_elsewhere += 1
                self._progress.skipped()
            case Busy():
                if not self._left_to_others:
                    _log.info("another run is at work on some of these images; they are looked at again at the end")
                self._left_to_others += 1
                self._busy_at = time.monotonic()
                bundle = self._bundle_of(message.job_id)
                self._elsewhere.append((self._settle(message.job_id), bundle))
            case Measured():
                made, failed = self.result.made, self.result.failed.total()
                self._metrics.bundle(message.metrics, made=made, failed=failed, queue=self.result.left(self._plan))
            case Logged():
                log_again(message)
            case Ended():
                self._ended(message)
            case Died():
                self._died(message)

    def _settle(self, job_id: str) -> Assignment:
        for _, open_jobs in self._bundles:
            open_jobs.discard(job_id)
        self._bundles = [(bundle, open_jobs) for bundle, open_jobs in self._bundles if open_jobs]
        return self._outstanding.pop(job_id)

    def _bundle_of(self, job_id: str) -> Bundle:
        return next(bundle for bundle, open_jobs in self._bundles if job_id in open_jobs)

    def _count_failure(self, failure: Failed, one: Assignment) -> None:
        self._note_failure(failure, one)
        if self._stop_on_error:
            self.stop(STOPPED_ON_ERROR, "on_error")
        kind, seen = self._alike
        self._alike = (
            failure.kind,
            {*(seen if kind == failure.kind else ()), (one.job.request.prompt, one.job.request.model.sha256)},
        )
        if len(self._alike[1]) >= MAX_FAILURES_ALIKE:
            self.stop(
                f"images of {MAX_FAILURES_ALIKE} different prompts or models in a row failed alike "
                f"({failure.kind}: {failure.message}); fix the cause first",
                "alike",
            )
            self.result.way_on = "the same command with retry_failed=true makes the rest"

    def _note_failure(self, failure: Failed, one: Assignment) -> None:
        self.result.failed[failure.kind] += 1
        if len(self.result.failures) < 100:
            self.result.failures.append((failure.job_id, failure.kind, failure.message))
        self._progress.failed(failure, one.job)
        where = f"{one.job.prompt_place}, seed {one.job.request.seed}"
        what = _short(one.job.id), failure.kind, one.attempt
        _log.error("job %s failed (%s, attempt %d): %s: %s", *what, where, failure.message)

    def _ended(self, ended: Ended) -> None:
        self.result.phases.add(ended.phases)
        self.result.peak_vram_bytes = larger(self.result.peak_vram_bytes, ended.peak_vram_bytes)
        self.result.peak_rss_bytes = larger(self.result.peak_rss_bytes, ended.peak_rss_bytes)
        self.result.stages.add(ended.stages)
        if self.result.stopped is not None or (self._ending and not self._outstanding and not ended.stop_kind):
            return
        if ended.stop_kind == RECYCLE:
            self._recycle(ended.stop_message or "")
            return
        if ended.stop_kind and ended.stop_kind != "device_lost":
            self._stopped(ended.stop_message or ended.stop_kind, ended.stop_kind)
            if ended.stop_kind == ManifestLost.kind:
                reindex = command(self._output_dir, "reindex")
                self.result.way_on = f"{reindex} lists the images again, then the same command makes the rest"
            return
        lost = ended.stop_kind == "device_lost"
        self._device_losses = self._device_losses + 1 if lost else 0
        self._restart(ended.stop_message or "ended before its work was done", set(ended.begun))

    def _died(self, died: Died) -> None:
        if self.result.stopped is not None:
            recover(self._output_dir)
            return
        recovery = recover(self._output_dir)
        if recovery.adopted:
            _log.info("%d images that it had finished are taken in", recovery.adopted)
        self._restart(died.reason, {*recovery.lost})

    def _recycle(self, reason: str) -> None:
        """Put a fresh worker in the place of one that ended between two bundles; what it had not begun goes to it."""
        _log.info("worker %d ends, for a fresh one to take over: %s", self._workers, reason)
        self.result.recycled += 1
        self._again.extendleft(bundle.of(open_jobs) for bundle, open_jobs in reversed(self._bundles))
        self._outstanding.clear()
        self._bundles.clear()
        if self._ending and not self._again:
            return
        self._ending = False
        self._progress.note(f"a fresh worker takes over ({reason})")
        self._start_worker()

    def _restart(self, reason: str, begun: set[str]) -> None:
        """Start a new worker. Jobs that the last one was working on lose an attempt and are tried alone."""
        self.result.deaths += 1
        self._deaths_in_a_row += 1
        _log.warning("worker %d was lost: %s", self._workers, reason)
        if self._ending:  # it died after its last image, and its journal has been sealed for it: nothing is left to do
            return
        self._finished.refresh()
        suspects: list[Bundle] = []
        untouched: set[str] = set()
        for job_id, one in self._outstanding.items():
            if job_id in self._finished:
                self.result.made += 1
                self._progress.made()
                self._deaths_in_a_row = 0
            elif job_id not in begun:
                untouched.add(job_id)
            elif one.attempt >= MAX_ATTEMPTS:
                message = f"its process died {MAX_ATTEMPTS} times ({reason})"
                self._note_failure(Failed(job_id, "quarantined", message), one)
            else:
                suspects.append(self._bundle_of(job_id).alone(Assignment(one.job, one.attempt + 1)))
        again = [bundle.of(untouched) for bundle, open_jobs in self._bundles if open_jobs & untouched]
        self._outstanding.clear()
        self._bundles.clear()
        self._again.extendleft(reversed(again + suspects))
        if suspects:
            jobs = ", ".join(_short(one.job.id) for suspect in suspects for one in suspect.assignments)
            _log.warning("the images that it was at lose an attempt and are tried again alone: %s", jobs)
        if self._deaths_in_a_row >= MAX_DEATHS or self._device_losses >= MAX_DEVICE_LOSSES:
            self._stopped(
                f"{self._deaths_in_a_row} workers in a row were lost without making an image ({reason})",
                "workers_lost",
            )
            return
        self._progress.note(f"the worker was lost ({reason}); starting a new one")
        self._start_worker()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """One of `STOP_SIGNALS` stops the run, a second one ends it at once. Only the main thread may set handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            # Only noted here: the main loop may be in the middle of a line to the terminal or to the worker.
            if self._signal is not None:
                self._engine.kill()
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._signal = signal.Signals(number)

        before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _short(job_id: str) -> str:
    return job_id[:8]
