"""The one who makes: owns a device, a warm model, a journal and its claims. Serves any engine.

The main thread generates; encoding, hashing and writing run on threads behind the next bundle. Torch is imported when
the first model is loaded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from jobs.engines.bundle_metrics import BundleMeter, larger
from jobs.engines.image_saver import ImageSaver
from jobs.engines.jobs_in_progress import AtWork
from jobs.engines.messages import (
    RECYCLE,
    At,
    Busy,
    Ended,
    Failed,
    Loaded,
    Made,
    MadeElsewhere,
    Measured,
    Message,
    WorkerSettings,
)
from jobs.engines.recycling import Recycling
from jobs.engines.saving_threads import Saving
from jobs.engines.stage_peaks import StagePeaks, measured
from jobs.job import Assignment, Bundle
from jobs.manifest.claims import Claims
from jobs.manifest.done_elsewhere import DoneElsewhere
from jobs.manifest.journal import Journal
from jobs.manifest.rows import failed_row
from jobs.manifest.sealing import DiskReserve
from pipeline.errors import DarkroomError, DeviceLost, Interrupted, JobFailure, RunStopped
from pipeline.generation.current_model import CurrentModel
from pipeline.generation.generate import generate_bundle
from pipeline.generation.phase_seconds import PhaseSeconds
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.loading.speed import ReadAhead
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.planning.estimate import Stage
from pipeline.registry.model_settings import weight_files
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings, ModelSettings
from pipeline.system.device import host_memory
from pipeline.system.failures import classify

HOST_SHARE = 0.5
"""Share of the machine's memory in which components of models are kept; the rest is for pictures and other programs."""

_log = logging.getLogger("darkroom.worker")


class Recycled(RunStopped):
    """The worker ends so that a fresh one takes over."""

    kind = RECYCLE


