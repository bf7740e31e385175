"""What people say of images, as they write it: stars, tags, a note."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.manifest.ratings_events import MAX_NOTE, MAX_TAG, NOTE, STARS, TAG, UNTAG, RatingEvent
from pipeline.errors import ConfigError
from pipeline.storage.foreign_names import plain

NONE = "none"


def stars_of(word: str) -> str:
    """The value of a rating: 1 to 5, or empty for `none`. Raises `ConfigError` for anything else."""
    if word == NONE:
        return ""
    if word.isascii() and word.isdecimal() and int(word) in STARS:
        return str(int(word))
    raise ConfigError([f"{word}: expected {STARS[0]} to {STARS[-1]} stars, or {NONE}, after the images"])


def split_tags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Images, and the `+a` and `-b` among them."""
    tags = [word for word in words if word[:1] in ("+", "-")]
    return [word for word in words if word not in tags], tags


def tag_events(image_id: str, tags: Sequence[str], source: str = "command") -> list[RatingEvent]:
    """The events of `+a` and `-b`. Raises `ConfigError` for what is no tag."""
    for tag in tags:
        if not tag[1:] or plain(tag[1:], MAX_TAG) != tag[1:]:
            raise ConfigError([f"{plain(tag)!r}: no tag; expected + or - and up to {MAX_TAG} printable characters"])
    return [RatingEvent(image_id, TAG if tag[0] == "+" else UNTAG, tag[1:], source=source) for tag in tags]


def note_events(image_id: str, note: str | None, source: str = "command") -> list[RatingEvent]:
    """The event of a note, of an empty one too, which takes it away. Raises `ConfigError` for one that is too long."""
    if note is None:
        return []
    if len(note) > MAX_NOTE:
        raise ConfigError([f"--note: {len(note)} characters; expected at most {MAX_NOTE}"])
    return [RatingEvent(image_id, NOTE, note, source=source)]
