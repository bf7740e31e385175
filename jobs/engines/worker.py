"""The one who makes: owns a device, a warm model, a journal and its claims. Serves any engine.

The main thread generates; encoding, hashing and writing run on threads behind the next bundle. Torch is imported when
the first model is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from jobs.engines.messages import (
    RECYCLE,
    Assignment,
    Bundle,
    Busy,
    Ended,
    Failed,
    Loaded,
    Made,
    MadeElsewhere,
    Message,
    WorkerSettings,
)
from jobs.engines.recycling import Recycling
from jobs.engines.stage_peaks import StagePeaks, measured
from jobs.images import ImageSaver
from jobs.manifest.claims import Claims
from jobs.manifest.crashpoints import reached
from jobs.manifest.finished import FinishedSince
from jobs.manifest.journal import Journal
from jobs.manifest.schema import FAILED, INTERRUPTED, Row, attempt_row
from pipeline.errors import DarkroomError, DeviceLost, Interrupted, JobFailure, LeakFound, RunStopped
from pipeline.failures import classify
from pipeline.generate import PhaseSeconds, generate_bundle
from pipeline.memory.holding import hold, let_go
from pipeline.memory.pool import Pool
from pipeline.metadata.leaks import check_texts, scrub
from pipeline.models.loading import LoadedModel
from pipeline.models.profile import weight_files
from pipeline.recovery import load_giving_way
from pipeline.request import NO_ADAPTERS, GeneratedImage, ImageRequest, MemorySettings, ModelSettings
from pipeline.speed import ReadAhead, read_ahead
from pipeline.system.device import host_memory

SAVER_THREADS = 2
MAX_UNSAVED = 64
"""Finished pictures waiting for the disk; more would let a slow disk fill the memory."""

RESERVE_BYTES = 2**20
"""Disk space held back, so that after the disk has filled up there is room to seal what is done."""

HOST_SHARE = 0.5
"""Share of the machine's memory in which components of models are kept; the rest is for pictures and other programs."""

_log = logging.getLogger("darkroom.worker")


class Recycled(RunStopped):
    """The worker ends so that a fresh one takes over."""

    kind = RECYCLE