class _ReadingAhead:
    """Is told of each waiting bundle, and begins to read when its model differs from the one before."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._foreseen: ModelSettings | None = None
        self._reading: ReadAhead | None = None

    def foresee(self, settings: ModelSettings) -> None:
        """Begin to read the model of a waiting bundle, if it is another one. Raises nothing."""
        before, self._foreseen = self._foreseen, settings
        if not self._wanted or before in (None, settings):
            return
        # What is wrong with the files is said when they are loaded. This is the thread that takes bundles in: whatever
        # happens here must not end it, or the worker would wait for ever.
        with contextlib.suppress(Exception):
            paths = weight_files(settings)
            self.stop()
            self._reading = ReadAhead(paths)

    def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.stop()


class Worker:
    """Makes bundles until told to end. `send` may be called from any thread; `should_stop` is polled between steps."""

    def __init__(
        self, settings: WorkerSettings, send: Callable[[Message], None], should_stop: Callable[[], bool]
    ) -> None:
        self._settings, self._send, self._should_stop = settings, send, should_stop
        output_dir = Path(settings.output_dir)
        self._journal = Journal(output_dir)
        self._claims = Claims(output_dir)
        self._finished = DoneElsewhere(output_dir, settings.known_parts)
        self._saver = ImageSaver(output_dir, self._journal, settings.run_id)
        self._saving = Saving(self._save)
        self._reserve = DiskReserve(output_dir)
        self._at_work = AtWork(self._journal, settings.run_id)
        self._known_failures = KnownFailures()
        self._pool = Pool(host_bytes=int(host_memory()[0] * HOST_SHARE))
        self._current = CurrentModel(
            settings.device, self._pool, settings.speed, settings.cpu_threads, self._known_failures
        )
        self._reading = _ReadingAhead(wanted=settings.read_ahead)
        self._recycling = Recycling(settings.recycling)
        self._stages = StagePeaks()
        self._phases = PhaseSeconds()
        self._said, self._denoising = At(""), 0
        self._peak_vram_bytes: int | None = None
        self._peak_rss_bytes: int | None = None

    def foresee(self, bundle: Bundle) -> None:
        """A bundle that waits: read its model's files into the page cache while the present one works."""
        self._reading.foresee(bundle.assignments[0].job.request.model)

    def run(self, bundles: Iterable[Bundle]) -> None:
        """Work through bundles, then save what is pending, seal, and say `Ended`."""
        stop: RunStopped | None = None
        try:
            for bundle in bundles:
                if self._stop_asked():
                    break
                denoising, made = self._phases.denoise, self._saving.handed_over
                self._make(bundle)
                self._journal.seal_if_due()
                if reason := self._worn(bundle, self._saving.handed_over - made, self._phases.denoise - denoising):
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
                begun=tuple(self._at_work.announced) if isinstance(stop, DeviceLost) else (),
                stages=self._stages.all(),
            )
        )

    def _finish(self, stop: RunStopped | None) -> RunStopped | None:
        self._saving.close()
        stop = stop or self._saving.fault
        self._reserve.release()
        try:
            if not isinstance(stop, DeviceLost):  # only a lost device can be the jobs' own doing
                self._at_work.release()
            self._journal.close()
        except RunStopped as error:
            stop = stop or error
        self._claims.close()
        self._reading.stop()
        if not isinstance(stop, DeviceLost):
            with contextlib.suppress(Exception):  # everything is sealed; nothing may come between that and saying so
                self._current.remove_files()
        return stop

    def _make(self, bundle: Bundle) -> None:
        batches = [batch for one in bundle.batches if (batch := self._take(one))]
        places = [one for batch in batches for one in batch]
        waiting = dict(enumerate(places))
        if not waiting:
            return
        suspect = any(one.attempt > 1 for one in places)
        if suspect:
            self._saving.wait()  # what may kill this process takes no finished picture along
        meter = BundleMeter(places[0].job.request, replace(self._phases))
        try:
            # Before any job is announced: a process that dies while loading says nothing about them.
            model = self._model_for(places[0].job.request, bundle.held, meter)
            outcomes = generate_bundle(
                model,
                [[one.job.request for one in batch] for batch in batches],
                self._stop_asked,
                self._phases,
                on_work=lambda stage, at: self._turn_to(stage, [places[place] for place in at]),
                predicted_peak_bytes=bundle.predicted_peak_bytes,
                images_per_shape=bundle.images_alike,
                known_failures=self._known_failures,
            )
            for index, outcome in outcomes:
                one = waiting.pop(index)
                if isinstance(outcome, JobFailure):
                    meter.failures += 1
                    self._fail(one, outcome.kind, outcome)
                else:
                    meter.made(outcome)
                    self._stages.add(measured(outcome, dict(bundle.predicted_stage_bytes)))
                    self._hand_over(one, outcome)
        except (Interrupted, RunStopped):
            raise
        except DarkroomError as error:
            self._current.forget_plan()
            meter.failures += len(waiting)
            for one in waiting.values():
                self._fail(one, getattr(error, "kind", "model"), error)
        except Exception as error:
            self._current.forget_plan()
            failure = classify(error)
            meter.failures += len(waiting)
            for one in waiting.values():
                self._fail(one, failure.kind, failure)
        finally:
            self._send(Measured(meter.metrics(self._phases)))
        self._at_work.turn_to(None, ())
        if suspect:
            self._saving.wait()  # should its saving kill this process, nobody else is at work

    def _turn_to(self, stage: Stage, jobs: Sequence[Assignment]) -> None:
        """From now on, the main thread is at these jobs."""
        self._at_work.turn_to(stage, jobs)
        at = At(f"{stage.removesuffix('e')}ing", self._denoising)  # encoding, denoising, decoding
        self._denoising = len(jobs) if stage == "denoise" else 0
        if at != self._said:
            self._send(at)
        self._said = replace(at, denoised=0)

    def _hand_over(self, one: Assignment, image: GeneratedImage) -> None:
        self._peak_vram_bytes = larger(self._peak_vram_bytes, image.peak_vram_bytes)
        self._peak_rss_bytes = larger(self._peak_rss_bytes, image.peak_rss_bytes)
        self._saving.hand_over(one, image)

    def _worn(self, bundle: Bundle, images: int, seconds: float) -> str | None:
        """Why a fresh worker should take over, if it should."""
        if not images:
            return None
        model = bundle.assignments[0].job.request.model
        rss_bytes = psutil.Process().memory_info().rss
        return self._recycling.reason(model, bundle.kind, images, seconds / images, rss_bytes)

    def _stop_asked(self) -> bool:
        return self._should_stop() or self._saving.fault is not None

    def _take(self, bundle: Sequence[Assignment]) -> list[Assignment]:
        """Those of a bundle that no other run is at or through with; the claim is held until the row is durable."""
        claimed = set(self._claims.claim([one.job.id for one in bundle]))
        self._finished.refresh(own=self._journal.path)
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

    def _model_for(self, request: ImageRequest, held: MemorySettings, meter: BundleMeter) -> LoadedModel:
        self._said = At(f"loading {request.model.name}")
        self._send(self._said)
        loads = self._current.loads
        model = self._current.get(request.model, request.memory, held)
        if self._current.loads != loads:
            meter.load_seconds = model.load_seconds
            self._send(Loaded(request.model.name, model.load_seconds))
        return model

    def _save(self, one: Assignment, image: GeneratedImage) -> None:
        self._at_work.save(one)
        try:
            self._saver.save(image, one.job, one.attempt, self._settings.saves[one.job.config_index])
        except JobFailure as error:
            self._fail(one, error.kind, error)
        else:
            self._settle(one)
            self._send(Made(one.job.id))

    def _fail(self, one: Assignment, kind: str, error: Exception) -> None:
        _log.debug("job %s failed", one.job.id, exc_info=error)
        self._journal.fail([failed_row(one.job, one.attempt, self._settings.run_id, kind, str(error))])
        self._settle(one)
        self._send(Failed(one.job.id, kind, str(error)))

    def _settle(self, one: Assignment) -> None:
        """The job's row is durable: let go of it."""
        self._at_work.settled(one.job.id)
        self._claims.release(one.job.id)
