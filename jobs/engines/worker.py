"""The one who makes: owns a device, a warm model, a journal and its claims. Serves any engine.

The main thread generates; encoding, hashing and writing run on threads behind the next bundle. Torch is imported when
the first model is loaded.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

from jobs.engines.messages import (
    Assignment,
    Busy,
    Ended,
    Failed,
    Loaded,
    Made,
    MadeElsewhere,
    Message,
    WorkerSettings,
)
from jobs.images import ImageSaver
from jobs.manifest.claims import Claims
from jobs.manifest.crashpoints import reached
from jobs.manifest.finished import FinishedSince
from jobs.manifest.journal import Journal
from jobs.manifest.schema import FAILED, INTERRUPTED, Row, attempt_row
from pipeline.errors import DarkroomError, DeviceLost, Interrupted, JobFailure, LeakFound, RunStopped
from pipeline.generate import PhaseSeconds, generate_bundle
from pipeline.metadata.leaks import check_texts, scrub
from pipeline.models.loading import LoadedModel, hold, load
from pipeline.request import GeneratedImage, MemorySettings, ModelSettings

SAVER_THREADS = 2
MAX_UNSAVED = 64
"""Finished pictures waiting for the disk; more would let a slow disk fill the memory."""

RESERVE_BYTES = 2**20
"""Disk space held back, so that after the disk has filled up there is room to seal what is done."""

_log = logging.getLogger("darkroom.worker")


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
        self._model: LoadedModel | None = None
        self._phases = PhaseSeconds()
        self._peak_vram_bytes: int | None = None
        self._peak_rss_bytes: int | None = None
        self._fault: RunStopped | None = None

    def run(self, bundles: Iterable[Sequence[Assignment]]) -> None:
        """Work through bundles, then save what is pending, seal, and say `Ended`."""
        stop: RunStopped | None = None
        try:
            for bundle in bundles:
                if self._should_stop() or self._fault:
                    break
                self._make(bundle)
                self._journal.seal_if_due()
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
        return stop

    def _make(self, bundle: Sequence[Assignment]) -> None:
        bundle = self._presentable(self._take(bundle))
        if not bundle:
            return
        if any(one.attempt > 1 for one in bundle):
            wait(tuple(self._saving))  # what may kill this process takes no finished picture along
        try:
            # Before the jobs count as begun: a process that dies while loading says nothing about them.
            model = self._model_for(bundle[0].job.request.model, bundle[0].job.request.memory)
            self._journal.start([self._row(one, INTERRUPTED) for one in bundle])
            self._in_flight.update(one.job.id for one in bundle)
            reached("before_denoise", *(one.job.request.prompt for one in bundle))
            result = generate_bundle(model, [one.job.request for one in bundle], self._stop_asked)
        except (Interrupted, RunStopped):
            raise
        except DarkroomError as error:
            for one in bundle:
                self._fail(one, getattr(error, "kind", "model"), error)
            return
        self._phases.add(result.phases)
        for one, outcome in zip(bundle, result.outcomes, strict=True):
            if isinstance(outcome, JobFailure):
                self._fail(one, outcome.kind, outcome)
                continue
            self._peak_vram_bytes = _larger(self._peak_vram_bytes, outcome.peak_vram_bytes)
            self._peak_rss_bytes = _larger(self._peak_rss_bytes, outcome.peak_rss_bytes)
            self._unsaved.acquire()
            saving = self._threads.submit(self._save, one, outcome)
            self._saving.add(saving)
            saving.add_done_callback(self._saved)

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

    def _model_for(self, settings: ModelSettings, memory: MemorySettings) -> LoadedModel:
        if self._model and (self._model.settings, self._model.memory.dtype) == (settings, memory.dtype):
            hold(self._model, memory)
            return self._model
        self._model = None  # freed before the next one comes, so that both never stand in memory
        self._model = model = load(settings, memory, self._settings.device, self._settings.cpu_threads)
        self._send(Loaded(settings.name, model.load_seconds))
        return model

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
