"""Saves finished pictures on threads while the next bundle is being made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from jobs.job import Assignment
from pipeline.errors import RunStopped
from pipeline.request import GeneratedImage

THREADS = 2
MAX_UNSAVED = 64
"""Finished pictures waiting for the disk; more would let a slow disk fill the memory."""

_log = logging.getLogger("darkroom.worker")


class Saving:
    """Calls `save` for each picture on one of its threads; after a `fault` it saves no more."""

    def __init__(self, save: Callable[[Assignment, GeneratedImage], None]) -> None:
        self._save = save
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="save")
        self._unsaved = threading.BoundedSemaphore(MAX_UNSAVED)
        self._pending: set[Future[None]] = set()
        self.handed_over = 0
        self.fault: RunStopped | None = None
        """Why nothing can be saved any more, if so."""

    def hand_over(self, one: Assignment, image: GeneratedImage) -> None:
        """Queue a picture for saving; blocks while too many are waiting."""
        self.handed_over += 1
        self._unsaved.acquire()
        future = self._threads.submit(self._unless_at_fault, one, image)
        self._pending.add(future)
        future.add_done_callback(self._done)

    def wait(self) -> None:
        """Wait until every queued picture is saved or has failed."""
        wait(tuple(self._pending))

    def close(self) -> None:
        """Wait, and end the threads."""
        self._threads.shutdown(wait=True)

    def _unless_at_fault(self, one: Assignment, image: GeneratedImage) -> None:
        if self.fault is None:
            self._save(one, image)

    def _done(self, future: Future[None]) -> None:
        self._pending.discard(future)
        self._unsaved.release()
        error = future.exception()
        if error is None:
            return
        _log.debug("saving failed", exc_info=error)
        if self.fault is None:
            failed = f"saving failed: {type(error).__name__}: {error}"
            self.fault = error if isinstance(error, RunStopped) else RunStopped(failed)
