"""The journal: a worker process writes each event here, line by line, before anything counts as finished.

The order for one image is `start`, `intend`, rename of the image file, `commit`. Each call returns only when its line
is durable, unless it says otherwise. `seal_if_due` and `close` turn the journal into an immutable part.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.manifest import events
from jobs.manifest.crashpoints import reached
from jobs.manifest.layout import Layout, new_stem, next_stem
from jobs.manifest.parts import table_from_rows, write_temporary_part
from jobs.manifest.schema import Row, row_from_json
from jobs.manifest.sealing import remove_journal, seal, settle
from pipeline.errors import ManifestLost, RunStopped
from pipeline.storage.durable import publish, removed_on_error, temporary_name, write_all, writing
from pipeline.storage.locks import lock
from pipeline.storage.platform import open_file, sync_folder

SEAL_ROWS = 5_000
SEAL_AFTER_S = 600.0


def create_journal(path: Path, carried: bytes = b"") -> int:
    """Create a journal that begins with `carried`; returns its descriptor. Raises OSError.

    It is named only when locked and complete, so that nobody takes it for a dead one's.
    """
    temporary = temporary_name(path)
    fd = open_file(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
    try:
        with removed_on_error(temporary):
            lock(fd)
            write_all(fd, carried)
            os.fsync(fd)
            publish(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(fd)
        raise
    return fd


class Journal:
    """One worker's journal, locked for as long as the process lives; safe to share between threads.

    `seal_rows` and `seal_after_s` (seconds since the first finished row) say when `seal_if_due` seals. Each
    method raises `DiskFull` when there is no space; what was durable before stays so, and `recover` can read
    it.
    """

    def __init__(self, output_dir: Path, seal_rows: int = SEAL_ROWS, seal_after_s: float = SEAL_AFTER_S) -> None:
        self._layout = Layout(output_dir)
        self._seal_rows, self._seal_after_s = seal_rows, seal_after_s
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._jobs_being_saved: dict[str, str] = {}
        self._unsealed: tuple[str, int] | None = None
        self._closed = False
        with writing(self._layout.root):
            self._layout.create()
            self._open(new_stem(), b"")

    def start(self, rows: Sequence[Row], *, instead_of: Sequence[str] = (), durable: bool = True) -> None:
        """Announce jobs: each row is what to record (`interrupted`) if the process dies while making it.

        `instead_of` are jobs that were announced and wait now; no attempt counts for them. Without `durable` the lines
        outlive the process, but not a power cut.
        """
        released = events.released_line(instead_of) if instead_of else b""
        self._append(released + b"".join(events.row_line("started", row) for row in rows), durable=durable)
        if rows:
            reached("after_started")

    def intend(self, row: Row) -> None:
        """Announce an image about to get its final name, as its `done` row; again if the name was taken."""
        if row["image_id"] is None or row["path"] is None or row["file_sha256"] is None:
            raise ValueError(f"a done row names its image, path and file hash: {row}")
        with self._lock:
            self._jobs_being_saved[row["image_id"]] = row["job_id"]
        self._append(events.row_line("saving", row))
        reached("after_intent")

    def commit(self, image_id: str) -> None:
        """The image has its final name: the row of its last `intend` counts now. KeyError without one."""
        self._append(events.done_line(image_id, self._jobs_being_saved[image_id]), finished=1)
        del self._jobs_being_saved[image_id]
        reached("after_commit")

    def fail(self, rows: Sequence[Row]) -> None:
        """Record failed or quarantined attempts, made durable together."""
        self._append(b"".join(events.row_line("failed", row) for row in rows), finished=len(rows))

    def release(self, job_ids: Iterable[str]) -> None:
        """Release started jobs at a clean stop: they lose no attempt."""
        self._append(events.released_line(job_ids))

    def seal_if_due(self) -> None:
        """Seal the journal when it has many rows or is old; jobs in progress continue in the next journal."""
        with self._lock:
            old_enough = time.monotonic() - self._first_row_s >= self._seal_after_s
            if self._rows >= self._seal_rows or (self._rows and old_enough):
                with writing(self._layout.root):
                    self._rotate()

    def close(self) -> None:
        """Seal and end. A job that is neither finished nor released loses an attempt. May be called twice."""
        with self._lock, self._sync_lock:
            if self._closed:
                return
            self._closed = True
            try:
                with writing(self._layout.root):
                    self._check_there()
                    self._remove_predecessor()
                    content = events.replay(self.path)
                    settled = settle(content, self._layout.output_dir)
                    seal(self._layout, self._stem, content.finished + settled.adopted + settled.lost)
            finally:
                os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self._layout.journal(self._stem)

    def _open(self, stem: str, carried: bytes) -> None:
        self._stem, self._fd = stem, create_journal(self._layout.journal(stem), carried)
        self._size = self._synced = len(carried)
        self._rows, self._first_row_s = 0, 0.0
        self._failure: str | None = None

    def _append(self, lines: bytes, finished: int = 0, *, durable: bool = True) -> None:
        with writing(self._layout.root):
            with self._lock:
                self._check_usable()
                try:
                    write_all(self._fd, lines)
                except OSError:
                    # Shrinking needs no space: the next line must not be glued to half a line.
                    os.ftruncate(self._fd, self._size)
                    raise
                self._size += len(lines)
                fd, end = self._fd, self._size
                if finished and not self._rows:
                    self._first_row_s = time.monotonic()
                self._rows += finished
            if durable:
                self._sync(fd, end)

    def _sync(self, fd: int, end: int) -> None:
        # One fsync serves every thread whose line was written before it began.
        with self._sync_lock:
            if fd != self._fd or self._synced >= end:
                return
            size = self._size
            try:
                os.fsync(fd)
            except OSError as error:
                # After a failed fsync the kernel may drop the pages, yet report success next time.
                self._failure = str(error.strerror)
                raise
            self._synced = size

    def _check_there(self) -> None:
        if not os.fstat(self._fd).st_nlink:
            raise ManifestLost(f"{self._layout.root}: was deleted while images were made")

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("this journal is closed")
        self._check_there()
        if self._failure:
            raise RunStopped(f"{self.path} could not be flushed before ({self._failure}); run the same command again")

    def _rotate(self) -> None:
        """Seal under way. The part is written first, so a full disk changes nothing; the rest are renames.

        Once the next journal exists it holds the jobs in flight, and recovery takes none from this one.
        """
        with self._sync_lock:
            self._check_there()
            self._remove_predecessor()
            content = events.replay(self.path)
            part = self._layout.part(self._stem)
            rows = [row_from_json(row) for row in content.finished]
            temporary = write_temporary_part(part, [table_from_rows(rows)])
            with removed_on_error(temporary):
                reached("during_seal")
                previous = (self._stem, self._fd)
                self._open(next_stem(self._stem), content.in_flight_lines())
                self._unsealed = previous
                reached("after_next_journal")
                publish(temporary, part)
                reached("after_part_rename")
            self._remove_predecessor()

    def _remove_predecessor(self) -> None:
        """Finish a seal: its part is written again if publishing it failed."""
        if self._unsealed is None:
            return
        stem, fd = self._unsealed
        if self._layout.part(stem).exists():
            remove_journal(self._layout, stem)
            sync_folder(self._layout.parts)
        else:
            seal(self._layout, stem, events.replay(self._layout.journal(stem)).finished)
        self._unsealed = None
        os.close(fd)
