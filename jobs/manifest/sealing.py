"""Turns a journal into a part: by its owner or, after its owner has died, by the process that recovers it."""

from __future__ import annotations

import glob
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from jobs.manifest.crashpoints import reached
from jobs.manifest.events import Replay, RowValues
from jobs.manifest.layout import Layout
from jobs.manifest.output_files import file_sha256
from jobs.manifest.parts import table_from_rows, write_temporary_part
from jobs.manifest.schema import INTERRUPTED, QUARANTINED, row_from_json
from pipeline.storage.durable import publish
from pipeline.storage.platform import sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ATTEMPTS = 3
"""A job that took its process down this often is quarantined: tried again only with `retry_failed`."""

RESERVE_BYTES = 2**20


@dataclass(slots=True)
class Settled:
    """The outcome of jobs in progress: `adopted` are done rows, `lost` are attempts that count."""

    adopted: list[RowValues] = field(default_factory=list)
    lost: list[RowValues] = field(default_factory=list)


class DiskReserve:
    """Space that is reserved in an unnamed file, so that a full disk leaves room to seal; it is freed by `release` or
    when the process dies.
    """

    def __init__(self, output_dir: Path) -> None:
        self._file: IO[bytes] | None = None
        with suppress(OSError):  # the disk is full already, which will be told by what needs it
            self._file = TemporaryFile(dir=output_dir, prefix=".reserve.", suffix=".tmp", buffering=0)  # noqa: SIM115
            self._file.write(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Free the space. May be called twice."""
        if self._file is not None:
            self._file.close()


def settle(journal: Replay, output_dir: Path) -> Settled:
    """Decide the outcome of jobs that were in progress in a worker that has ended.

    An image whose file stands under its final name with the announced hash is finished, whatever became of
    its `done` line. Any other job that was started has lost an attempt.
    """
    settled, layout = Settled(), Layout(output_dir)
    for row in journal.saving.values():
        path = layout.image(row["path"])
        if path is None:  # through a link: whatever is there is none of ours
            continue
        _delete_half_written(path)
        if path.is_file() and file_sha256(path) == row["file_sha256"]:
            settled.adopted.append(row)
    adopted = {row["job_id"] for row in settled.adopted}
    for job_id, row in journal.started.items():
        if job_id not in adopted:
            settled.lost.append(_lost_attempt(row))
    return settled


def _delete_half_written(path: Path) -> None:
    """Its writer has ended, so a temporary file of this image, or of its sidecar, will never get its name."""
    for name in (path.name, f"{path.stem}.json"):
        for temporary in path.parent.glob(f".{glob.escape(name)}.*.tmp"):
            temporary.unlink(missing_ok=True)


def _lost_attempt(row: RowValues) -> RowValues:
    attempt = row["attempt"]
    last = attempt >= MAX_ATTEMPTS
    way_out = "set aside; retry_failed=true tries again" if last else "it is tried again"
    return {
        **row,
        "status": QUARANTINED if last else INTERRUPTED,
        "error_kind": "process_died",
        "error_message": f"the process died while making this image (attempt {attempt}); {way_out}",
    }


def seal(layout: Layout, stem: str, rows: list[RowValues]) -> None:
    """Write the part of a journal and remove the journal; without rows there is no part. Otherwise as `seal_table`."""
    seal_table(layout, stem, table_from_rows([row_from_json(row) for row in rows]) if rows else None)


def seal_table(layout: Layout, stem: str, table: pa.Table | None) -> None:
    """Write the part of a journal, of this table, and remove the journal.

    The part's name is the journal's, so doing it again after a crash changes nothing. Raises OSError when the
    part cannot be written, and leaves the journal as it was.
    """
    part = layout.part(stem)
    if table is not None and not part.exists():
        temporary = write_temporary_part(part, [table], table.schema)
        reached("during_seal")
        publish(temporary, part)
        reached("after_part_rename")
    remove_journal(layout, stem)


def remove_journal(layout: Layout, stem: str) -> None:
    """Delete a journal whose rows are in a part, durably."""
    layout.journal(stem).unlink(missing_ok=True)
    sync_folder(layout.journals)
