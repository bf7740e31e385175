"""Repairs the manifest after processes have died; run before reading which jobs are done."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.manifest import events
from jobs.manifest.layout import Layout, journal_order, next_stem, reindex_command
from jobs.manifest.replacement import finish_replacements
from jobs.manifest.sealing import remove_journal, seal, settle
from pipeline.storage.durable import writing
from pipeline.storage.locks import exclusive, taken_from_the_dead

_log = logging.getLogger("darkroom.manifest")

ABANDONED_AFTER_S = 3600.0
"""A temporary file untouched for this long has no writer any more."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `recover` found: dead `journals`, images `adopted`, and the ids of jobs that `lost` an attempt."""

    journals: int = 0
    adopted: int = 0
    lost: tuple[str, ...] = ()


def recover(output_dir: Path) -> Recovery:
    """Seal the journals of dead processes, finish half-done replacements, delete abandoned temporary files.

    Live processes are left alone. Can be interrupted and repeated at any point; several wait for each other.
    Raises `DiskFull` or `RunStopped` when the manifest cannot be written.
    """
    layout = Layout(output_dir)
    if not layout.root.is_dir():
        return Recovery()
    with writing(layout.root), exclusive(layout.recovery_lock, wait=True):
        layout.create()
        with exclusive(layout.compaction_lock, wait=False) as nobody_compacts:
            if nobody_compacts:
                for place in (layout, layout.ratings):
                    finish_replacements(place)
        journals = sorted(
            (order, path) for path in layout.journals.iterdir() if (order := journal_order(path)) and path.is_file()
        )
        # A worker's older journal first: whether its jobs moved on is seen by the next one's being there.
        found = [_recover_journal(layout, path) for _, path in journals]
        for place in (layout, layout.ratings):
            for folder in (place.journals, place.parts, place.log):
                _delete_abandoned(folder)
    return Recovery(
        journals=sum(one.journals for one in found),
        adopted=sum(one.adopted for one in found),
        lost=tuple(job_id for one in found for job_id in one.lost),
    )


def _recover_journal(layout: Layout, path: Path) -> Recovery:
    stem = path.stem
    with taken_from_the_dead(path) as dead:
        if not dead:
            return Recovery()
        if layout.part(stem).exists():  # it died between the part's rename and the journal's removal
            remove_journal(layout, stem)
            return Recovery(journals=1)
        content = events.replay(path)
        if layout.journal(next_stem(stem)).exists():
            content.started.clear()
            content.saving.clear()
        settled = settle(content, layout.output_dir)
        if content.damaged_lines:
            aside = path.with_suffix(".damaged")
            aside.write_bytes(path.read_bytes())
            mend = reindex_command(path)
            _log.warning("%s: the whole journal is kept there; %s adds images without a row", aside, mend)
        seal(layout, stem, content.finished + settled.adopted + settled.lost)
    return Recovery(1, len(settled.adopted), tuple(row["job_id"] for row in settled.lost))


def _delete_abandoned(folder: Path) -> None:
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its writer is alive after all, and has just published it
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink()
