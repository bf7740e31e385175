"""Ratings: every writer appends events to a journal of its own, and each call returns when they are on the disk.

    output_dir/manifest/ratings/journal/<stem>.jsonl    one per writer at work (ratings_events.py)
    output_dir/manifest/ratings/parts/<stem>.parquet    sealed and immutable
    output_dir/manifest/ratings/log/<uuid>.json         a replacement of parts that is under way (replacement.py)

A journal outlives its writer, and the next writer goes on in it: a thousand commands leave one file. It is sealed into
a part when it has many events, and by `darkroom compact`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.manifest.crashpoints import reached
from jobs.manifest.journal import create_journal
from jobs.manifest.layout import Layout, journal_order, new_stem
from jobs.manifest.ratings_events import RatingEvent, RatingLines, event_line, parse_lines, read_rating_journal
from jobs.manifest.schema import arrow_schema
from jobs.manifest.sealing import remove_journal, seal_table
from jobs.manifest.snapshot import warn_once
from pipeline.errors import ManifestLost, RunStopped
from pipeline.storage.durable import write_all, writing
from pipeline.storage.locks import taken_from_the_dead, try_lock
from pipeline.storage.platform import open_file

if TYPE_CHECKING:
    import pyarrow as pa

SEAL_EVENTS = 5_000


class RatingWriter:
    """Writes ratings of one output folder; any number of them may be open. Safe to share between threads.

    Raises `DiskFull` or `RunStopped` when nothing can be written there.
    """

    def __init__(self, output_dir: Path) -> None:
        self._layout = Layout(output_dir).ratings
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._closed = False
        with writing(self._layout.root):
            self._layout.create()
            self._path, self._fd, self._size, self._last = self._take()

    def append(self, events: Iterable[RatingEvent]) -> list[RatingEvent]:
        """Write events, together; they are on the disk when this returns them, with the moments that they have now.

        Moments ascend within a journal, whatever the clock does. Raises `ConfigError` for a value that cannot be kept,
        `DiskFull` when there is no space: then none of the events is written.
        """
        with self._lock, writing(self._layout.root):
            self._check_usable()
            said = []
            for event in events:
                self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
                said.append(replace(event, said_at=self._last))
            lines = b"".join(map(event_line, said))
            try:
                write_all(self._fd, lines)
            except OSError:
                # Shrinking needs no space: the next line must not be glued to half a line.
                os.ftruncate(self._fd, self._size)
                raise
            reached("after_rating_written")
            try:
                os.fsync(self._fd)
            except OSError as error:
                # After a failed fsync the kernel may drop the pages, yet report success next time.
                self._failure = str(error.strerror)
                raise
            self._size += len(lines)
            return said

    def close(self) -> None:
        """Leave the journal to the next writer. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def __enter__(self) -> RatingWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("these ratings are closed")
        if not os.fstat(self._fd).st_nlink:
            raise ManifestLost(f"{self._layout.root}: was deleted while ratings were written")
        if self._failure:
            raise RunStopped(f"{self._path} could not be flushed before ({self._failure}); run the same command again")

    def _take(self) -> tuple[Path, int, int, datetime]:
        """A journal of this writer alone: one that a former writer left, without its torn last line, or a new one."""
        for path in _journals(self._layout):
            try:
                fd = open_file(path, os.O_RDWR | os.O_APPEND)
            except FileNotFoundError:
                continue
            try:
                if try_lock(fd) and os.fstat(fd).st_nlink and (lines := self._left_open(path, fd)):
                    last = max((event.said_at for event in lines.events), default=datetime.min.replace(tzinfo=UTC))
                    return path, fd, lines.whole_bytes, last
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        path = self._layout.journal(new_stem())
        return path, create_journal(path), 0, datetime.min.replace(tzinfo=UTC)

    def _left_open(self, path: Path, fd: int) -> RatingLines | None:
        """What a journal holds that is to be continued; None for one that is sealed, after sealing it if it is due."""
        if self._layout.part(path.stem).exists():
            remove_journal(self._layout, path.stem)
            return None
        lines = parse_lines(path.read_bytes())
        if len(lines.events) >= SEAL_EVENTS:
            _seal(self._layout, path, lines)
            return None
        os.ftruncate(fd, lines.whole_bytes)
        return lines


def seal_ratings(layout: Layout) -> None:
    """Seal the journals that no writer has now. `layout` is that of the ratings. Raises OSError."""
    for path in _journals(layout):
        with taken_from_the_dead(path) as dead:
            if dead and layout.part(path.stem).exists():
                remove_journal(layout, path.stem)
            elif dead:
                _seal(layout, path, read_rating_journal(path))


def rating_table(events: Sequence[RatingEvent]) -> pa.Table:
    """Events as a table of a part's schema."""
    import pyarrow as pa

    columns = {name: [getattr(event, name) for event in events] for name in RatingEvent.__annotations__}
    return pa.Table.from_pydict(columns, schema=arrow_schema(RatingEvent))


def _seal(layout: Layout, path: Path, lines: RatingLines) -> None:
    if lines.damaged:
        aside = path.with_suffix(".damaged")
        aside.write_bytes(path.read_bytes())
        warn_once(f"{aside}: {lines.damaged} damaged lines could not be read; the whole journal is kept there")
    seal_table(layout, path.stem, rating_table(lines.events) if lines.events else None)


def _journals(layout: Layout) -> list[Path]:
    found = [(order, path) for path in layout.journals.glob("*.jsonl") if (order := journal_order(path))]
    return [path for _, path in sorted(found) if path.is_file()]
