"""The states of jobs in the manifest: which are done, how the others ended, how long they took.

pyarrow is imported inside the functions, and only when there is a part to read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.manifest import events
from jobs.manifest.output_files import ExistingFiles
from jobs.manifest.parts import damaged
from jobs.manifest.ratings_view import removed_jobs
from jobs.manifest.schema import DONE
from jobs.manifest.snapshot import Snapshot, reading_retried

_log = logging.getLogger("darkroom.manifest")

BATCH_ROWS = 20_000

JOB_KEY_BYTES = 16
"""Jobs are remembered by the first half of their hash: 128 bits, no accidental equality, half the memory."""


@dataclass(frozen=True, slots=True)
class JobState:
    """How the last attempt of an unfinished job ended; `attempt` counts from 1."""

    status: str
    attempt: int
    error_kind: str | None


@dataclass(slots=True)
class JobStates:
    """The states from which a run resumes. Keys are `job_key(job_id)`.

    `folders`: where the image of a done job is that still exists, or was before it was removed as rejected, below the
    output folder. `others`: the latest attempt of jobs that failed or were lost.
    """

    folders: dict[bytes, str] = field(default_factory=dict)
    others: dict[bytes, JobState] = field(default_factory=dict)


MeasuredSeconds = dict[tuple[str, int, int, int], float]
"""Median seconds per image, by the hash of the model, width and height in pixels, and number of steps."""


def job_key(job_id: str) -> bytes:
    """The first 16 bytes of a job id (64 hex digits)."""
    return bytes.fromhex(job_id[: 2 * JOB_KEY_BYTES])


def read_states(output_dir: Path) -> JobStates:
    """The state of every job of an output folder, live runs included; empty when there is no manifest.

    Call `recovery.recover` first, so that the jobs of dead processes are counted.
    """
    return reading_retried(output_dir, lambda snapshot: _read_states(output_dir, snapshot))


def _read_states(output_dir: Path, snapshot: Snapshot) -> JobStates:
    states, images = JobStates(), ExistingFiles(output_dir)
    # What was removed as rejected is not wanted again.
    removed = {job_key(job_id) for job_id in removed_jobs(snapshot.ratings).values()} if snapshot.ratings else set()
    latest: dict[bytes, JobState] = {}
    for job_id, status, attempt, path, error_kind in iterate_rows(
        snapshot, ("job_id", "status", "attempt", "path", "error_kind")
    ):
        key = job_key(job_id)
        if status == DONE and (folder := images.folder_of(path)) is not None:
            states.folders[key] = folder
        elif status == DONE and key in removed:
            states.folders.setdefault(key, path.rpartition("/")[0])
        elif key not in latest or attempt >= latest[key].attempt:
            latest[key] = JobState(status, attempt, error_kind)
    for key in removed - states.folders.keys():  # its row was lost
        states.folders[key] = ""
    # A job whose latest attempt was done, but whose image was deleted, is simply to be made again.
    states.others = {key: last for key, last in latest.items() if key not in states.folders and last.status != DONE}
    return states


def measured_seconds(output_dir: Path) -> MeasuredSeconds:
    """Measured times of earlier images, for estimates."""
    from statistics import median

    columns = ("status", "model_sha256", "width", "height", "steps", "seconds")

    def read(snapshot: Snapshot) -> dict[tuple[str, int, int, int], list[float]]:
        groups: dict[tuple[str, int, int, int], list[float]] = {}
        for status, model_sha256, width, height, steps, seconds in iterate_rows(snapshot, columns):
            if status == DONE and seconds is not None:
                groups.setdefault((model_sha256, width, height, steps), []).append(seconds)
        return groups

    return {group: median(seconds) for group, seconds in reading_retried(output_dir, read).items()}


def iterate_rows(snapshot: Snapshot, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The named columns of every valid row, one part at a time; uses little memory.

    Raises FileNotFoundError when a file vanished (see `reading_retried`). A part whose data turn out to be
    damaged is warned about and left.
    """
    for path in snapshot.journals:
        for row in events.replay(path).finished:
            yield tuple(row.get(name) for name in columns)
    for path in snapshot.parts:
        yield from iterate_part(path, columns)


def iterate_part(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The named columns of one part; None where an older version had no such column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, columns=present):
            values = {name: batch.column(name).to_pylist() for name in present}
            missing = [None] * batch.num_rows
            yield from zip(*(values.get(name, missing) for name in columns), strict=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        _log.warning("%s", damaged(path, error))
