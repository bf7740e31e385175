"""Reads files of the next model into the page cache while the current one is in use."""

from __future__ import annotations

import contextlib

from pipeline.loading.speed import ReadAhead, read_ahead
from pipeline.registry.model_settings import weight_files
from pipeline.request import ModelSettings


class ReadingAhead:
    """Is told of each waiting bundle, and begins to read when its model differs from the one before."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._foreseen: ModelSettings | None = None
        self._reading: ReadAhead | None = None

    def foresee(self, settings: ModelSettings) -> None:
        """Begin to read the model of a waiting bundle, if it is another one. Raises nothing."""
        before, self._foreseen = self._foreseen, settings
        if not self._wanted or before in (None, settings):
            return
        # What is wrong with the files is said when they are loaded. This is the thread that takes bundles in: whatever
        # happens here must not end it, or the worker would wait for ever.
        with contextlib.suppress(Exception):
            paths = weight_files(settings)
            self.stop()
            self._reading = read_ahead(paths)

    def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.stop()
