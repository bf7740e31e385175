"""Messages between the parent, which plans, and a worker, which makes images: small, frozen, picklable."""

from __future__ import annotations

import multiprocessing.connection
import sys
from dataclasses import dataclass, field

from jobs.engines.bundle_metrics import BundleMetrics
from jobs.engines.recycling import RecyclingLimits
from jobs.engines.stage_peaks import StagePeak
from pipeline.generation.phase_seconds import PhaseSeconds
from pipeline.metadata.saving import SaveSettings
from pipeline.request import SpeedSettings

if sys.platform == "win32":
    Connection = multiprocessing.connection.PipeConnection
else:
    Connection = multiprocessing.connection.Connection

STOP = "stop"
"""Asks a worker to stop between two denoising steps, seal, and end."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All that a worker must know. `saves` is indexed by `Job.config_index`; the plan has read `known_parts`."""

    output_dir: str
    run_id: str
    known_parts: frozenset[str]
    saves: tuple[SaveSettings, ...]
    device: str
    cpu_threads: int | None = None
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    recycling: RecyclingLimits = field(default_factory=RecyclingLimits)
    read_ahead: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class At:
    """What the worker is doing now, in words; `denoised` images were denoised since its last message."""

    what: str
    denoised: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model was loaded."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Made:
    """An image and its row are durable."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A job failed and its row is durable."""

    job_id: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class MadeElsewhere:
    """Another run finished this job after our plan was made."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run is making this job now."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A log record of the worker, for the run's log; `level` is logging's, `time` in seconds since 1970."""

    logger: str
    level: int
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a finished or stopped bundle; its images may not be saved yet."""

    metrics: BundleMetrics


RECYCLE = "recycle"
"""`stop_kind` of a worker that ends to be replaced by a fresh one; nothing was lost with it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker has sealed its journal and ended. `stop_kind` says why, unless it was asked to end.

    `begun` are the jobs that lost an attempt with it.
    """

    phases: PhaseSeconds = field(default_factory=PhaseSeconds)
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
    stop_kind: str | None = None
    stop_message: str | None = None
    begun: tuple[str, ...] = ()
    stages: tuple[StagePeak, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """The worker died without a message. `reason` is its signal or exit code in words."""

    reason: str


Message = At | Loaded | Made | Failed | MadeElsewhere | Busy | Logged | Measured | Ended | Died
