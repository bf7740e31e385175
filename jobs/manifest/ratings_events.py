"""What people say of images: events, a line of a journal and a row of a part each, appended and never edited.

    {"image_id": "...", "kind": "rating", "value": "4", "compared": [], "source": "command", "said_at": "...", ...}

The last word on an image counts (`ratings_view`). A line without its newline was torn by a crash and does not exist; a
complete line that is no event is damage: counted, skipped, never a reason to lose the other lines. A kind that this
version does not know is kept as it is, for the version that wrote it.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from jobs.manifest.schema import Column
from jobs.manifest.snapshot import warn_once
from pipeline.errors import ConfigError

RATING: Final = "rating"
PICK: Final = "pick"
REJECT: Final = "reject"
TAG: Final = "tag"
UNTAG: Final = "untag"
NOTE: Final = "note"
REMOVED: Final = "removed"
RESET: Final = "reset"
UNDO: Final = "undo"

YES, NO = "yes", "no"

STARS = range(1, 6)

MAX_TAG, MAX_NOTE, MAX_COMPARED = 100, 2_000, 200
"""Characters of a tag and of a note; images that a pick is compared with, the newest ones."""


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("expected a time zone")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class RatingEvent:
    """One thing that was said, and the table of its columns. `said_at` is an aware UTC datetime."""

    image_id: Annotated[
        str, Field(pattern="^[0-9a-f-]{0,36}$"), Column("the image; empty for what is said of learning as a whole")
    ]
    kind: Annotated[
        str,
        Field(pattern="^[a-z_]{1,20}$"),
        Column("`rating`, `pick`, `reject`, `tag`, `untag`, `note`, `removed`, `reset`, `undo`"),
    ]
    value: Annotated[
        str,
        Field(max_length=MAX_NOTE),
        Column(
            "stars, or empty for none; `yes`, `no` of picks and rejects; the tag; the note; the job of a removed "
            "image; the uuid of the event that is undone"
        ),
    ] = ""
    compared: Annotated[
        list[str], Field(max_length=MAX_COMPARED), Column("ids of the images that a picked one was better than")
    ] = field(default_factory=list)
    source: Annotated[str, Field(pattern="^[a-z_]{1,20}$"), Column("`command`, `queue`, `gallery`")] = "command"
    said_at: Annotated[datetime, AfterValidator(_in_utc), Column("when it was said")] = field(
        default_factory=lambda: datetime.now(UTC)
    )
    uuid: Annotated[str, Field(pattern="^[0-9a-f-]{36}$"), Column("the event's own id")] = field(
        default_factory=lambda: str(uuid.uuid4())
    )


@dataclass(frozen=True, slots=True)
class RatingLines:
    """What stands in a journal: events in the order written, and how many bytes of whole lines."""

    events: tuple[RatingEvent, ...]
    damaged: int
    whole_bytes: int


def event_line(event: RatingEvent) -> bytes:
    """An event as a line of a journal, with its newline. Raises `ConfigError` for what would not be read again."""
    # ASCII, as in `events`: no line break of a note can then look like a line's end.
    text = json.dumps({**asdict(event), "said_at": event.said_at.isoformat()}, ensure_ascii=True, separators=(",", ":"))
    try:
        _event().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "text"
        raise ConfigError(f"{event.kind}: {place}: {first['msg']}") from error
    return text.encode("ascii") + b"\n"


def parse_lines(content: bytes) -> RatingLines:
    """The events of a journal's bytes."""
    whole = content.rfind(b"\n") + 1
    events: list[RatingEvent] = []
    damaged = 0
    for line in content[:whole].splitlines():
        try:
            events.append(_event().validate_json(line))
        except ValidationError:
            damaged += 1
    return RatingLines(tuple(events), damaged, whole)


def read_rating_journal(path: Path) -> RatingLines:
    """A whole journal; damaged lines are reported once. Raises FileNotFoundError if it was sealed meanwhile."""
    lines = parse_lines(path.read_bytes())
    if lines.damaged:
        warn_once(f"{path}: {lines.damaged} damaged lines were skipped; all others are used")
    return lines


def columns_of(events: Sequence[RatingEvent]) -> dict[str, list[object]]:
    """Events column by column, `said_at` as text."""
    rows = [{**asdict(event), "said_at": event.said_at.isoformat()} for event in events]
    return {name: [row[name] for row in rows] for name in RatingEvent.__annotations__}


@functools.cache
def _event() -> TypeAdapter[RatingEvent]:
    return TypeAdapter(RatingEvent)
