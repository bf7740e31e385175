"""The rows of attempts that made no image, their texts without keys and paths."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from jobs.job import Job
from jobs.manifest.schema import FAILED, INTERRUPTED, Row, Status, attempt_row
from pipeline.metadata.leaks import scrub

_TEXTS = frozenset({"prompt", "negative_prompt", "prompt_template", "name", "prompt_set", "tags"}).union(
    {"model", "vae", "loras", "controlnets", "ip_adapters", "init_image"}
)
"""The columns that hold a user's own words or names of his files."""

MAX_MESSAGE = 2_000
"""Characters of an error's message that are kept."""


def interrupted_row(job: Job, attempt: int, run_id: str) -> Row:
    """What to record should the process die on this job."""
    return _scrubbed_row(job, attempt, run_id, INTERRUPTED)


def failed_row(job: Job, attempt: int, run_id: str, kind: str, message: str) -> Row:
    """What to record of a job that failed."""
    row = _scrubbed_row(job, attempt, run_id, FAILED)
    row["error_kind"], row["error_message"] = kind, scrub(message)[:MAX_MESSAGE]
    return row


def _scrubbed_row(job: Job, attempt: int, run_id: str, status: Status) -> Row:
    row = attempt_row(job, run_id, attempt, status, datetime.now(UTC))
    return cast(Row, {column: _scrubbed(value) if column in _TEXTS else value for column, value in row.items()})


def _scrubbed(value: Any) -> Any:
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    return scrub(value) if isinstance(value, str) else value
