"""Forwards log records of a worker to the run's log: Darkroom's events, and warnings of libraries."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs.engines.messages import Logged

LIBRARIES = ("diffusers", "transformers")
LIBRARY_LOGGER = "darkroom.libraries"

CHATTER = ("Attention backends are an experimental feature",)
"""Beginnings of warnings that nobody can act on: the worker chooses the backend itself."""

MAX_TEXT = 2_000
MAX_LIBRARY_TEXTS = 100
"""Different warnings of libraries that are passed on, in one worker."""

MAX_TEXTS = 10_000
"""Texts that are remembered, to count them instead of passing them on again."""


class Forwarding(logging.Handler):
    """Sends every record as a message. A repeated text is sent again only the 10th, 100th ... time.

    With `hide_texts`, libraries' warnings are sent without their words, which may hold a prompt.
    """

    def __init__(self, send: Callable[[Logged], None], *, hide_texts: bool) -> None:
        super().__init__(logging.INFO)
        self._send, self._hide_texts = send, hide_texts
        self._counts: dict[str, int] = {}
        self._library_texts = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, unless it was sent before."""
        try:
            library = record.name.partition(".")[0] if not record.name.startswith("darkroom") else None
            if library and record.getMessage().startswith(CHATTER):
                return
            text = self._text(record, library)[:MAX_TEXT]
            count = self._counted(text)
            if library and count == 1:
                self._library_texts += 1
            if (library and self._library_texts > MAX_LIBRARY_TEXTS) or not _is_told(count):
                return
            again = f" ({count:,} times so far)" if count > 1 else ""
            logger = LIBRARY_LOGGER if library else record.name
            self._send(Logged(logger, record.levelno, text + again, record.created))
        except Exception:  # of a record that cannot be formatted
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Do nothing: logging never costs a picture."""

    def _text(self, record: logging.LogRecord, library: str | None) -> str:
        if library is None:
            return record.getMessage()
        if self._hide_texts:
            return f"{library}: a warning ({record.module}, line {record.lineno}); its words may hold a private prompt"
        return f"{library}: {record.getMessage()}"

    def _counted(self, text: str) -> int:
        count = self._counts.get(text, 0) + 1
        if count > 1 or len(self._counts) < MAX_TEXTS:
            self._counts[text] = count
        return count


def forward(send: Callable[[Logged], None], *, hide_texts: bool) -> None:
    """From now on, send what is logged in this process; call after libraries are imported."""
    handler = Forwarding(send, hide_texts=hide_texts)
    logger = logging.getLogger("darkroom")
    logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    logger.addHandler(handler)
    for name in LIBRARIES:
        library = logging.getLogger(name)
        for own in library.handlers:  # what they print stays as it was
            own.setLevel(max(own.level, library.level))
        library.setLevel(logging.WARNING)
        library.addHandler(handler)


def _is_told(count: int) -> bool:
    return str(count).strip("0") == "1"
