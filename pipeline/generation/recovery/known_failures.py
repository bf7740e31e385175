"""Kinds of pictures and models that are known to run out of memory, in one run."""

from __future__ import annotations

from collections.abc import Hashable

from pipeline.errors import OutOfMemory


class KnownFailures:
    """Known failures of one run, in which memory does not grow: what failed with every fallback would fail again.

    A kind is whatever decides how much memory a stage takes. A kind that has succeeded once is never known to fail.
    """

    def __init__(self) -> None:
        self._came_out: set[Hashable] = set()
        self._hopeless: dict[Hashable, str] = {}

    def came_out(self, kind: Hashable) -> None:
        """One of this kind succeeded."""
        self._came_out.add(kind)

    def give_up(self, kind: Hashable, failure: OutOfMemory) -> None:
        """One of this kind failed, and no fallback is left."""
        if kind not in self._came_out:
            self._hopeless[kind] = str(failure)

    def why_not(self, kind: Hashable) -> OutOfMemory | None:
        """The failure that another one of this kind would end in; None if it is worth trying."""
        message = self._hopeless.get(kind)
        return None if message is None else OutOfMemory(message)