class Worker:
    """Makes bundles until told to end. `send` may be called from any thread; `should_stop` is polled between steps."""

    def __init__(
        self, settings: WorkerSettings, send: Callable[[Message], None], should_stop: Callable[[], bool]
    ) -> None:
        self._settings, self._send, self._should_stop = settings, send, should_stop
        output_dir = Path(settings.output_dir)
        self._journal = Journal(output_dir)
        self._claims = Claims(output_dir)
        self._finished = FinishedSince(output_dir, settings.known_parts)
        self._saver = ImageSaver(output_dir, self._journal, settings.run_id)
        self._threads = ThreadPoolExecutor(SAVER_THREADS, thread_name_prefix="save")
        self._unsaved = threading.BoundedSemaphore(MAX_UNSAVED)
        self._saving: set[Future[None]] = set()
        self._reserve_fd: int | None = _reserve(output_dir)
        self._in_flight: set[str] = set()
        self._handed_over = 0
        self._model: LoadedModel | None = None
        self._planned: MemorySettings | None = None
        self._pool = Pool(host_bytes=int(host_memory()[0] * HOST_SHARE))
        self._reading: ReadAhead | None = None
        self._foreseen: ModelSettings | None = None
        self._recycling = Recycling(settings.recycling)
        self._stages = StagePeaks()
        self._phases = PhaseSeconds()
        self._peak_vram_bytes: int | None = None
        self._peak_rss_bytes: int | None = None
        self._fault: RunStopped | None = None

    def foresee(self, bundle: Bundle) -> None:
        """A bundle that waits: read its model's files into the page cache while the present one works."""
        settings = bundle.assignments[0].job.request.model
        before, self._foreseen = self._foreseen, settings
        if not self._settings.read_ahead or before in (None, settings):
            return
        # What is wrong with the files is said when they are loaded. This is the thread that takes bundles in: whatever
        # happens here must not end it, or the worker would wait for ever.
        with contextlib.suppress(Exception):
            paths = weight_files(settings)
            if self._reading is not None:
                self._reading.stop()
            self._reading = read_ahead(paths)

    def run(self, bundles: Iterable[Bundle]) -> None:
        """Work through bundles, then save what is pending, seal, and say `Ended`."""
        stop: RunStopped | None = None
        try:
            for bundle in bundles:
                if self._should_stop() or self._fault:
                    break
                denoising, made = self._phases.denoise, self._handed_over
                self._make(bundle)
                self._journal.seal_if_due()
                if reason := self._worn(bundle, self._handed_over - made, self._phases.denoise - denoising):
                    raise Recycled(reason)
        except Interrupted:
            pass
        except RunStopped as error:
            stop = error
        stop = self._finish(stop)
        self._send(
            Ended(
                phases=self._phases,
                peak_vram_bytes=self._peak_vram_bytes,
                peak_rss_bytes=self._peak_rss_bytes,
                stop_kind=stop.kind if stop else None,
                stop_message=str(stop) if stop else None,
                begun=tuple(sorted(self._in_flight)) if isinstance(stop, DeviceLost) else (),
                stages=self._stages.all(),
            )
        )

    def _finish(self, stop: RunStopped | None) -> RunStopped | None:
        self._threads.shutdown(wait=True)
        stop = stop or self._fault
        if self._reserve_fd is not None:
            os.close(self._reserve_fd)
            self._reserve_fd = None
        try:
            if not isinstance(stop, DeviceLost):  # only a lost device can be the jobs' own doing
                self._journal.release(sorted(self._in_flight))
            self._journal.close()
        except RunStopped as error:
            stop = stop or error
        self._claims.close()
        if self._reading is not None:
            self._reading.stop()
        if self._model and not isinstance(stop, DeviceLost):
            with contextlib.suppress(Exception):  # everything is sealed; nothing may come between that and saying so
                let_go(self._model)  # weights that wait on disk are removed with it
        return stop

    def _make(self, bundle: Bundle) -> None:
        batches = [batch for one in bundle.batches if (batch := self._presentable(self._take(one)))]
        waiting = dict(enumerate(one for batch in batches for one in batch))
        if not waiting:
            return
        if any(one.attempt > 1 for one in waiting.values()):
            wait(tuple(self._saving))  # what may kill this process takes no finished picture along
        if len(waiting) == 1:
            # Alone, so a death while its prompt is encoded is its own doing as well.
            self._begin(batches[0])
        try:
            # Before the jobs count as begun: a process that dies while loading says nothing about them.
            model = self._model_for(batches[0][0].job.request, bundle.held)
            outcomes = generate_bundle(
                model,
                [[one.job.request for one in batch] for batch in batches],
                self._stop_asked,
                self._phases,
                on_batch=lambda index: self._begin(batches[index]),
                predicted_peak_bytes=bundle.predicted_peak_bytes,
                images_per_shape=bundle.images_alike,
            )
            for index, outcome in outcomes:
                one = waiting.pop(index)
                if isinstance(outcome, JobFailure):
                    self._fail(one, outcome.kind, outcome)
                else:
                    self._stages.add(measured(outcome, dict(bundle.predicted_stage_bytes)))
                    self._hand_over(one, outcome)
        except (Interrupted, RunStopped):
            raise
        except DarkroomError as error:
            self._planned = None  # however the model is held now, the next bundle asks anew
            for one in waiting.values():
                self._fail(one, getattr(error, "kind", "model"), error)
        except Exception as error:
            self._planned = None
            failure = classify(error)
            for one in waiting.values():
                self._fail(one, failure.kind, failure)

    def _begin(self, batch: Sequence[Assignment]) -> None:
        """Announce that these are being made; should the process die now, they lose an attempt."""
        begun = [one for one in batch if one.job.id not in self._in_flight]
        if begun:
            self._journal.start([self._row(one, INTERRUPTED) for one in begun])
            self._in_flight.update(one.job.id for one in begun)
            reached("before_denoise", *(one.job.request.prompt for one in begun))

    def _hand_over(self, one: Assignment, image: GeneratedImage) -> None:
        self._peak_vram_bytes = _larger(self._peak_vram_bytes, image.peak_vram_bytes)
        self._peak_rss_bytes = _larger(self._peak_rss_bytes, image.peak_rss_bytes)
        self._handed_over += 1
        self._unsaved.acquire()
        saving = self._threads.submit(self._save, one, image)
        self._saving.add(saving)
        saving.add_done_callback(self._saved)

    def _worn(self, bundle: Bundle, images: int, seconds: float) -> str | None:
        """Why a fresh worker should take over, if it should."""
        if not images:
            return None
        request = bundle.assignments[0].job.request
        alike = replace(request, prompt="", negative_prompt="", seed=0, adapters=NO_ADAPTERS)
        adapters = request.adapters
        beside = (len(adapters.loras), len(adapters.controlnets), len(adapters.ip_adapters), adapters.init)
        kind = (alike, beside, len(bundle.batches[0]), bundle.held)
        rss_bytes = psutil.Process().memory_info().rss
        return self._recycling.reason(request.model, kind, images, seconds / images, rss_bytes)

    def _stop_asked(self) -> bool:
        return self._should_stop() or self._fault is not None

    def _take(self, bundle: Sequence[Assignment]) -> list[Assignment]:
        """Those of a bundle that no other run is at or through with; the claim is held until the row is durable."""
        claimed = set(self._claims.claim([one.job.id for one in bundle]))
        self._finished.refresh()
        taken = []
        for one in bundle:
            if one.job.id not in claimed:
                self._send(Busy(one.job.id))
            elif one.job.id in self._finished:
                self._claims.release(one.job.id)
                self._send(MadeElsewhere(one.job.id))
            else:
                taken.append(one)
        return taken

    def _presentable(self, bundle: Sequence[Assignment]) -> list[Assignment]:
        """Those whose texts may be written; a key in a prompt is found before the time for the image is spent."""
        fit = []
        for one in bundle:
            job = one.job
            try:
                check_texts((job.request.prompt, job.request.negative_prompt, job.name, *job.tags))
            except LeakFound as error:
                self._fail(one, error.kind, error)
            else:
                fit.append(one)
        return fit

    def _model_for(self, request: ImageRequest, held: MemorySettings) -> LoadedModel:
        settings = request.model
        if self._model and (self._model.settings, self._model.memory.dtype) == (settings, held.dtype):
            if held != self._planned:  # else it is held so, or with what was needed besides when memory ran out
                hold(self._model, held)
                self._planned = held
            return self._model
        if self._model:
            let_go(self._model)  # before the next one comes, so that both never stand on the device
            self._model = None
        self._planned = held
        self._model = model = self._load(request, held)
        self._send(Loaded(settings.name, model.load_seconds))
        return model

    def _load(self, request: ImageRequest, held: MemorySettings) -> LoadedModel:
        """Load, with more techniques as long as memory runs out over it. Raises `ModelError`, `OutOfMemory`."""
        return load_giving_way(
            request.model,
            request.memory,
            held,
            self._settings.device,
            self._settings.cpu_threads,
            self._pool,
            self._settings.speed,
        )

    def _save(self, one: Assignment, image: GeneratedImage) -> None:
        if self._fault:
            return
        try:
            path = self._saver.save(image, one.job, one.attempt, self._settings.saves[one.job.config_index])
        except JobFailure as error:
            self._fail(one, error.kind, error)
        else:
            self._settle(one)
            self._send(Made(one.job.id, path, image.seconds))

    def _saved(self, future: Future[None]) -> None:
        self._saving.discard(future)
        self._unsaved.release()
        error = future.exception()
        if error is None:
            return
        _log.debug("saving failed", exc_info=error)
        if self._fault is None:
            known = isinstance(error, RunStopped)
            self._fault = error if known else RunStopped(f"saving failed: {type(error).__name__}: {error}")  # type: ignore[assignment]

    def _fail(self, one: Assignment, kind: str, error: Exception) -> None:
        _log.debug("job %s failed", one.job.id, exc_info=error)
        row = self._row(one, FAILED)
        row["error_kind"], row["error_message"] = kind, scrub(str(error))[:2000]
        self._journal.fail(row)
        self._settle(one)
        self._send(Failed(one.job.id, kind, str(error)))

    def _settle(self, one: Assignment) -> None:
        """The job's row is durable: let go of it."""
        self._in_flight.discard(one.job.id)
        self._claims.release(one.job.id)

    def _row(self, one: Assignment, status: str) -> Row:
        row = attempt_row(one.job, self._settings.run_id, one.attempt, status, datetime.now(UTC))
        row["prompt"], row["negative_prompt"] = scrub(row["prompt"]), scrub(row["negative_prompt"])
        row["name"], row["tags"] = scrub(row["name"] or ""), [scrub(tag) for tag in row["tags"]]
        row["prompt_template"] = scrub(row["prompt_template"]) if row["prompt_template"] else None
        return row


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _reserve(output_dir: Path) -> int | None:
    """Take disk space without leaving a file: it has no name, and is free again when closed or when we die."""
    path = output_dir / f".reserve.{os.getpid()}.tmp"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    try:
        os.write(fd, bytes(RESERVE_BYTES))
    except OSError:
        os.close(fd)
        return None
    return fd
