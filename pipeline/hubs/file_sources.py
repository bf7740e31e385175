"""The sources of a file, and the answers of hubs that refuse it."""

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
    """A source of a file: a URL below a hub's own address, and the kind of request, which names the hub."""

    url: str
    kind: RequestKind

    @property
    def label(self) -> str:
        """The hub's name."""
        return LABELS[BUCKETS[self.kind].hub]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A hub's answer instead of a file; contains the beginning of its body."""

    source: FileSource
    answer: Answer

    @property
    def status(self) -> int:
        """The answer's status."""
        return self.answer.status

    def say(self) -> str:
        """The meaning of the refusal, as text to follow the hub's name."""
        if is_refused_by_storage(self.answer):
            return f"leads to storage that refuses its link (status {self.status})"
        busy = "is out of order" if self.status >= 500 else "refuses"
        return _STATUSES.get(self.status, f"{busy} (status {self.status})")


class HubRefused(DownloadError):
    """Raised when no hub gave the file; `refusals` are their answers, in the order of the sources."""

    def __init__(self, message: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)
