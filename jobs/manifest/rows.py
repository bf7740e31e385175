"""Makes rows of the manifest: of finished images, and of attempts that made none.

A `done` row is a pure function of the image's record, its relative path and its file hash, so `reindex` rebuilds the
same rows from the images alone. Rows of failures have their texts without keys and paths.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from jobs.job import Job
from jobs.manifest.schema import DONE, FAILED, INTERRUPTED, SCHEMA_VERSION, Row, Status, columns
from pipeline.metadata.leaks import scrub
from pipeline.version import VERSION

if TYPE_CHECKING:
    from pipeline.metadata.record import Record

_TEXTS = frozenset({"prompt", "negative_prompt", "prompt_template", "name", "prompt_set", "tags", "selection"}).union(
    {"model", "vae", "loras", "embeddings", "controlnets", "controlnet_images", "ip_adapters", "ip_adapter_images"},
    {"init_image"},
)
"""The columns that hold a user's own words or names of his files."""

MAX_MESSAGE = 2_000
"""Characters of an error's message that are kept."""


def done_row(record: Record, path: str, file_sha256: str) -> Row:
    """The row of a finished image. `path` is relative to the output folder, with forward slashes."""
    own = {"status": DONE, "path": path, "file_sha256": file_sha256, "record_json": record.to_json()}
    return _row({name: column.record for name, column in columns().items()}, record, own)


def attempt_row(job: Job, run_id: str, attempt: int, status: Status, created_at: datetime) -> Row:
    """The row of a job without an image: a failure, or the row to record if the process dies."""
    own = {"run_id": run_id, "attempt": attempt, "status": status, "created_at": created_at, "app_version": VERSION}
    return _row({name: column.job for name, column in columns().items()}, job, own)


def interrupted_row(job: Job, attempt: int, run_id: str) -> Row:
    """The row to record if the process dies while it makes this job."""
    return _scrubbed_row(job, attempt, run_id, INTERRUPTED)


def failed_row(job: Job, attempt: int, run_id: str, kind: str, message: str) -> Row:
    """The row of a job that failed."""
    row = _scrubbed_row(job, attempt, run_id, FAILED)
    row["error_kind"], row["error_message"] = kind, scrub(message)[:MAX_MESSAGE]
    return row


def _row(sources: dict[str, str | None], of: object, own: dict[str, Any]) -> Row:
    found = {name: None if source is None else _attribute(of, source.split(".")) for name, source in sources.items()}
    return cast(Row, {**found, "schema_version": SCHEMA_VERSION, **own})


def _attribute(of: Any, path: list[str]) -> Any:
    for place, name in enumerate(path):
        if of is None:
            return None
        if isinstance(of, list | tuple):
            return [_attribute(one, path[place:]) for one in of]
        of = getattr(of, name)
    return list(of) if isinstance(of, tuple) else of


def _scrubbed_row(job: Job, attempt: int, run_id: str, status: Status) -> Row:
    row = attempt_row(job, run_id, attempt, status, datetime.now(UTC))
    return cast(Row, {column: _scrubbed(value) if column in _TEXTS else value for column, value in row.items()})


def _scrubbed(value: Any) -> Any:
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    return scrub(value) if isinstance(value, str) else value
