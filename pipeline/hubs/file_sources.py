"""Where a file can be had, and what a hub says that does not give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import DownloadError
from pipeline.hubs.limits import BUCKETS, RequestKind
from pipeline.hubs.query import Answer, is_refused_by_storage
from pipeline.hubs.remote_models import LABELS

_STATUSES = {
    401: "asks for a login",
    403: "does not give it to everybody",
    404: "has no such file",
    410: "no longer gives it out",
    429: "asks for fewer requests; try again in some minutes",
    451: "must not give it out",
}


@dataclass(frozen=True, slots=True)
class FileSource:
    """Where a file can be had: a URL below a hub's own address, and the kind of request, which names the hub."""

    url: str
    kind: RequestKind

    @property
    def label(self) -> str:
        """The hub's name."""
        return LABELS[BUCKETS[self.kind].hub]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A hub's answer in place of a file, of whose body it holds the beginning."""

    source: FileSource
    answer: Answer

    @property
    def status(self) -> int:
        """The answer's status."""
        return self.answer.status

    def say(self) -> str:
        """What it means, to stand behind the hub's name."""
        if is_refused_by_storage(self.answer):
            return f"leads to storage that refuses its link (status {self.status})"
        busy = "is out of order" if self.status >= 500 else "refuses"
        return _STATUSES.get(self.status, f"{busy} (status {self.status})")


class HubRefused(DownloadError):
    """No hub gave the file, and each has said so; `refusals` are their answers, in the order of the sources."""

    def __init__(self, message: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)
