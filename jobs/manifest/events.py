"""The lines of a journal, and their meaning when they are read in order.

    {"event": "started",  "row": {...}}        worked at from here on; the row to record if the process dies now
    {"event": "saving",   "row": {...}}        the done row, before the image gets its final name
    {"event": "done",     "image_id", "job_id"}  the last `saving` row of this image counts from here on
    {"event": "failed",   "row": {...}}        a failure, final for this attempt
    {"event": "released", "job_ids": [...]}    not worked at any more: waiting, or given back; no attempt counts

A line without its newline was torn by a crash and does not exist. A complete line that is no event is damage:
counted, skipped, never a reason to lose the other lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jobs.manifest.schema import Row, row_from_json, row_to_json

_log = logging.getLogger("darkroom.manifest")
_warned: set[Path] = set()

RowValues = dict[str, Any]
"""A row as it stands in a journal (`schema.row_to_json`)."""


def row_line(event: Literal["started", "saving", "failed"], row: Row) -> bytes:
    return _line({"event": event, "row": row_to_json(row)})


def done_line(image_id: str, job_id: str) -> bytes:
    return _line({"event": "done", "image_id": image_id, "job_id": job_id})


def released_line(job_ids: Iterable[str]) -> bytes:
    return _line({"event": "released", "job_ids": list(job_ids)})


def _line(event: dict[str, Any]) -> bytes:
    # ASCII: no line break of a prompt, and no half character of a torn line, can then look like a line's end.
    return json.dumps(event, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


@dataclass(slots=True)
class Replay:
    """The state of a journal so far: `finished` has done and failed rows in order, the other jobs are in progress.

    `started` is keyed by job id, `saving` by image id. `offset` is the number of bytes understood.
    """

    finished: list[RowValues] = field(default_factory=list)
    started: dict[str, RowValues] = field(default_factory=dict)
    saving: dict[str, RowValues] = field(default_factory=dict)
    damaged_lines: int = 0
    offset: int = 0

    def feed(self, content: bytes) -> None:
        """Read lines that were appended since `offset`; an incomplete last line is left for the next call."""
        complete = content.rfind(b"\n") + 1
        for line in content[:complete].splitlines():
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged_lines += 1
        self.offset += complete

    def _apply(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "started":
                self.started[event["row"]["job_id"]] = _checked(event["row"])
            case "saving":
                self.saving[_checked_image(event["row"])["image_id"]] = event["row"]
            case "done":
                row = self.saving.pop(event["image_id"])
                self.started.pop(row["job_id"], None)
                self.finished.append(row)
            case "failed":
                self._forget(_checked(event["row"])["job_id"])
                self.finished.append(event["row"])
            case "released":
                for job_id in event["job_ids"]:
                    self.started.pop(job_id, None)  # an image that is announced counts if it has got its name
            case unknown:
                raise ValueError(unknown)

    def _forget(self, job_id: str) -> None:
        self.started.pop(job_id, None)
        for image_id in [key for key, row in self.saving.items() if row["job_id"] == job_id]:
            del self.saving[image_id]

    def in_flight_lines(self) -> bytes:
        """The lines that carry jobs in progress over into a worker's next journal."""
        started = (_line({"event": "started", "row": row}) for row in self.started.values())
        saving = (_line({"event": "saving", "row": row}) for row in self.saving.values())
        return b"".join((*started, *saving))


def replay(path: Path) -> Replay:
    """Read a whole journal; damaged lines are reported once. Raises FileNotFoundError if it was sealed meanwhile."""
    result = Replay()
    result.feed(path.read_bytes())
    if result.damaged_lines and path not in _warned:
        _warned.add(path)
        _log.warning("%s: %d damaged lines were skipped; all others are used", path, result.damaged_lines)
    return result


def _checked(row: RowValues) -> RowValues:
    """A row that is one. Raises ValueError."""
    row_from_json(row)
    return row


def _checked_image(row: RowValues) -> RowValues:
    """The row of an image, which says where it is. Raises ValueError."""
    if not all(isinstance(_checked(row).get(name), str) for name in ("image_id", "path", "file_sha256")):
        raise ValueError("the row of an image without its id, path or hash")
    return row
