"""`runs/<run_id>/run.log`: the events of a run, one line each, through standard logging.

Whatever is logged below `darkroom` while a run goes on stands in it, from workers too, without what no row may have.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from jobs.engines.messages import Logged
from jobs.terminal import one_line
from pipeline.metadata.leaks import scrub
from pipeline.system.units import MIB

LOGGER = "darkroom"

TOLD_LOGGER = "darkroom.manifest"
"""What is wrong with a manifest is said on standard error as well."""

MAX_LOG_BYTES = 10 * MIB
"""Of one file: some 80,000 lines. The last ones are `run.log`, those before them `run.log.1` and so on."""

BACKUPS = 4
MAX_TEXT = 2_000
"""Characters of an event."""

MAX_EARLY = 1_000
"""Events that are kept until the run has its folder."""


class RunLog(logging.Handler):
    """Keeps log records until the run has a folder, then writes them there. An error loses lines, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._early: deque[logging.LogRecord] = deque(maxlen=MAX_EARLY)
        self._file: _File | None = None

    def begin(self, path: Path) -> None:
        """From now on, write to this file, beginning with the records that were kept."""
        self._file = _File(path)
        while self._early:
            self._file.handle(self._early.popleft())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or write one event."""
        if self._file is None:
            self._early.append(record)
        else:
            self._file.handle(record)

    @property
    def fault(self) -> str | None:
        """How many lines were lost and why, for the user; None if none was."""
        lost = self._file
        return None if lost is None or lost.error is None else f"{lost.dropped} lines of it are lost: {lost.error}"

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        super().close()


@contextlib.contextmanager
def run_log() -> Iterator[RunLog]:
    """A log of everything that is logged in the block; only one, even if runs are started within runs."""
    log, logger, told = RunLog(), logging.getLogger(LOGGER), logging.getLogger(TOLD_LOGGER)
    level, last_resort = logger.level, logging.lastResort
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    logger.addHandler(log)
    if last_resort is not None:
        told.addHandler(last_resort)
    try:
        yield log
    finally:
        if last_resort is not None:
            told.removeHandler(last_resort)
        logger.removeHandler(log)
        logger.setLevel(level)
        log.close()


def log_again(logged: Logged) -> None:
    """Log a worker's record in this process."""
    values = {"name": logged.logger, "levelno": logged.level, "levelname": logging.getLevelName(logged.level)}
    record = logging.makeLogRecord({**values, "msg": logged.text, "created": logged.time})
    logging.getLogger(logged.logger).handle(record)


class _File(RotatingFileHandler):
    """What cannot be written is dropped and counted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MAX_LOG_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)
        self.setFormatter(_Line())
        self.dropped = 0
        self.error: str | None = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        fault = sys.exc_info()[1]
        self.error = (isinstance(fault, OSError) and fault.strerror) or str(fault)
        self.dropped += 1
        stream, self.stream = self.stream, None
        if stream is not None:  # it would try to write the same again
            with contextlib.suppress(OSError, ValueError):
                stream.close()


class _Line(logging.Formatter):
    """Time in UTC, level, event. A traceback would name folders, and is for `verbose=true` on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        text = " ".join(record.getMessage().splitlines())
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ")
        return f"{when} {record.levelname} {one_line(scrub(text))[:MAX_TEXT]}"
