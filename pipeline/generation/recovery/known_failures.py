"""What became in a run of kinds of pictures and of models: those that came out, and why others never will."""

from __future__ import annotations

from collections.abc import Hashable

from pipeline.errors import OutOfMemory


class Prospects:
    """Of one run, in which memory does not become more: what found no room with everything given up will find none.

    A kind is whatever decides how much memory a stage takes. Of a kind that has come out once, none is lost.
    """

    def __init__(self) -> None:
        self._came_out: set[Hashable] = set()
        self._hopeless: dict[Hashable, str] = {}

    def came_out(self, kind: Hashable) -> None:
        """There was room for one of these."""
        self._came_out.add(kind)

    def give_up(self, kind: Hashable, failure: OutOfMemory) -> None:
        """There was no room, and nothing is left to give up for it."""
        if kind not in self._came_out:
            self._hopeless[kind] = str(failure)

    def why_not(self, kind: Hashable) -> OutOfMemory | None:
        """The failure that another one of these would only end in again; None where it is worth trying."""
        message = self._hopeless.get(kind)
        return None if message is None else OutOfMemory(message)
