"""Saves one finished picture: file first, row second, and it counts only when both are durable."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from pathlib import Path

from jobs.job import Job
from jobs.manifest.crashpoints import reached
from jobs.manifest.journal import Journal
from jobs.manifest.rows import done_row
from pipeline.errors import JobFailure
from pipeline.metadata.building import build_record
from pipeline.metadata.record import JobRecord, Record, SelectionRecord
from pipeline.metadata.saving import SaveSettings, save
from pipeline.request import GeneratedImage


class ImageSaver:
    """Saves images below `output_dir` and writes their rows. Safe to use from several threads."""

    def __init__(self, output_dir: Path, journal: Journal, run_id: str) -> None:
        self._output_dir, self._journal, self._run_id = output_dir, journal, run_id

    def save(self, image: GeneratedImage, job: Job, attempt: int, settings: SaveSettings) -> None:
        """Encode, check, write and record a picture.

        The journal learns of the file before it gets its name, so a process killed in between leaves a file that
        recovery can tell from a foreign one. Raises `JobFailure` or `DiskFull`; then no file has a final name.
        """
        record = self._record(image, job, attempt, settings)
        digest = ""

        def announce(path: Path, data: bytes) -> None:
            nonlocal digest
            digest = hashlib.sha256(data).hexdigest()
            self._journal.intend(done_row(record, self._relative(path), digest))

        path = save(image, record, self._output_dir, settings.naming, settings.metadata, announce)
        reached("after_rename")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            path.unlink()
            raise JobFailure(f"{self._relative(path)}: reads back differently from what was written; check the disk")
        self._journal.commit(record.id)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._output_dir).as_posix()

    def _record(self, image: GeneratedImage, job: Job, attempt: int, settings: SaveSettings) -> Record:
        return build_record(
            image,
            image_id=str(uuid.uuid4()),
            created=datetime.now(UTC),
            output_format=settings.output_format,
            quality=settings.metadata.quality_for(settings.output_format),
            origin=JobRecord(
                id=job.id,
                run_id=self._run_id,
                name=job.name,
                prompt_set=job.prompt_set,
                prompt_index=job.prompt_index,
                tags=list(job.tags),
                attempt=attempt,
            ),
            prompt_template=job.prompt_template,
            selection=None if job.selection is None else SelectionRecord.model_validate_json(job.selection),
            derived_from=job.derived_from,
        )
